"""Sentence BLEU."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts


class Bleu:
    """sacrebleu's `BLEU.sentence_score` / 100 of each text against all its references."""

    def __init__(
        self,
        max_order: int,
        smoothing: Literal["none", "floor", "add-k", "exp"],
        smoothing_value: float | None,
        effective_order: bool,
        tokenize: Literal["13a", "none", "char", "intl", "zh"],
        lowercase: bool,
    ) -> None:
        from sacrebleu.metrics.bleu import BLEU

        self.metric = BLEU(lowercase, False, tokenize, smoothing, smoothing_value, max_order, effective_order)

    def __call__(self, texts: Texts) -> np.ndarray:
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([self.metric.sentence_score(text, references).score / 100 for text, references in pairs])

    def corpus(self, texts: Texts) -> CorpusScore:
        """Corpus BLEU, 0-100: sacrebleu's `corpus_score`, rebuilt from the n-gram counts of each sentence."""
        metric = self.metric
        scores = [metric.sentence_score(h, r) for h, r in zip(texts.hypotheses, texts.references, strict=True)]
        statistics = np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], dtype=np.float64)
        order = metric.max_ngram_order

        def aggregate(total: np.ndarray) -> float:
            lengths, counts = total[:2].astype(int).tolist(), total[2:].astype(int).tolist()
            score = metric.compute_bleu(
                counts[:order], counts[order:], lengths[0], lengths[1], metric.smooth_method, metric.smooth_value,
                False, order,
            )  # fmt: skip
            return float(score.score)

        sentences = np.array([s.score for s in scores])
        signature = str(metric.get_signature()).replace("eff:yes", "eff:no")
        return CorpusScore(aggregate(statistics.sum(0)), signature, sentences, statistics, aggregate)
