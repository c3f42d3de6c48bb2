"""Is a difference on a test set more than luck? Bootstrap over its sentences, by sufficient statistics.

Where a bootstrap says nothing there is neither an interval nor a p, None, and `reason` names why: below
FEWEST_SENTENCES, where a score is no number, and where no resample differs from another (an interval of width 0).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tokenrl_cli.interfaces import CorpusScore

# Simulated false alarms at .05 where there is no difference, differences of sentences normal / exponential:
# 5 sentences 16 / 23 %, 10: 9 / 13 %, 20: 7 / 11 %, 30: 6 / 9 %, 100: 5 / 7 %.
FEWEST_SENTENCES = 30
ROUNDING = 1e-11  # relative to the scores: differences of sums that are equal but for their order are below it

Reason = Literal["few_sentences", "not_a_number", "no_variation"]


@dataclass(frozen=True)
class Difference:
    """Of two systems on one test set: the difference of their scores, a 95 % interval, and the p that belongs to it.

    `low`, `high` and both p are None where a bootstrap says nothing. `sacrebleu_p` is what `sacrebleu --paired-bs`
    prints, about half of a two-sided p; None where several seeds are compared, which that command cannot do.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    sacrebleu_p: float | None = None


def paired_bootstrap(a: CorpusScore, b: CorpusScore, samples: int, seed: int) -> Difference:
    """score(a) - score(b) with `samples` resamples of the same sentences for both (Koehn 2004).

    p is two-sided and belongs to the interval: below .05 exactly where the interval leaves out 0 (see `_decided`).
    Raises ValueError where the two have not the same number of sentences, or `samples` is too small for 95 %.
    """
    if len(a.statistics) != len(b.statistics):
        raise ValueError(f"{len(a.statistics)} and {len(b.statistics)} sentences cannot be paired")
    observed = a.value - b.value
    if known(a, b) < FEWEST_SENTENCES:
        return Difference(observed, None, None, None)
    index = _resamples(len(a.statistics), samples, seed)
    return _decided(observed, _scores(a, index), _scores(b, index))


def sacrebleu_p(a: CorpusScore, b: CorpusScore, samples: int, seed: int) -> float | None:
    """The number that `sacrebleu --paired-bs` prints for the same seed and resamples, by its own formula.

    The share of the absolute resampled differences, less their mean, that exceed the observed one. That is about half
    of a two-sided p: without any difference 12 to 15 % of tests are below .05. None where `paired_bootstrap` has none.
    """
    return paired_bootstrap(a, b, samples, seed).sacrebleu_p


def hierarchical_bootstrap(pairs: list[tuple[CorpusScore, CorpusScore]], samples: int, seed: int) -> Difference:
    """Mean over training seeds of score(a) - score(b): seeds are resampled, and for each draw its sentences anew.

    `pairs` holds the two systems of every seed. A seed that is drawn twice draws its sentences twice, independently:
    the variance of the mean of S seeds is (variance between seeds + mean variance within one) / S (nested bootstrap,
    Davison and Hinkley 1997, section 3.8). With one seed it says nothing about the noise of training: only the
    sentences vary. With few seeds the interval is too narrow for other seeds: of S seeds a bootstrap sees
    (S - 1) / S of the variance between them. p as in `paired_bootstrap`.
    """
    observed = float(np.mean([a.value - b.value for a, b in pairs]))
    if min(known(a, b) for a, b in pairs) < FEWEST_SENTENCES:
        return Difference(observed, None, None, None)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(pairs), size=(len(pairs), samples))  # which seed each place has in each resample
    after, before = np.empty(drawn.shape), np.empty(drawn.shape)
    for number, (a, b) in enumerate(pairs):
        places = drawn == number
        size = len(a.statistics)
        index = generator.integers(size, size=(int(places.sum()), size))
        after[places], before[places] = _scores(a, index), _scores(b, index)
    return replace(_decided(observed, after.mean(0), before.mean(0)), sacrebleu_p=None)


