"""The table at the end of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tokenrl_cli.commands.sweep import Summary


def test_the_table_has_a_line_a_job_with_what_it_alone_was_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is made from the results alone: .hydra is never read."""
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    summary = Summary()
    summary.on_multirun_start(config)
    for number in (2, 10):
        run = tmp_path / str(number)
        (run / "checkpoints").mkdir(parents=True)
        (run / ".hydra").mkdir()
        (run / ".hydra" / "overrides.yaml").write_text("- of=another\n")
        told = ["seed=1", f"model.hidden={number}"]
        results = {"overrides": told, "decode": "greedy", "test": {"final": {"bleu": number / 4}}}
        (run / "results.json").write_text(json.dumps(results))
    summary.on_multirun_end(config)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[2:4]] == ["model.hidden=2", "model.hidden=10"]
    assert "test, greedy" in printed[1]
    assert "another" not in "".join(printed)
