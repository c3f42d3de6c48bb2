"""docs/python.md and docs/tour.ipynb run as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "python.md").read_text("utf-8")
SNIPPETS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


def test_every_snippet_of_the_page_runs_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {kind for kind, _ in SNIPPETS} == {"python"}
    assert len(SNIPPETS) > 8
    names: dict[str, object] = {}
    for _, text in SNIPPETS:
        exec(compile(text, "docs/python.md", "exec"), names)
    said = capsys.readouterr().out
    told = re.search(r"print\(error\)  # (.*)", PAGE)
    assert told
    assert f"{told[1]}\n" in said, "the page shows the error as it is"
    assert "+0.000" not in said, "something was learned"
    assert "True None" in said, "what was learned is told from what was not"


def test_the_page_names_everything_that_is_public() -> None:
    import tokenrl_cli as tokenrl

    methods = [name for name in vars(tokenrl.Run) if not name.startswith("_")]
    fields = [name for kind in (tokenrl.Hypothesis, tokenrl.PrefixScores) for name in kind.__annotations__]
    for name in ("load", "train", "reward", "UserError", *methods, *fields, "directory", "step", "stage"):
        assert re.search(rf"\b{name}\b", PAGE), name


def test_the_tour_runs_and_is_kept_without_outputs(tmp_path: Path) -> None:
    """The kernel is a process of its own, started where nothing lies."""
    import nbformat
    from nbclient import NotebookClient

    raw = json.loads((DOCS / "tour.ipynb").read_text("utf-8"))
    code = [cell for cell in raw["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 9
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = ["".join(each.get("text", "") for each in cell.get("outputs", [])) for cell in notebook.cells]
    for cell, text in zip(notebook.cells, said, strict=True):
        assert "print(" not in cell["source"] or text, cell["source"]
    gained = json.loads((tmp_path / "tour_run" / "results.json").read_text("utf-8"))["test"]
    assert gained["final"]["reward"] > gained["warm_start"]["reward"], "the tour shows that RL gains something"
    assert re.search(r"reward: greedy 0\.\d+, beam of 4 0\.\d+", said[-1])
