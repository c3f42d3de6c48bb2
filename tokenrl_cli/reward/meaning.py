"""How the rewards of the embedded task know what a source means."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts, UserError


def meanings(texts: Texts, reward: str) -> list[str]:
    """The key of each source's meaning. Raises UserError where the dataset does not say."""
    if "meaning" not in texts.columns:
        raise UserError(
            reward,
            "needs the column 'meaning', which the dataset does not have",
            f"choose dataset=grammar, or leave {reward} out of reward and metrics",
        )
    return texts.columns["meaning"]


def bounded(sources: int) -> int:
    if sources < 1:
        raise UserError("reward.cached_sources", f"must be at least 1, got {sources}")
    return sources


def mean_score(scores: np.ndarray, signature: str) -> CorpusScore:
    """[n] scores of sentences -> their mean, as a corpus score."""
    statistics = np.stack([scores, np.ones_like(scores)], -1)

    def aggregate(total: np.ndarray) -> float:
        return float(total[0] / total[1]) if total[1] else float("nan")

    return CorpusScore(aggregate(statistics.sum(0)), signature, scores, statistics, aggregate)
