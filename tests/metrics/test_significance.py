"""The bootstrap equals sacrebleu's and plain loops; and where it gives no interval."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest, estimate_ci

from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.aggregates import Rate
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.metrics.significance import (
    FEWEST_BLOCKS,
    FEWEST_SENTENCES,
    Difference,
    bootstrap_interval,
    by_block,
    hierarchical_bootstrap,
    known,
    paired_bootstrap,
    reason,
    sacrebleu_p,
)
from tokenrl_cli.reward.bleu import Bleu
from tokenrl_cli.reward.chrf import Chrf

WORDS = ["a", "b", "c", "dd", "ee", "ff", "."]
SIZE = 80


def sentences(rng: np.random.Generator) -> list[str]:
    return [" ".join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(SIZE)]


def texts(hypotheses: list[str], references: list[list[str]]) -> Texts:
    empty = np.zeros((SIZE, 0), dtype=np.int64)
    return Texts(hypotheses, references, [""] * SIZE, {}, empty, empty.astype(bool), np.ones(SIZE, bool), 0)


@pytest.mark.sample(1)
@pytest.mark.parametrize("several", [False, True], ids=["one reference", "one or two"])
@pytest.mark.parametrize(
    ("name", "ours", "library"),
    [
        ("BLEU", Bleu(4, "exp", None, True, "13a", False), BLEU()),
        ("chrF2", Chrf(6, 0, 2, False, False), CHRF()),
    ],
)
def test_score_interval_and_sacrebleu_p_equal_sacrebleus_paired_bootstrap(
    name: str, ours: Bleu, library: BLEU, several: bool
) -> None:
    rng = np.random.default_rng(0)
    first, second = sentences(rng), sentences(rng)
    # the first system sees a part of the reference, so that it is really better
    hypotheses = [" ".join(a.split()[:3] + b.split()) for a, b in zip(first, second, strict=True)]
    references = [
        [a, *([b] if several and i % 3 == 0 else [])]
        for i, (a, b) in enumerate(zip(first, sentences(rng), strict=True))
    ]
    columns = [[refs[0] for refs in references]]
    if several:
        columns.append([refs[1] if len(refs) > 1 else None for refs in references])  # type: ignore[list-item]
    named = [("a", second), ("b", hypotheses)]
    _, library_says = PairedTest(named, {name: library}, references=columns, test_type="bs", n_samples=500)()
    before, after = ours.corpus(texts(second, references)), ours.corpus(texts(hypotheses, references))
    found = paired_bootstrap(after, before, 500, 12345)
    assert before.value == pytest.approx(library_says[name][0].score, abs=1e-9)
    assert after.value == pytest.approx(library_says[name][1].score, abs=1e-9)
    assert found.sacrebleu_p == sacrebleu_p(after, before, 500, 12345) == library_says[name][1].p_value
    low, high = bootstrap_interval(after, 500, 12345)
    assert low is not None
    assert high is not None
    assert (high - low) / 2 == pytest.approx(library_says[name][1].ci, rel=1e-5)  # the library sums in float32
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high
    index = np.random.default_rng(12345).choice(SIZE, size=(500, SIZE), replace=True)
    exact = [
        library.corpus_score([hypotheses[i] for i in row], [[c[i] for i in row] for c in columns]) for row in index
    ]
    assert (high - low) / 2 == pytest.approx(estimate_ci(np.array([each.score for each in exact]))[1], abs=1e-9)


def score(sentences: np.ndarray) -> CorpusScore:
    return mean_score(np.asarray(sentences, dtype=np.float64), "mean")


def pair(differences: np.ndarray) -> tuple[CorpusScore, CorpusScore]:
    """Two systems whose sentences differ by `differences`."""
    return score(differences), score(np.zeros(len(differences)))


def outside(found: Difference) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low > 0 or found.high < 0


# ------------------------------------------------------------------------------------- the p belongs to the interval


@pytest.mark.sample(5)
@pytest.mark.parametrize("samples", [40, 41, 79, 80, 99, 100, 119, 500, 999, 1000, 1001])
def test_p_is_below_05_exactly_where_the_interval_leaves_out_0(samples: int) -> None:
    """Differences around the border in steps of less than one resample, and many resamples that are exactly 0."""
    rng = np.random.default_rng(samples)
    smooth = rng.normal(size=50)
    smooth -= smooth.mean()
    lumpy = np.repeat([1.0, -1.0, 0.0], [9, 3, 28])
    decisions = set()
    for shift in np.linspace(-0.5, 0.5, 101):
        found = paired_bootstrap(*pair(smooth + shift), samples, 1)
        assert found.p is not None
        assert outside(found) == (found.p < 0.05), (shift, found)
        decisions.add(outside(found))
    assert decisions == {True, False}
    for seed in range(60):
        found = paired_bootstrap(*pair(lumpy), samples, seed)
        assert found.p is not None
        assert outside(found) == (found.p < 0.05), (seed, found)


def test_p_and_interval_by_hand() -> None:
    """Of 1,000 resamples 24 at or below 0 are p = 2 * 25 / 1001 = .04995, and the interval begins above 0."""
    for below, p in ((0, 2 / 1001), (24, 50 / 1001), (25, 52 / 1001), (500, 1.0), (976, 50 / 1001), (1000, 2 / 1001)):
        wanted = np.where(np.arange(1000) < below, -1.0 - np.arange(1000), 1.0 + np.arange(1000))

        def aggregate(total: np.ndarray, values: list[float] = wanted.tolist()) -> float:  # noqa: B008
            return values.pop()

        rows = np.zeros((40, 1))
        a = CorpusScore(1.0, "", np.zeros(40), rows, aggregate)
        b = CorpusScore(0.0, "", np.zeros(40), rows, lambda total: 0.0)
        found = paired_bootstrap(a, b, 1000, 1)
        ordered = np.sort(wanted)
        assert found.p == pytest.approx(p, abs=1e-12)
        assert (found.low, found.high) == (ordered[24], ordered[975])


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="39 resamples are too few"):
        paired_bootstrap(*pair(np.arange(-20.0, 20.0)), 39, 1)


def test_false_alarms_are_about_5_percent_and_sacrebleus_are_not() -> None:
    rng = np.random.default_rng(7)
    alarms, theirs = [], []
    for trial in range(500):
        found = paired_bootstrap(*pair(rng.normal(size=100)), 199, trial)
        assert found.p is not None
        assert found.sacrebleu_p is not None
        alarms.append(found.p < 0.05)
        theirs.append(found.sacrebleu_p < 0.05)
    assert 0.03 < np.mean(alarms) < 0.075  # .05, standard error .01
    assert np.mean(theirs) > 0.10


def test_p_of_a_normal_difference_is_that_of_the_normal_distribution() -> None:
    """sacrebleu's number, about half of p, would be outside the tolerance."""
    from statistics import NormalDist

    rng = np.random.default_rng(3)
    sentences = rng.normal(size=400)
    sentences = (sentences - sentences.mean()) / sentences.std()
    for z in (0.5, 1.0, 1.5, 2.0):
        found = paired_bootstrap(*pair(sentences + z / 20), 8000, 5)
        exact = 2 * (1 - NormalDist().cdf(z))
        assert found.p == pytest.approx(exact, rel=0.12), z


