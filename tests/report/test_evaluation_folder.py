"""Folders of evaluations: different settings never share one, the same settings always do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokenrl_cli.report.evaluation_folder import LONGEST, changed_settings, file_name, folder_for


def evaluate(out: Path, parts: list[str], settings: dict[str, Any]) -> str:
    folder = folder_for(out, parts, settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"settings": settings}))
    return folder.name


def test_the_same_evaluation_replaces_itself_and_no_other(tmp_path: Path) -> None:
    first = {"decode": {"beam_size": 5}, "step": 120}
    assert [evaluate(tmp_path, ["test", "beam"], first) for _ in range(2)] == ["test-beam"] * 2
    assert evaluate(tmp_path, ["test", "beam"], first | {"step": 200}) == "test-beam-step=200"
    assert evaluate(tmp_path, ["test", "beam"], first) == "test-beam"
    assert evaluate(tmp_path, ["test", "beam"], first | {"step": 200}) == "test-beam-step=200"
    assert len(list(tmp_path.iterdir())) == 2


def test_names_that_look_the_same_get_a_number(tmp_path: Path) -> None:
    """A name leaves out what a file system does not take; the settings do not."""
    paths = ["/data/a b", "/data/a_b", "/data/a/b"]
    for _ in range(2):
        names = [evaluate(tmp_path, ["test", "greedy", f"path={path}"], {"path": path}) for path in paths]
        assert names[0] == "test-greedy-path=_data_a_b"
        assert len(set(names)) == 3
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("there", ["{}", "[]", "", "{", '{"settings": 5}', '{"metrics": {"bleu": 1}}'])
def test_results_that_do_not_say_what_they_are_of_stay(tmp_path: Path, there: str) -> None:
    (tmp_path / "test-greedy").mkdir()
    (tmp_path / "test-greedy" / "results.json").write_text(there)
    assert [evaluate(tmp_path, ["test", "greedy"], {"seed": 1}) for _ in range(2)] == ["test-greedy-2"] * 2
    assert evaluate(tmp_path, ["test", "greedy"], {"seed": 2}) == "test-greedy-3"
    assert (tmp_path / "test-greedy" / "results.json").read_text() == there


def test_a_folder_without_results_is_free(tmp_path: Path) -> None:
    (tmp_path / "test-greedy").mkdir()
    assert evaluate(tmp_path, ["test", "greedy"], {"seed": 1}) == "test-greedy"


def test_differences_are_named_as_they_are_typed() -> None:
    bleu = {"_target_": "tokenrl_cli.reward.bleu.Bleu", "max_order": 4, "tokenize": "13a"}
    wer = {"_target_": "tokenrl_cli.reward.error_rate.ErrorRate", "unit": "words"}
    before = {"reward": bleu, "metrics": {"bleu": bleu}, "seed": 1, "decode": {"forbidden": [], "top_p": 1.0}}
    for change, said in (
        ({}, []),
        ({"seed": 2}, ["seed=2"]),
        ({"reward": bleu | {"tokenize": None}}, ["reward.tokenize=null"]),
        ({"reward": wer}, ["reward=error_rate", "reward.unit=words"]),
        ({"metrics": {"bleu": bleu, "wer": wer}}, ["metrics.wer=error_rate", "metrics.wer.unit=words"]),
        ({"metrics": {}}, ["metrics.bleu=none"]),
        ({"metrics": {"bleu": bleu | {"max_order": 2}}}, ["metrics.bleu.max_order=2"]),
        ({"decode": {"forbidden": [1, 2], "top_p": 0.9}}, ["decode.forbidden=1,2", "decode.top_p=0.9"]),
    ):
        assert changed_settings(before, before | change) == said
        assert changed_settings(before | change, before) != [] or not said


def test_names_are_safe_and_short() -> None:
    odd = file_name(["test", "greedy", "dataset.path=/a b/../c:*?\"<>|'\n\0ü", "decode.forbidden=1,2"])
    assert odd == "test-greedy-dataset.path=_a_b_.._c_ü-decode.forbidden=1,2"
    for letter in ("x", "ü", "語"):
        names = {file_name(["test", "greedy", f"path={letter * 200}{end}"]) for end in "ab"}
        assert len(names) == 2
        assert all(len(name.encode()) <= LONGEST for name in names)
        assert all(name.startswith(f"test-greedy-path={letter * 20}") for name in names)
