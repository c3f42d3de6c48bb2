"""Character n-gram F-score."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts


class Chrf:
    """sacrebleu's `CHRF.sentence_score` / 100; chrF++ with `word_order` 2. Popovic 2015, 2017."""

    def __init__(self, char_order: int, word_order: int, beta: int, whitespace: bool, lowercase: bool) -> None:
        from sacrebleu.metrics.chrf import CHRF

        self.metric = CHRF(char_order, word_order, beta, lowercase, whitespace)

    def __call__(self, texts: Texts) -> np.ndarray:
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([self.metric.sentence_score(text, references).score / 100 for text, references in pairs])

    def corpus(self, texts: Texts) -> CorpusScore:
        """Corpus chrF, 0-100: sacrebleu's `corpus_score`, from the statistics of each sentence's best reference."""
        metric: Any = self.metric  # its types do not know that a reference may be missing
        width = max(len(references) for references in texts.references)
        columns = [[r[i] if i < len(r) else None for r in texts.references] for i in range(width)]
        statistics = np.array(metric._extract_corpus_statistics(texts.hypotheses, columns), dtype=np.float64)

        def aggregate(total: np.ndarray) -> float:
            return float(metric._compute_f_score(total.astype(int).tolist()))

        metric.corpus_score(texts.hypotheses[:1], [column[:1] for column in columns])  # sets the signature's count
        sentences = self(texts) * 100
        return CorpusScore(aggregate(statistics.sum(0)), str(metric.get_signature()), sentences, statistics, aggregate)