def test_p_does_not_depend_on_the_order_of_the_two_systems() -> None:
    a, b = pair(np.random.default_rng(2).normal(0.1, 1, size=60))
    there, back = paired_bootstrap(a, b, 500, 1), paired_bootstrap(b, a, 500, 1)
    assert there.p == back.p
    assert (there.low, there.high) == (-back.high, -back.low)


# --------------------------------------------------------------------------------------------------- several seeds


def brute_force(pairs: list[tuple[CorpusScore, CorpusScore]], samples: int, seed: int) -> np.ndarray:
    """Means over sentences and seeds of each resample, by plain loops."""
    rng = np.random.default_rng(seed)
    rows = [(a.sentences - b.sentences).tolist() for a, b in pairs]
    found = []
    for _ in range(samples):
        total = 0.0
        for _ in rows:
            of_one = rows[int(rng.random() * len(rows))]
            total += sum(of_one[int(rng.random() * len(of_one))] for _ in of_one) / len(of_one)
        found.append(total / len(rows))
    return np.array(found)


def width(found: Difference) -> float:
    """Width of a 95 % interval in standard deviations of a normal distribution."""
    assert found.low is not None
    assert found.high is not None
    return (found.high - found.low) / (2 * 1.959964)


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("apart", [0.0, 0.3], ids=["equal seeds", "seeds that differ"])
def test_a_seed_drawn_twice_draws_its_sentences_anew(seeds: int, apart: float) -> None:
    """The same resample for both draws of a seed would make the interval 1.22 (2 seeds) or 1.34 (5) times as wide."""
    rng = np.random.default_rng(seeds)
    rows = [rng.normal(size=40) for _ in range(seeds)]
    rows = [(row - row.mean()) / row.std() + apart * i for i, row in enumerate(rows)]
    pairs = [pair(row) for row in rows]
    means = np.array([row.mean() for row in rows])
    found = hierarchical_bootstrap(pairs, 8000, 1)
    assert found.mean == pytest.approx(means.mean(), abs=1e-12)
    slow = brute_force(pairs, 1500, 2)
    exact = np.sqrt((means.var() + 1 / 40) / seeds)  # nested: between seeds, and within one, both over their number
    assert slow.std() == pytest.approx(exact, rel=0.07)
    if not apart or seeds > 2:  # two seeds that differ have no normal distribution
        assert width(found) == pytest.approx(exact, rel=0.06)
    low, high = np.quantile(slow, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.2 * exact)
    assert found.high == pytest.approx(high, abs=0.2 * exact)


