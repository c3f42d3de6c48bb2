"""Is a difference on a test set more than luck? Bootstrap over its sentences, by sufficient statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenrl_cli.interfaces import CorpusScore


@dataclass(frozen=True)
class Difference:
    """Of two systems on one test set: the difference of their scores, a 95 % interval, and a two-sided p."""

    mean: float
    low: float
    high: float
    p: float


def paired_bootstrap(a: CorpusScore, b: CorpusScore, samples: int, seed: int) -> Difference:
    """score(a) - score(b) with `samples` resamples of the same sentences for both (Koehn 2004).

    p is the number that `sacrebleu --paired-bs` prints for the same seed and resamples: the share of the absolute
    resampled differences, less their mean, that exceed the observed one. Only where no resample shows any difference
    is it 1 here, for then there is nothing that could be significant.
    """
    if len(a.statistics) != len(b.statistics):
        raise ValueError(f"{len(a.statistics)} and {len(b.statistics)} sentences cannot be paired")
    index = _resamples(len(a.statistics), samples, seed)
    differences = _scores(a, index) - _scores(b, index)
    observed = a.value - b.value
    absolute = np.abs(differences)
    extreme = absolute - absolute.mean() > abs(observed)
    low, high = _interval(differences)
    p = float((extreme.sum() + 1) / (samples + 1)) if (absolute > 0).any() else 1.0
    return Difference(observed, low, high, p)


def hierarchical_bootstrap(pairs: list[tuple[CorpusScore, CorpusScore]], samples: int, seed: int) -> Difference:
    """Mean over training seeds of score(a) - score(b): seeds are resampled, then the sentences of each.

    `pairs` holds the two systems of every seed. With one seed it says nothing about the noise of training: only the
    sentences vary. p is twice the share of resamples on the other side of zero, never below 1 / (samples + 1).
    """
    generator = np.random.default_rng(seed)
    resampled = np.stack([_scores(a, index) - _scores(b, index) for a, b, index in
                          ((a, b, _resamples(len(a.statistics), samples, seed + i))
                           for i, (a, b) in enumerate(pairs))])  # fmt: skip
    chosen = generator.integers(len(pairs), size=(len(pairs), samples))
    differences = resampled[chosen, np.arange(samples)].mean(0)
    observed = float(np.mean([a.value - b.value for a, b in pairs]))
    other_side = min((differences <= 0).mean(), (differences >= 0).mean())
    low, high = _interval(differences)
    return Difference(observed, low, high, float(min(1.0, max(2 * other_side, 1 / (samples + 1)))))


def bootstrap_interval(score: CorpusScore, samples: int, seed: int) -> tuple[float, float]:
    """A 95 % interval of one system's score."""
    return _interval(_scores(score, _resamples(len(score.statistics), samples, seed)))


def _resamples(size: int, samples: int, seed: int) -> np.ndarray:
    """[samples, size] indices, drawn as sacrebleu draws them."""
    return np.random.default_rng(seed).choice(size, size=(samples, size), replace=True)


def _scores(score: CorpusScore, index: np.ndarray) -> np.ndarray:
    counts = np.stack([np.bincount(row, minlength=len(score.statistics)) for row in index])  # [samples, n]
    return np.array([score.aggregate(total) for total in counts @ score.statistics])


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 %: one in forty cut off at either end, as sacrebleu does."""
    ordered, cut = np.sort(values), len(values) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])
