"""Bootstrap over the sentences of a test set: intervals of scores, and p-values of differences between systems.

A resample draws sentences with replacement and sums their sufficient statistics, so no text is scored again. In three
cases there is neither an interval nor a p-value (both None), and `reason` names the case: fewer than FEWEST_SENTENCES
sentences, a score that is not a number, and resamples that do not differ (an interval of width 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tokenrl_cli.interfaces import CorpusScore

# Simulated false alarms at .05 where there is no difference, differences of sentences normal / exponential:
# 5 sentences 16 / 23 %, 10: 9 / 13 %, 20: 7 / 11 %, 30: 6 / 9 %, 100: 5 / 7 %.
FEWEST_SENTENCES = 30
# Speakers (blocks of utterances): fewer say next to nothing of other speakers. Of S blocks a bootstrap sees (S - 1) / S
# of the variance between them, so with few the interval is too narrow.
FEWEST_BLOCKS = 4
ROUNDING = 1e-11  # relative to the scores: sums of the same numbers in another order differ by less

Reason = Literal["few_sentences", "not_a_number", "no_variation"]


@dataclass(frozen=True)
class Difference:
    """Difference of the scores of two systems on one test set, on the scale of the metric: its `mean`, the observed
    difference, with its 95 % interval [low, high] and two-sided p.

    `low`, `high` and both p are None in three cases: fewer than FEWEST_SENTENCES (30) sentences with a score, a score
    that is not a number, resamples that do not differ. `sacrebleu_p` is the number that `sacrebleu --paired-bs` prints,
    about half of a two-sided p; None where several seeds are compared, which that command cannot do.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    sacrebleu_p: float | None = None


def paired_bootstrap(
    a: CorpusScore, b: CorpusScore, samples: int, seed: int, fewest: int = FEWEST_SENTENCES
) -> Difference:
    """Computes a paired bootstrap of score(a) - score(b), with `samples` resamples, each of the same sentences for both
    systems. Koehn 2004. The same seed gives the same numbers. The sign is that of the plain difference, also for an
    error rate, of which lower is better.

    The p of the Difference is two-sided and belongs to its interval: below .05 exactly where the interval excludes 0.
    Interval and p are None with fewer than `fewest` sentences that have a score in both (FEWEST_BLOCKS for the results
    of `by_block`), a score that is not finite, or resamples that do not differ. Raises ValueError where the two have
    different numbers of sentences, or, outside these cases, where `samples` is below 40, too few for a 95 % interval.
    """
    observed = a.value - b.value
    if known(a, b) < fewest:
        return Difference(observed, None, None, None)
    index = _resamples(len(a.statistics), samples, seed)
    return _decided(observed, _scores(a, index), _scores(b, index))


def sacrebleu_p(a: CorpusScore, b: CorpusScore, samples: int, seed: int) -> float | None:
    """Returns the p that `sacrebleu --paired-bs` prints for the same seed and resamples, by its own formula: the share
    of resamples with |d| - mean|d| above the observed |difference|, d the resampled differences; one is added to the
    number of these and of all resamples.

    That is about half of a two-sided p: without any true difference 12 to 15 % of tests are below .05. None with fewer
    than FEWEST_SENTENCES (30) sentences that have a score in both, a score that is not finite, or resamples that do not
    differ. Else raises ValueError where `samples` is below 40; and where the two have different numbers of sentences.
    """
    return paired_bootstrap(a, b, samples, seed).sacrebleu_p


def hierarchical_bootstrap(pairs: list[tuple[CorpusScore, CorpusScore]], samples: int, seed: int) -> Difference:
    """Computes a nested bootstrap of the mean over training seeds of score(a) - score(b): each resample draws seeds
    with replacement, and for every drawn seed its own resample of sentences. Davison and Hinkley 1997, section 3.8.

    `pairs` holds (a, b) of each of S seeds, at least one, a and b of the same sentences; `seed` is that of the
    resamples. Because a training seed that is drawn twice resamples its sentences twice, independently, the variance of
    the mean is (variance between seeds + mean variance within a seed) / S. With one seed only the sentences vary, and
    the interval does not cover the noise of training. With few seeds the interval is too narrow: a bootstrap of S seeds
    sees (S - 1) / S of the variance between them. Interval and two-sided p are None with fewer than FEWEST_SENTENCES
    (30) sentences that have a score in some pair, a score that is not finite, or resamples that do not differ;
    `sacrebleu_p` always is. Raises ValueError where a and b of a pair have different numbers of sentences, or, where
    there is an interval to compute, `samples` is below 40.
    """
    observed = float(np.mean([a.value - b.value for a, b in pairs]))
    if min(known(a, b) for a, b in pairs) < FEWEST_SENTENCES:
        return Difference(observed, None, None, None)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(pairs), size=(len(pairs), samples))  # the seed at each of S places of each resample
    after, before = np.empty(drawn.shape), np.empty(drawn.shape)
    for number, (a, b) in enumerate(pairs):
        places = drawn == number  # each of these places gets a resample of sentences of its own, the same for a and b
        size = len(a.statistics)
        index = generator.integers(size, size=(int(places.sum()), size))
        after[places], before[places] = _scores(a, index), _scores(b, index)
    return replace(_decided(observed, after.mean(0), before.mean(0)), sacrebleu_p=None)