def test_seeds_with_the_same_sentences_are_drawn_independently() -> None:
    """Both systems of a seed use the same resample of sentences; every draw of a seed uses another."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=200), rng.normal(size=200)
    noisy = [(score(shared * 10 + own), score(shared * 10)) for _ in range(4)]
    found = hierarchical_bootstrap(noisy, 4000, 3)
    assert width(found) == pytest.approx(own.std() / np.sqrt(200 * 4), rel=0.06)


def test_test_sets_of_seeds_may_differ_in_size_and_p_belongs_to_their_interval() -> None:
    rng = np.random.default_rng(5)
    decisions = set()
    for trial in range(40):
        pairs = [pair(rng.normal(0.1, 1, size=size)) for size in (40, 60, 50)]
        found = hierarchical_bootstrap(pairs, 400, trial)
        assert found.p is not None
        assert found.sacrebleu_p is None
        assert outside(found) == (found.p < 0.05)
        decisions.add(outside(found))
    assert decisions == {True, False}


def test_one_seed_gives_the_interval_of_its_sentences() -> None:
    a, b = pair(np.random.default_rng(1).normal(size=100))
    assert width(hierarchical_bootstrap([(a, b)], 8000, 1)) == pytest.approx(
        width(paired_bootstrap(a, b, 8000, 2)), rel=0.05
    )


# ----------------------------------------------------------------------------------- where a bootstrap says nothing


def nothing(a: CorpusScore, b: CorpusScore) -> str:
    """The reason why no function gives an interval for the two systems; "" where one does."""
    differences = [paired_bootstrap(a, b, 100, 1), hierarchical_bootstrap([(a, b), (a, b)], 100, 1)]
    numbers = [value for each in differences for value in (each.low, each.high, each.p)]
    numbers.append(sacrebleu_p(a, b, 100, 1))
    assert len({value is None for value in numbers}) == 1, numbers
    return reason(a, b) if numbers[0] is None else ""


def test_few_sentences_give_neither_interval_nor_p() -> None:
    values = np.random.default_rng(0).normal(size=FEWEST_SENTENCES)
    assert nothing(*pair(values)) == ""
    assert nothing(*pair(values[1:])) == nothing(*pair(values[:1])) == "few_sentences"
    assert bootstrap_interval(score(values), 100, 1)[0] is not None
    assert bootstrap_interval(score(values[1:]), 100, 1) == (None, None)
    assert paired_bootstrap(*pair(np.array([-5.551])), 1000, 12345) == Difference(-5.551, None, None, None)


def test_only_sentences_with_a_score_in_both_systems_count() -> None:
    values = np.random.default_rng(0).normal(size=100)
    first, second = values.copy(), values[::-1].copy()
    first[:40], second[-31:] = np.nan, np.nan
    assert known(score(first), score(second)) == 29
    assert nothing(score(first), score(second)) == "few_sentences"
    assert nothing(score(first), score(values)) == ""
    lost = np.full(100, np.nan)
    assert nothing(score(lost), score(lost)) == "few_sentences"
    assert bootstrap_interval(score(lost), 99, 1)[0] is None


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.3), (1.0, 1.0), (0.0, 0.0), (1 / 3, 0.1), (1e9 / 3, 1e9 / 7)])
def test_sentences_that_all_say_the_same_have_no_interval_of_width_0(a: float, b: float) -> None:
    """Sums of 0.1 differ in their last bits, and that is not variation."""
    assert nothing(score(np.full(100, a)), score(np.full(100, b))) == "no_variation"
    assert bootstrap_interval(score(np.full(100, a)), 100, 1) == (None, None)
    values = np.random.default_rng(0).normal(size=100)
    assert nothing(score(values), score(values)) == "no_variation"
    assert nothing(score(values), score(values + a)) == "no_variation"


def test_what_is_equal_but_for_rounding_counts_as_0() -> None:
    """One sentence differs: resamples without it are equal but for rounding, and their difference counts as 0."""
    a = np.repeat([0.1, 0.7, 0.3], [30, 30, 40])
    b = np.repeat([0.1, 0.7, 0.3], [30, 30, 40]) + np.where(np.arange(100) == 0, 0.2, 0.0)
    found = paired_bootstrap(score(b), score(a), 400, 1)
    assert found.low == 0.0
    assert found.p is not None
    assert found.p > 0.2


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_scores_that_are_no_numbers_have_no_interval(value: float) -> None:
    values = np.random.default_rng(0).normal(size=100)
    spoiled = np.where(np.arange(100) == 3, value, values)
    assert nothing(score(spoiled), score(values)) == nothing(score(spoiled), score(spoiled)) == "not_a_number"
    assert bootstrap_interval(score(spoiled), 100, 1) == (None, None)


def test_a_corpus_score_that_is_no_number_has_no_interval() -> None:
    values = np.random.default_rng(0).normal(size=100)
    lost = CorpusScore(np.nan, "", values, values[:, None], lambda total: float("nan"))
    assert nothing(lost, score(values)) == nothing(score(values), lost) == "not_a_number"
    assert bootstrap_interval(lost, 100, 1) == (None, None)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("call", ["paired", "hierarchical", "known", "reason"])
def test_unequal_test_sets_are_refused(call: str, size: int) -> None:
    """Also one sentence beside several, which numpy would repeat."""
    a, b = mean_score(np.ones(3), ""), mean_score(np.ones(size), "")
    calls = {
        "paired": lambda: paired_bootstrap(a, b, 10, 1),
        "hierarchical": lambda: hierarchical_bootstrap([(b, b), (a, b)], 10, 1),
        "known": lambda: known(a, b),
        "reason": lambda: reason(a, b),
    }
    with pytest.raises(ValueError, match=f"3 and {size} sentences cannot be paired"):
        calls[call]()


def rates(errors: list[float], lengths: list[float]) -> CorpusScore:
    statistics = np.array([errors, lengths], dtype=np.float64).T
    sentences = np.where(statistics[:, 1] > 0, statistics[:, 0] / np.maximum(statistics[:, 1], 1), np.nan)
    return CorpusScore(Rate()(statistics.sum(0)), "wer", sentences, statistics, Rate(), True)


def test_blocks_hold_the_sums_of_their_sentences_and_leave_the_score_as_it_is() -> None:
    """Speakers a (1 error in 4 words), b (3 in 8), c without any reference."""
    score = rates([1, 0, 0, 3, 0], [2, 2, 0, 5, 3])
    found = by_block(score, ["a", "a", "c", "b", "b"])
    assert found.statistics.tolist() == [[1, 4], [3, 8]]
    assert found.sentences.tolist() == [0.25, 0.375]
    assert found.value == score.value == 4 / 12


def test_a_block_bootstrap_equals_a_plain_loop_over_drawn_speakers() -> None:
    rng = np.random.default_rng(3)
    speakers = [name for name in "abcdef" for _ in range(rng.integers(2, 9))]
    lengths = rng.integers(1, 9, len(speakers)).astype(float)
    one, other = (rates((rng.random(len(speakers)) * lengths).round().tolist(), lengths.tolist()) for _ in range(2))
    blocks = [by_block(each, speakers) for each in (one, other)]
    drawn = np.random.default_rng(12345).choice(6, size=(200, 6))
    rows = [[i for block in draw for i, name in enumerate(speakers) if name == "abcdef"[block]] for draw in drawn]
    looped = [[each.statistics[index].sum(0) for index in rows] for each in (one, other)]
    values = [np.sort([total[0] / total[1] for total in each]) for each in looped]
    found = bootstrap_interval(blocks[0], 200, 12345, FEWEST_BLOCKS)
    assert found == pytest.approx((values[0][5], values[0][194]))
    gaps = [a[0] / a[1] - b[0] / b[1] for a, b in zip(*looped, strict=True)]
    paired = paired_bootstrap(*blocks, 200, 12345, FEWEST_BLOCKS)
    assert paired.mean == one.value - other.value
    assert paired.p == pytest.approx(2 * (min(sum(g <= 0 for g in gaps), sum(g >= 0 for g in gaps)) + 1) / 201)


def test_fewer_than_four_blocks_have_no_interval() -> None:
    score = rates([1, 0, 2, 1], [4, 4, 4, 4])
    assert bootstrap_interval(by_block(score, ["a", "b", "c", "a"]), 100, 0, FEWEST_BLOCKS) == (None, None)
    assert bootstrap_interval(by_block(score, ["a", "b", "c", "d"]), 100, 0, FEWEST_BLOCKS)[0] is not None
