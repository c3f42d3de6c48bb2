"""Corpus scores of metrics that are the mean over sentences."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.interfaces import CorpusScore
from tokenrl_cli.metrics.aggregates import Mean


def mean_score(sentences: np.ndarray, signature: str) -> CorpusScore:
    """Returns the mean of `sentences` [n], the scores of n sentences, without NaN ones, as a CorpusScore on the same
    scale, which keeps the array itself, not a copy.

    Its statistics [n, 2] are (score, 1), or (0, 0) for NaN; `signature` describes how the scores were computed. The
    value is NaN where all scores are.
    """
    known = ~np.isnan(sentences)
    statistics = np.stack([np.where(known, sentences, 0.0), known], -1).astype(np.float64)
    return CorpusScore(Mean()(statistics.sum(0)), signature, sentences, statistics, Mean())
