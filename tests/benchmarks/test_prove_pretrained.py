"""The arms on pretrained weights: what they are given can be composed, and the control gets the tokens that RL had."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.running import tokenrl
from tokenrl_cli.interfaces import CorpusScore
from tokenrl_cli.metrics.mean import mean_score

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import prove_pretrained as study

TOKENS = 4711  # that RL had


@pytest.fixture
def arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The command line of each arm of both tasks, which are not run, in their order."""
    typed: dict[str, list[str]] = {}

    def noted(folder: Path, *overrides: str, quiet: bool) -> None:
        typed[folder.name] = list(overrides)
        last = folder / "checkpoints" / "last"
        last.mkdir(parents=True)
        (last / "state.json").write_text(json.dumps({"run": {"tokens": TOKENS}}))
        summary = {"steps": {"final": 5}, "wall_time_s": 60.0, "peak_memory_mb": 2000}
        (folder / "results.json").write_text(json.dumps(summary))

    def scores(folder: Path, *_rest: Any) -> dict[str, CorpusScore]:
        better = 0.5 if "rloo" in folder.name else 0.0
        sentences = np.linspace(0, 1, 40) + better
        return {name: mean_score(sentences, "mean") for name in ("bleu", "rouge", "chrf", "reward")}

    monkeypatch.setattr(study, "run", noted)
    monkeypatch.setattr(study, "decoded", scores)
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(study, "exported", lambda _folder, to: to)
    monkeypatch.setattr(sys, "argv", ["", "--out", str(tmp_path / "out"), "--weights", str(tmp_path / "weights")])
    monkeypatch.setenv("TOKENRL_DATA", str(tmp_path))
    for task in study.TASKS.values():
        (tmp_path / "weights" / task.weights).mkdir(parents=True)
        (tmp_path / task.data).mkdir()
        with gzip.open(tmp_path / task.data / "test.jsonl.gz", "wt") as file:
            file.write('{"src": "a", "refs": ["b"]}\n' * 40)
    study.main()
    return typed


def test_arms_compose_and_the_control_gets_the_tokens_of_rl(
    arms: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    e2e = ["e2e-zero_shot", "e2e-mle", "e2e-rloo", "e2e-mle_continued"]
    assert list(arms) == [*e2e, "titles-mle", "titles-rloo", "titles-mle_continued"]
    assert f"trainer.max_tokens={TOKENS}" in arms["e2e-mle_continued"]
    assert f"trainer.max_tokens={study.TASKS['e2e'].tokens}" in arms["e2e-rloo"]
    for words in arms.values():
        assert tokenrl("train", *words, "--cfg", "job") == 0, capsys.readouterr().err
    assert len((tmp_path / "out" / "data" / "e2e_nlg.jsonl").read_text().splitlines()) == study.CHECKED


def test_the_table_has_differences_from_the_control(arms: dict[str, list[str]], tmp_path: Path) -> None:
    found = json.loads((tmp_path / "results" / "prove_pretrained.json").read_text())
    rloo, control = found["e2e"]["rloo"], found["e2e"]["mle_continued"]
    assert rloo["difference"]["bleu"]["mean"] == pytest.approx(rloo["scores"]["bleu"] - control["scores"]["bleu"])
    assert control["difference"]["bleu"]["mean"] == 0
    assert (rloo["tokens"], rloo["steps"], rloo["sentences"]) == (TOKENS, 5, 40)
    table = study.table(study.TASKS["e2e"], found["e2e"])
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["zero_shot", "mle", "mle_continued", "rloo"]
