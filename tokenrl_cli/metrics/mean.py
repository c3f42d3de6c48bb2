"""Metrics whose corpus score is the mean over sentences."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.interfaces import CorpusScore
from tokenrl_cli.metrics.aggregates import Mean


def mean_score(sentences: np.ndarray, signature: str) -> CorpusScore:
    """The mean of sentences [n], NaN ones left out, on their own scale; statistics are (score, 1)."""
    known = ~np.isnan(sentences)
    statistics = np.stack([np.where(known, sentences, 0.0), known], -1).astype(np.float64)
    return CorpusScore(Mean()(statistics.sum(0)), signature, sentences, statistics, Mean())
