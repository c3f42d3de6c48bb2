"""Sentence BLEU."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts, UserError
from tokenrl_cli.metrics.corpus import library_score


class Bleu:
    """sacrebleu's `BLEU.sentence_score` / 100 of each text against all its references. Papineni et al. 2002."""

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

        if max_order < 1:
            raise UserError("reward.max_order", f"must be at least 1, got {max_order}")
        if smoothing_value is not None and smoothing not in ("floor", "add-k"):
            raise UserError("reward.smoothing_value", f"{smoothing} takes none, got {smoothing_value}", "null")
        if smoothing_value is not None and not 0 < smoothing_value < math.inf:
            raise UserError("reward.smoothing_value", f"must be above 0 and finite, got {smoothing_value}")
        force = True  # no advice on text that looks tokenized: a policy says what it says
        self.metric = BLEU(lowercase, force, tokenize, smoothing, smoothing_value, max_order, effective_order)
        self.whole = BLEU(lowercase, force, tokenize, smoothing, smoothing_value, max_order, False)

    def __call__(self, texts: Texts) -> np.ndarray:
        """[B]; NaN for a source without a reference."""
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([self._score(text, references) for text, references in pairs], dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Corpus BLEU, 0-100: sacrebleu's `corpus_score`, which knows no effective order."""
        order = self.whole.max_ngram_order
        return library_score(self.whole, texts, self(texts) * 100, "" if order == 4 else f"|order:{order}")

    def _score(self, text: str, references: list[str]) -> float:
        """A corpus of one: the same number, but `sentence_score` logs a line a call if effective order is off."""
        if not references:
            return math.nan
        return self.metric.corpus_score([text], [[reference] for reference in references]).score / 100
