"""The files that record a run: what is written, and what is removed on resume."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report.journal import Journal


def test_lines_have_the_documented_format_and_plain_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metrics(120, "train", "val", "greedy", 1795.23456, {"reward": 0.41, "bleu": float("nan")})
    journal.metrics(10, "warm_start", "train", None, 1.0, {"loss/nll": 2.0})
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines())
    assert first == {
        "step": 120, "stage": "train", "split": "val", "decode": "greedy", "time": 1795.235,
        "metrics": {"reward": 0.41, "bleu": None},
    }  # fmt: skip
    assert "decode" not in second


def test_samples_are_kept_with_their_texts(tmp_path: Path) -> None:
    said = Evaluation(5, "train", "val", "greedy", {}, {}, ["ä", "b"], [["x"], ["y"]], ["s", "t"], [0.5, 1.0])
    Journal(tmp_path).samples(said, 1)
    (line,) = (tmp_path / "samples.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["hypothesis"] == "ä"
    assert json.loads(line)["score"] == 0.5


def test_a_column_of_the_reward_overwrites_none_of_ours(tmp_path: Path) -> None:
    columns = {"score": ["high"], "step": ["up"], "note": ["n"]}
    said = Evaluation(5, "train", "val", "greedy", {}, {}, ["h"], [["x"]], ["s"], [0.5], columns)
    Journal(tmp_path).samples(said, 1)
    found = json.loads((tmp_path / "samples.jsonl").read_text("utf-8"))
    wanted = {"score": 0.5, "step": 5, "note": "n", "reward/score": "high", "reward/step": "up"}
    assert {key: found[key] for key in wanted} == wanted


def test_half_of_a_surrogate_pair_is_written_and_comes_back(tmp_path: Path) -> None:
    said = Evaluation(5, "train", "val", "greedy", {}, {}, ["\ud800é\\"], [["\udfff"]], ["s"], [0.5])
    Journal(tmp_path).samples(said, 1)
    found = json.loads((tmp_path / "samples.jsonl").read_bytes())
    assert (found["hypothesis"], found["references"]) == ("\ud800é\\", ["\udfff"])
    Journal(tmp_path).results({"text": "\ud800"})
    assert json.loads((tmp_path / "results.json").read_bytes()) == {"text": "\ud800"}


def test_a_resume_takes_back_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metrics(1, "train", "train", None, 1.0, {"a": 1.0})
    position = journal.position()
    kept = (tmp_path / "metrics.jsonl").read_bytes()
    journal.metrics(2, "train", "train", None, 2.0, {"a": 2.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "torn')
    journal.results({"format": 1})
    journal.cut(position)
    assert (tmp_path / "metrics.jsonl").read_bytes() == kept
    assert not (tmp_path / "results.json").exists()


def test_results_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        journal.results({"format": 1})
    assert not (tmp_path / "results.json").exists()
