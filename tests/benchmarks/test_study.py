"""The study's table comes from statistics that are kept arm by arm, and from nothing else."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.metrics.test_saved_statistics import METRICS, texts
from tokenrl_cli.interfaces import CorpusScore, Evaluation
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.metrics.saved_statistics import load
from tokenrl_cli.metrics.significance import hierarchical_bootstrap

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import study

SEEDS = [1, 2, 3]
ARMS = ("warm_start", "mle", "rloo")
SIZE = 600  # sentences, about as many as e2e has


@pytest.fixture(scope="module")
def said() -> list[Evaluation]:
    """What three policies say of 600 sentences of 30 words."""
    found = []
    for seed in range(3):
        whole = texts(seed + 5, SIZE, 30)
        corpus: dict[str, CorpusScore] = {name: METRICS[name].corpus(whole) for name in ("bleu", "chrf")}  # type: ignore[attr-defined]
        scores = corpus["bleu"].sentences / 100
        corpus["reward"] = mean_score(scores, "mean over sentences of bleu")
        metrics = {"entropy": 0.5 + seed, "completions/mean_length": 30.0}
        found.append(
            Evaluation(1, "eval", "test", "greedy", metrics, corpus, whole.hypotheses, whole.references, [],
                       scores.tolist())
        )  # fmt: skip
    return found


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[Evaluation]) -> list[tuple[str, ...]]:
    """A study without runs: each arm has its results, and decoding gives one of `said`; -> what was decoded."""
    calls: list[tuple[str, ...]] = []

    def evaluated(ended: Path, decode: str, link: str, reward: dict[str, Any], split: str) -> Evaluation:
        assert split == "test"
        assert reward == {"_target_": "the recipe's"}, "an arm may have a reward of its own: a constant"
        calls.append((ended.name, decode, link))
        return said[policy(ended.name)]

    def arm(out: Path, dataset: str, name: str, seed: int, longer: float) -> None:
        finished(out, name, seed)

    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(study, "RESAMPLES", 100)
    monkeypatch.setattr(study, "evaluated", evaluated)
    monkeypatch.setattr(study, "arm", arm)
    monkeypatch.setattr(study, "warm_start", lambda out, dataset, seed: finished(out, "warm_start", seed))
    return calls


def policy(run: str) -> int:
    """Which of three is the end of a run: of rloo the first or the second by its seed, of mle the third."""
    name, seed = run.split("-")[-2:]
    return {"mle": 2, "warm_start": 1}.get(name, int(seed) % 2)


def finished(out: Path, name: str, seed: int) -> None:
    run = out / f"e2e_nlg-{name}-{seed}"
    if not run.exists():
        run.mkdir(parents=True)
        (run / "results.json").write_text(json.dumps({"wall_time_s": 10.0 + seed, "peak_memory_mb": 100}))
        (run / "config.yaml").write_text("reward:\n  _target_: the recipe's\n")


@pytest.mark.slow
def test_a_study_goes_on_arm_by_arm_and_its_table_needs_no_decoding(
    tmp_path: Path, asked: list[tuple[str, ...]], said: list[Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "study.json").write_text(json.dumps({"e2e_nlg": {"scst": {"seeds": [1]}}, "other": 1}))
    words = ["study.py", "--datasets", "e2e_nlg", "--arms", "rloo", "--seeds", *map(str, SEEDS)]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "out")])
    study.main()
    assert len(asked) == 3 * len(ARMS) * len(SEEDS) == len(set(asked))
    assert {link for name, _, link in asked if "warm_start" in name} == {"warm_start"}
    assert {link for name, _, link in asked if "warm_start" not in name} == {"last"}
    first = (tmp_path / "results" / "study.json").read_bytes()
    results = json.loads(first)
    assert results["other"] == 1
    assert set(results["e2e_nlg"]) == {*ARMS, "scst"}

    study.main()  # everything is there
    assert len(asked) == 27
    kept = study.kept_file("e2e_nlg", "rloo", 2)
    os.utime(kept, (0, 0))  # the run is newer than what was kept of it
    study.main()
    assert asked[27:] == [("e2e_nlg-rloo-2", decode, "last") for decode in study.DECODINGS]
    monkeypatch.setattr(sys, "argv", [*words, "--table", "--out", str(tmp_path / "nowhere")])
    study.main()
    assert len(asked) == 30
    assert (tmp_path / "results" / "study.json").read_bytes() == first

    row = results["e2e_nlg"]["rloo"]
    assert row["wall_time_s"] == [11.0, 12.0, 13.0]
    assert row["seeds"] == SEEDS
    pairs = [tuple(said[policy(f"{name}-{seed}")].corpus["bleu"] for name in ("rloo", "mle")) for seed in SEEDS]
    wanted = hierarchical_bootstrap(pairs, study.RESAMPLES, study.SEED)  # type: ignore[arg-type]
    found = row["beam"]["bleu_difference"]
    assert found == {"mean": wanted.mean, "low": wanted.low, "high": wanted.high, "p": wanted.p}
    assert found["p"] is not None
    assert row["beam"]["bleu"] == np.mean([after.value for after, _ in pairs])
    assert row["sample"]["reward_difference"]["p"] is not None
    nothing = results["e2e_nlg"]["mle"]["greedy"]["bleu_difference"]
    assert nothing == {"mean": 0.0, "low": None, "high": None, "p": None}, "the control does not differ from itself"


def test_what_is_kept_of_a_study_is_small(tmp_path: Path, asked: list[tuple[str, ...]], said: list[Evaluation]) -> None:
    """3 seeds of 6 arms and a warm start are 21 files."""
    for name in ("warm_start", "rloo"):
        finished(tmp_path, name, 1)
    study.keep(tmp_path, "e2e_nlg", "rloo", 1)
    path = study.kept_file("e2e_nlg", "rloo", 1)
    assert 21 * path.stat().st_size < 650_000
    again = load(path)
    assert set(again) == {f"{d}/{name}" for d in study.DECODINGS for name in ("bleu", "chrf", "reward")}
    for score in again.values():
        assert np.isnan(score.sentences[2])
        assert len(score.statistics) == SIZE
        assert score.value == pytest.approx(score.aggregate(score.statistics.sum(0)), abs=1e-12)


def test_the_committed_table_has_no_p_that_does_not_belong_to_its_interval() -> None:
    """A p is there only with the statistics that it can be computed from again."""
    results = json.loads((Path(study.__file__).parent / "results" / "study.json").read_text())
    for dataset, rows in results.items():
        again = ""
        for name, row in rows.items():
            kept = [study.kept_file(dataset, arm, seed).is_file() for seed in row["seeds"] for arm in (name, "mle")]
            found = [each for view in study.views(dataset) for each in row[view].values() if isinstance(each, dict)]
            assert all(kept) or not [each for each in found if "p" in each], f"{dataset} {name}"
            again = name if all(kept) and name != "mle" else again
        if again:  # one is enough: it takes a second
            said = study.row(dataset, again, rows[again]["seeds"])
            assert json.loads(json.dumps(said)) == rows[again], "python benchmarks/study.py --table"
