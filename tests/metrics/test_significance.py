"""The bootstrap against sacrebleu's own."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest, estimate_ci

from tokenrl_cli.interfaces import Texts
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.metrics.significance import bootstrap_interval, paired_bootstrap
from tokenrl_cli.reward.bleu import Bleu
from tokenrl_cli.reward.chrf import Chrf

WORDS = ["a", "b", "c", "dd", "ee", "ff", "."]
SIZE = 80


def sentences(rng: np.random.Generator) -> list[str]:
    return [" ".join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(SIZE)]


def texts(hypotheses: list[str], references: list[list[str]]) -> Texts:
    empty = np.zeros((SIZE, 0), dtype=np.int64)
    return Texts(hypotheses, references, [""] * SIZE, {}, empty, empty.astype(bool), np.ones(SIZE, bool), 0)


@pytest.mark.parametrize("several", [False, True], ids=["one reference", "one or two"])
@pytest.mark.parametrize(
    ("name", "ours", "library"),
    [
        ("BLEU", Bleu(4, "exp", None, True, "13a", False), BLEU()),
        ("chrF2", Chrf(6, 0, 2, False, False), CHRF()),
    ],
)
def test_score_and_p_equal_sacrebleus_paired_bootstrap(name: str, ours: Bleu, library: BLEU, several: bool) -> None:
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
    _, known = PairedTest(named, {name: library}, references=columns, test_type="bs", n_samples=500)()
    before, after = ours.corpus(texts(second, references)), ours.corpus(texts(hypotheses, references))
    found = paired_bootstrap(after, before, 500, 12345)
    assert before.value == pytest.approx(known[name][0].score, abs=1e-9)
    assert after.value == pytest.approx(known[name][1].score, abs=1e-9)
    assert found.p == known[name][1].p_value
    low, high = bootstrap_interval(after, 500, 12345)
    assert (high - low) / 2 == pytest.approx(known[name][1].ci, rel=1e-5)  # the library sums in float32
    assert found.low < found.mean < found.high
    index = np.random.default_rng(12345).choice(SIZE, size=(500, SIZE), replace=True)
    exact = [
        library.corpus_score([hypotheses[i] for i in row], [[c[i] for i in row] for c in columns]) for row in index
    ]
    assert (high - low) / 2 == pytest.approx(estimate_ci(np.array([each.score for each in exact]))[1], abs=1e-9)


def test_a_system_does_not_differ_from_itself() -> None:
    score = mean_score(np.array([0.0, 1.0, 0.5, np.nan]), "mean")
    difference = paired_bootstrap(score, score, 200, 1)
    assert score.value == 0.5 and difference.mean == difference.low == difference.high == 0.0 and difference.p == 1.0


def test_unequal_test_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 sentences"):
        paired_bootstrap(mean_score(np.ones(3), ""), mean_score(np.ones(2), ""), 10, 1)
