"""Corpus scores read from disk equal those that were saved, and the files are small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.reward.said import error_rate
from tokenrl_cli.interfaces import CorpusScore, Reward, Texts, UserError
from tokenrl_cli.metrics.aggregates import Mean
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.metrics.saved_statistics import load, save
from tokenrl_cli.metrics.significance import paired_bootstrap
from tokenrl_cli.reward.bleu import Bleu
from tokenrl_cli.reward.chrf import Chrf
from tokenrl_cli.reward.exact_match import ExactMatch
from tokenrl_cli.reward.rouge import Rouge
from tokenrl_cli.reward.ter import Ter

WORDS = [f"w{i}" + "x" * (i % 6) for i in range(200)]
METRICS: dict[str, Reward] = {
    "bleu": Bleu(4, "exp", None, True, "13a", False),
    "floor, order 2": Bleu(2, "floor", 0.3, False, "char", True),
    "chrf": Chrf(6, 0, 2, False, False),
    "chrf++/beta 1": Chrf(4, 2, 1, True, True),
    "ter": Ter(False, False, False, False),
    "wer": error_rate("words"),
    "rouge": Rouge("rougeL", "fmeasure", False),
    "exact_match": ExactMatch(False, True),
}


def texts(seed: int, size: int, length: int = 8) -> Texts:
    """Texts whose hypotheses are their references with every fourth word changed; one has no reference."""
    rng, same = np.random.default_rng(seed), np.random.default_rng(1)
    references = [" ".join(same.choice(WORDS, length)) for _ in range(size)]
    said = [" ".join(rng.choice(WORDS) if rng.random() < 0.25 else word for word in r.split()) for r in references]
    empty = np.zeros((size, 0), dtype=np.int64)
    wanted = [[reference] if i != 2 else [] for i, reference in enumerate(references)]
    return Texts(said, wanted, [""] * size, {}, empty, empty.astype(bool), np.ones(size, bool), 0)


def scores(seed: int, size: int, names: tuple[str, ...] = tuple(METRICS)) -> dict[str, CorpusScore]:
    said = texts(seed, size)
    return {name: METRICS[name].corpus(said) for name in names}  # type: ignore[attr-defined]


def test_scores_come_back_as_they_were_and_give_the_same_interval(tmp_path: Path) -> None:
    pair = scores(3, 40), scores(4, 40)
    for number, each in enumerate(pair):
        save(tmp_path / f"{number}.npz", each)
    before, after = (load(tmp_path / f"{number}.npz") for number in (0, 1))
    assert list(before) == list(METRICS)
    for name, score in pair[0].items():
        again = before[name]
        assert (again.value, again.signature, again.lower_is_better) == (
            score.value, score.signature, score.lower_is_better,
        )  # fmt: skip
        assert again.statistics.dtype == np.float64
        assert np.array_equal(again.statistics, score.statistics)
        assert np.array_equal(again.sentences, score.sentences, equal_nan=True)
        assert np.isnan(again.sentences[2])
        some = score.statistics[[0, 5, 5, 9]].sum(0)
        assert again.aggregate(some) == score.aggregate(some)
        assert again.aggregate == score.aggregate
        found = paired_bootstrap(after[name], before[name], 100, 1)
        assert found == paired_bootstrap(pair[1][name], pair[0][name], 100, 1)
        assert name == "exact_match" or found.p is not None


def test_the_same_scores_are_the_same_bytes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    for number in (0, 1):
        save(tmp_path / "in" / f"{number}.npz", scores(3, 10, ("bleu", "wer")))
    assert (tmp_path / "in" / "0.npz").read_bytes() == (tmp_path / "in" / "1.npz").read_bytes()
    assert {file.name for file in (tmp_path / "in").iterdir()} == {"0.npz", "1.npz"}


@pytest.mark.parametrize(
    "values",
    [
        [[0.0, -3.0], [2.0**40, 1.0]], [[2.0**53, -(2.0**53)]], [[300.0, -300.0], [70000.0, 1.0]],
        [[0.1, np.nan]], [[np.inf, 1.0]], [[1e300, -1e300]], [[-0.0, 0.5]],
    ],
)  # fmt: skip
def test_any_numbers_come_back(tmp_path: Path, values: list[list[float]]) -> None:
    statistics = np.array(values).T.copy()
    score = CorpusScore(float("nan"), "", np.zeros(len(statistics)), statistics, Mean())
    save(tmp_path / "a.npz", {"a": score})
    again = load(tmp_path / "a.npz")["a"]
    assert np.array_equal(again.statistics, statistics, equal_nan=True)
    assert np.isnan(again.value)


def test_no_sentences_and_no_metrics(tmp_path: Path) -> None:
    for corpus in ({}, {"none": mean_score(np.zeros(0), "mean")}):
        save(tmp_path / "a.npz", corpus)
        assert list(load(tmp_path / "a.npz")) == list(corpus)


def test_a_metric_with_a_way_of_its_own_is_kept_but_for_that(tmp_path: Path) -> None:
    own = CorpusScore(2.0, "mine", np.ones(40), np.ones((40, 1)), lambda total: 2 * float(total[0]) / 40)
    save(tmp_path / "a.npz", {"own": own} | scores(3, 40, ("wer",)))
    again = load(tmp_path / "a.npz")
    assert again["own"].value == 2.0
    assert np.array_equal(again["own"].statistics, own.statistics)
    assert again["wer"].aggregate(np.array([1.0, 4.0])) == 0.25
    with pytest.raises(UserError, match="own computes its corpus score in a way of its own"):
        again["own"].aggregate(np.ones(1))


def rewritten(path: Path, change: dict[str, object], first: dict[str, object] | None = None) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(arrays["about"].tobytes()) | change
    about["scores"][0] |= first or {}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def test_what_is_no_such_file_is_told_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(UserError, match=r"a\.npz: there is no such file"):
        load(path)
    good = scores(3, 10, ("bleu",))
    save(path, good)
    whole = path.read_bytes()
    damage: list[bytes] = [b"", b"nonsense", whole[: len(whole) // 2], whole.replace(b"statistics", b"stotistics")]
    for content in damage:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.npz: is no file of statistics, or it is damaged"):
            load(path)
    np.savez(path, about=np.array([{"pickled": 1}], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="damaged"):
        load(path)
    for change, first, words in (
        ({"format": 2}, None, "has format 2, this version reads 1"),
        ({}, {"aggregate": {"kind": "eval"}}, "is no way to compute a score"),
        ({}, {"aggregate": {"kind": "sacrebleu", "metric": "BLEU", "settings": {"nonsense": 1}}}, "is no way to"),
        ({}, {"aggregate": {"kind": "sacrebleu", "metric": "os", "settings": {}}}, "is no way to"),
    ):
        save(path, good)
        rewritten(path, change, first)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=words):
            load(path)


def test_statistics_are_small(tmp_path: Path) -> None:
    """Texts of about 30 words: the 10 counts of BLEU take less than 4 bytes a text, the 18 of chrF less than 8."""
    said = texts(3, 600, length=30)
    for name, most in (("bleu", 4), ("chrf", 8)):
        score: CorpusScore = METRICS[name].corpus(said)  # type: ignore[attr-defined]
        save(tmp_path / "a.npz", {name: CorpusScore(score.value, "", np.zeros(600), score.statistics, Mean())})
        assert (tmp_path / "a.npz").stat().st_size < most * 600 + 1500
