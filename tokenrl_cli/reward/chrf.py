"""Character n-gram F-score."""

from __future__ import annotations

import math

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts, UserError
from tokenrl_cli.metrics.corpus import library_score


class Chrf:
    """sacrebleu's `CHRF.sentence_score` / 100; chrF++ with `word_order` 2. Popovic 2015, 2017."""

    def __init__(self, char_order: int, word_order: int, beta: int, whitespace: bool, lowercase: bool) -> None:
        from sacrebleu.metrics.chrf import CHRF

        for name, value, least in (("char_order", char_order, 1), ("word_order", word_order, 0), ("beta", beta, 1)):
            if value < least:
                raise UserError(f"reward.{name}", f"must be at least {least}, got {value}")
        self.metric = CHRF(char_order, word_order, beta, lowercase, whitespace)

    def __call__(self, texts: Texts) -> np.ndarray:
        """[B]; NaN for a source without a reference."""
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([self._score(text, references) for text, references in pairs], dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Corpus chrF, 0-100: sacrebleu's `corpus_score`, from the statistics of each text's best reference."""
        beta = self.metric.beta
        return library_score(self.metric, texts, self(texts) * 100, "" if beta == 2 else f"|beta:{beta}")

    def _score(self, text: str, references: list[str]) -> float:
        return self.metric.sentence_score(text, references).score / 100 if references else math.nan