def bootstrap_interval(
    score: CorpusScore, samples: int, seed: int, fewest: int = FEWEST_SENTENCES
) -> tuple[float, float] | tuple[None, None]:
    """Returns the 95 % bootstrap interval (low, high) of one system's score, on its scale: the range of the scores of
    `samples` resamples without one in forty at either end (with fewer than 40 resamples, of all). Half its width is the
    number that `sacrebleu --confidence` prints after +- for the same seed and resamples; sacrebleu centres it on the
    mean of the resamples. (None, None) with fewer than `fewest` sentences that have a score (FEWEST_BLOCKS for the
    result of `by_block`), a resampled score that is not finite, or resamples that do not differ."""
    if known(score) < fewest:
        return None, None
    values = _scores(score, _resamples(len(score.statistics), samples, seed))
    if not _varies(values, values):
        return None, None
    ordered, cut = np.sort(values), samples // 40  # one in forty cut off at either end
    return float(ordered[cut]), float(ordered[samples - cut - 1])


def by_block(score: CorpusScore, blocks: Sequence[str]) -> CorpusScore:
    """Returns the same corpus score with the sentences of each block summed to one row, so that a bootstrap draws whole
    blocks, each with all its sentences: a block bootstrap, for sentences of the same speaker, whose errors are not
    independent. `blocks` names the block of each of the n sentences; the rows of the result are in the order in which
    the blocks first appear. Sentences without a score are left out, and so are blocks of them alone."""
    scored = ~np.isnan(score.sentences)
    names = list(dict.fromkeys(name for name, kept in zip(blocks, scored, strict=True) if kept))
    row = {name: number for number, name in enumerate(names)}
    totals = np.zeros((len(names), score.statistics.shape[1]))
    np.add.at(totals, [row[name] for name, kept in zip(blocks, scored, strict=True) if kept], score.statistics[scored])
    return replace(score, sentences=np.array([score.aggregate(total) for total in totals]), statistics=totals)


def known(*scores: CorpusScore) -> int:
    """Returns the number of sentences for which all of these systems, at least one, have a score that is not NaN.
    Raises ValueError where they have different numbers of sentences."""
    sizes = list(dict.fromkeys(len(score.sentences) for score in scores))
    if len(sizes) > 1:
        raise ValueError(f"{' and '.join(map(str, sizes))} sentences cannot be paired")
    return int(np.logical_and.reduce([~np.isnan(score.sentences) for score in scores]).sum())


def reason(*scores: CorpusScore) -> Reason:
    """Returns why one score, or the difference of two, has no interval: "few_sentences" (fewer than FEWEST_SENTENCES
    (30) have a score), "not_a_number" (a corpus score is NaN or infinite), or "no_variation" of the resamples. Call it
    only where a bootstrap gave None: with an interval it returns one of them all the same. Raises ValueError where the
    two have different numbers of sentences."""
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
    """Scores [R] of R resamples, index [R, n] of the drawn sentences: the aggregate of (how often each sentence was
    drawn) @ (its statistics)."""
    rows, size = len(index), len(score.statistics)
    # One bincount for all resamples: those of row r are counted at r * size and above.
    places = (index + size * np.arange(rows)[:, None]).ravel()
    counts = np.bincount(places, minlength=rows * size).reshape(rows, size)
    with np.errstate(invalid="ignore"):  # an infinite score that was not drawn
        totals = counts @ score.statistics
    return np.array([score.aggregate(total) for total in totals])
