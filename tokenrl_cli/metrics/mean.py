"""Metrics whose corpus score is the mean over sentences."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.interfaces import CorpusScore


def mean_score(sentences: np.ndarray, signature: str) -> CorpusScore:
    """The mean of sentences [n], NaN ones left out, on their own scale; statistics are (score, 1)."""
    known = ~np.isnan(sentences)
    statistics = np.stack([np.where(known, sentences, 0.0), known], -1).astype(np.float64)
    return CorpusScore(_ratio(statistics.sum(0)), signature, sentences, statistics, _ratio)


def _ratio(total: np.ndarray) -> float:
    return float(total[0] / total[1]) if total[1] else float("nan")