def bootstrap_interval(score: CorpusScore, samples: int, seed: int) -> tuple[float, float] | tuple[None, None]:
    """A 95 % interval of one system's score, the same as `sacrebleu --confidence` makes; (None, None) where a
    bootstrap says nothing."""
    if known(score) < FEWEST_SENTENCES:
        return None, None
    values = _scores(score, _resamples(len(score.statistics), samples, seed))
    if not _varies(values, values):
        return None, None
    ordered, cut = np.sort(values), samples // 40  # one in forty cut off at either end
    return float(ordered[cut]), float(ordered[samples - cut - 1])


def known(*scores: CorpusScore) -> int:
    """The number of sentences that all of these systems have a score for."""
    return int(np.logical_and.reduce([~np.isnan(score.sentences) for score in scores]).sum())


def reason(*scores: CorpusScore) -> Reason:
    """Why there is no interval, where there is none: of one score, or of the difference of two."""
    if known(*scores) < FEWEST_SENTENCES:
        return "few_sentences"
    return "no_variation" if np.isfinite([score.value for score in scores]).all() else "not_a_number"


def _decided(observed: float, after: np.ndarray, before: np.ndarray) -> Difference:
    """The interval and the p of a difference from the resampled scores [samples] of its two sides.

    With c = min(#(d <= 0), #(d >= 0)) of the resampled differences d, p = min(1, 2 (c + 1) / (samples + 1)): twice the
    share on the other side of 0, 0 itself counted on both, never below 2 / (samples + 1). The interval cuts off at
    either end as many resamples as leave p < .05 (`_cut`), so 0 is outside exactly where p < .05 (Efron and Tibshirani
    1993, section 15.4: a test by inverting the percentile interval). Differences by rounding alone count as 0.
    """
    with np.errstate(invalid="ignore"):  # an infinite score less another is no number
        differences, samples = after - before, len(after)
    if not (np.isfinite(observed) and _varies(differences, after, before)):
        return Difference(observed, None, None, None)
    noise = ROUNDING * max(np.abs(after).max(), np.abs(before).max())
    differences = np.where(np.abs(differences) <= noise, 0.0, differences)
    other_side = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    ordered, cut = np.sort(differences), _cut(samples)
    absolute = np.abs(differences)
    exceeding = int((absolute - absolute.mean() > abs(observed)).sum())
    return Difference(
        mean=observed,
        low=float(ordered[cut]),
        high=float(ordered[samples - cut - 1]),
        p=min(1.0, 2 * (other_side + 1) / (samples + 1)),
        sacrebleu_p=(exceeding + 1) / (samples + 1),
    )


def _cut(samples: int) -> int:
    """The largest c with 2 (c + 1) / (samples + 1) < .05: how many resamples the interval leaves out at either end."""
    cut = -(-(samples + 1) // 40) - 2
    if cut < 0:
        raise ValueError(f"{samples} resamples are too few for a 95 % interval: at least 40")
    return cut


def _varies(values: np.ndarray, *scores: np.ndarray) -> bool:
    """Whether resampled `values` are numbers and differ by more than the rounding of the `scores` they come from."""
    if not np.isfinite(values).all():
        return False
    return bool(np.ptp(values) > ROUNDING * max(np.abs(each).max() for each in scores))


def _resamples(size: int, samples: int, seed: int) -> np.ndarray:
    """[samples, size] indices, drawn as sacrebleu draws them."""
    return np.random.default_rng(seed).choice(size, size=(samples, size), replace=True)


def _scores(score: CorpusScore, index: np.ndarray) -> np.ndarray:
    """The scores [R] of the resamples index [R, n]: how often each sentence was drawn, times its statistics."""
    rows, size = len(index), len(score.statistics)
    places = (index + size * np.arange(rows)[:, None]).ravel()
    counts = np.bincount(places, minlength=rows * size).reshape(rows, size)
    with np.errstate(invalid="ignore"):  # an infinite score that was not drawn
        totals = counts @ score.statistics
    return np.array([score.aggregate(total) for total in totals])
