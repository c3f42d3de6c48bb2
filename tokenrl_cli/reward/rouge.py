"""Overlap of words with a reference, as summaries are scored."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.mean import mean_score


class Rouge:
    """rouge-score's number of each text, [0, 1], against the reference with the best F. Lin 2004.

    rouge1 and rouge2 count n-grams, rougeL is the longest common subsequence. Text is lowercased and only a-z and 0-9
    make words: other scripts score 0. `recall` is gamed by going on, `precision` by stopping early.
    """

    def __init__(
        self,
        variant: Literal["rouge1", "rouge2", "rougeL"],
        measure: Literal["fmeasure", "precision", "recall"],
        stemmer: bool,
    ) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self.variant, self.measure, self.stemmer = variant, measure, stemmer
        self.scorer = RougeScorer([variant], use_stemmer=stemmer)

    def __call__(self, texts: Texts) -> np.ndarray:
        """[B]; NaN for a source without a reference."""
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([self._score(text, references) for text, references in pairs], dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """The mean over sentences, 0-1, rouge-score's own scale."""
        settings = f"{self.variant}|{self.measure}|stemmer:{'yes' if self.stemmer else 'no'}"
        return mean_score(self(texts), f"{settings}|version:rouge-score {version('rouge-score')}")

    def _score(self, text: str, references: list[str]) -> float:
        if not references:
            return float("nan")
        return float(getattr(self.scorer.score_multi(references, text)[self.variant], self.measure))
