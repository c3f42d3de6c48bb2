"""Which files the config of an earlier run may name, and the commands that are printed to be pasted."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tokenrl_cli.commandline.arguments import command_line, override, parse
from tokenrl_cli.commandline.earlier_run import resume_command
from tokenrl_cli.commandline.outside_data import outside_texts as lying
from tokenrl_cli.commandline.outside_data import refuse_outside_data, refuse_outside_judges, required_overrides
from tokenrl_cli.interfaces import UserError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    (here / "set").mkdir(parents=True)
    (tmp_path / "elsewhere" / "set").mkdir(parents=True)
    (tmp_path / "elsewhere" / "words.txt").write_text("secret")
    monkeypatch.chdir(here)
    monkeypatch.delenv("TOKENRL_DATA", raising=False)
    return here


def outside(config: dict[str, Any], root: str) -> dict[str, str]:
    return {".".join(keys): text for keys, text, _ in lying(config, root)}


@pytest.mark.parametrize(
    "value",
    ["run", "a b/run=1", "a,b", "it's", 'a "b"', "tab\there", "$HOME/`x`!", "ü/ß", "1e5", "12", "null", "true", "~/x",
     "back\\slash", "end\\", "[a]", "{a: 1}", "", " ", "a:b", "x=y", "1_000", "-1", "(a)", "a;b|c&d", "NaN"],
)  # fmt: skip
def test_a_printed_value_reads_back_through_shell_and_grammar(value: str) -> None:
    for given in (value, [value, "b.py"]):
        words = shlex.split(command_line("train", override("key", given)))
        assert words[:2] == ["tokenrl", "train"]
        assert len(words) == 3
        assert OverridesParser.create().parse_override(words[2]).value() == given or _plain(words[2]) == given
        if isinstance(given, str):
            assert parse(words[1:]).value("key") == given


def _plain(word: str) -> Any:
    """A value without quotes, as Hydra puts it into the config."""
    value = OverridesParser.create().parse_override(word).value()
    strip = lambda each: getattr(each, "text", each)  # noqa: E731
    return [strip(each) for each in value] if isinstance(value, list) else strip(value)


def test_numbers_and_truth_are_written_as_they_are_typed() -> None:
    assert [override("a", value) for value in (1, 0.5, True, None)] == ["a=1", "a=0.5", "a=true", "a=null"]


def test_data_outside_are_seen_through_links_and_dots(here: Path) -> None:
    away = here.parent / "elsewhere"
    (here / "link").symlink_to(away / "set")
    (here / "set" / "train.jsonl").symlink_to(away / "words.txt")
    for value in (str(away / "set"), "../elsewhere/set", "./link", "set/../../elsewhere", f"{here}/set"):
        assert outside({"dataset": {"path": value}}, "data") == {"dataset.path": value}, value
        assert outside({"dataset": {"path": value}}, str(here.parent)) == {}
    assert outside({"dataset": {"path": "link", "word": "link"}}, "data") == {"dataset.path": "link"}
    (here / "link").unlink()
    for value in ("a/b", "/", str(here), ".", "set/..", "x" * 5000 + "/", "/no\0", "~nobody_at_all/x", "link"):
        assert outside({"dataset": {"path": value}}, "data") == {}, value


def test_only_what_the_line_names_again_is_read(here: Path) -> None:
    words = str(here.parent / "elsewhere" / "words.txt")
    saved = {"reward": {"parts": {"a": {"files": [words]}}}, "data_root": "data"}
    with pytest.raises(UserError, match=r"reward.parts.a.files=(.|\n)*name it on the command line"):
        refuse_outside_data(saved, saved, {})
    refuse_outside_data(saved, saved, {"reward.parts.a.files": words})
    refuse_outside_data(saved, {"reward": {}}, {})  # the user's own config names it


def test_a_data_root_of_the_run_is_not_that_of_whoever_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(here.parent / "elsewhere")
    saved = {"dataset": {"path": f"{root}/set"}, "data_root": root}
    with pytest.raises(UserError, match=f"data_root={root}"):
        refuse_outside_data(saved, saved, {})
    refuse_outside_data(saved, saved, {"data_root": root})
    monkeypatch.setenv("TOKENRL_DATA", root)
    refuse_outside_data(saved, saved, {})


def test_the_printed_command_names_what_it_needs(here: Path) -> None:
    away = str(here.parent / "elsewhere")
    config = {"dataset": {"path": f"{away}/set"}, "data_root": "data", "imports": ["rw.py"], "seed": 1}
    assert required_overrides(config) == ["imports=[rw.py]", f"dataset.path={away}/set"]
    assert resume_command("a b", config) == f'tokenrl train "resume=\'a b\'" "imports=[rw.py]" dataset.path={away}/set'
    assert required_overrides(config | {"data_root": away}) == ["imports=[rw.py]", f"data_root={away}"]
    assert required_overrides(config | {"dataset": {"path": "set"}, "imports": []}) == []
    assert os.getcwd() == str(here)


def test_entries_of_splits_lie_below_the_data_sets_path(here: Path) -> None:
    away = here.parent / "elsewhere"
    for entry in ("../../elsewhere/words.txt", "../*.jsonl", f"{away}/words.txt", f"{away}/*", "x/../../y"):
        found = outside({"dataset": {"path": "set", "splits": {"train": ["a.jsonl", entry]}}}, "data")
        assert found == {"dataset.splits.train": entry}, entry
    inside = {"train": ["a.jsonl", "b/*.jsonl", f"{here}/set/c"], "seen": "test_seen"}
    assert not outside({"dataset": {"path": "set", "splits": inside}}, "data")


def test_a_folder_of_audio_lies_below_the_data_sets_path(here: Path) -> None:
    away = here.parent / "elsewhere"
    for root in ("../../elsewhere", f"{away}", f"{away}/set", "x/../../y"):
        assert outside({"dataset": {"path": "set", "audio_root": root}}, "data") == {"dataset.audio_root": root}
    assert not outside({"dataset": {"path": "set", "audio_root": "wav.zip"}}, "data")


def test_each_entry_of_a_list_counts(here: Path) -> None:
    words = str(here.parent / "elsewhere" / "words.txt")
    for listed in ([words, "set"], ["set", words], ["set", words, "set"]):
        saved = {"reward": {"files": listed}, "data_root": "data"}
        with pytest.raises(UserError, match=rf"reward.files={words}(.|\n)*reward.files=\[") as told:
            refuse_outside_data(saved, saved, {})
        assert override("reward.files", listed) in str(told.value)
        refuse_outside_data(saved, {"reward": {"files": ["set"]}}, {})  # the user's own config names it
        assert required_overrides(saved) == [override("reward.files", listed)]


def test_links_below_the_entries_of_splits_are_followed(here: Path) -> None:
    deep = here / "set" / "deep"
    deep.mkdir()
    (deep / "own.jsonl").write_text("{}")
    entries = ["deep", "deep/.", "deep/own", "deep/own.jsonl", "deep/o*", "**/*.jsonl", str(deep), "d*"]

    def found(entry: str) -> bool:
        return bool(outside({"dataset": {"path": "set", "splits": {"train": ["a", entry]}}}, "data"))

    assert not any(map(found, entries))
    (deep / "own.de").symlink_to(here.parent / "elsewhere" / "words.txt")
    assert all(map(found, entries))
    (deep / "own.de").unlink()
    (here / "set" / "link").symlink_to(here.parent / "elsewhere")
    assert found("link/words")
    assert found("lin*/w*")
    assert found("[l]ink/set")


@pytest.mark.parametrize("place", ["dotted.name", "list"])
def test_a_command_can_be_printed_for_any_config(place: str, here: Path) -> None:
    block = {"checkpoint": str(here.parent / "elsewhere" / "set")}
    config = {"metrics": {"a.b": block} if place == "dotted.name" else [block], "data_root": "data"}
    assert required_overrides(config)[0].startswith("metrics.")


def test_a_saved_run_that_scores_texts_brings_no_pretrained_model_from_elsewhere(here: Path) -> None:
    base = str(here.parent / "elsewhere" / "set")
    for name, path in (("judge", base), ("own", "set")):
        checkpoint = here / name / "checkpoints" / "000001"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text("{}")
        (checkpoint / "config.yaml").write_text(f"model: {{path: {path}, adapter: {{path: null}}}}\n")
    judge = {"reward": {"parts": {"fluency": {"checkpoint": "judge"}}}}
    said = (
        rf"^reward\.parts\.fluency\.checkpoint=judge: .* trained from model\.path={base}, which lies outside data_root"
    )
    for named in ({}, {"data_root": "set"}, {"model.path": "set"}):
        with pytest.raises(UserError, match=said):
            refuse_outside_judges(judge, named)
    with pytest.raises(UserError, match=r"^metrics\.likelihood\.checkpoint=judge"):
        refuse_outside_judges({"metrics": {"likelihood": {"checkpoint": "judge"}}}, {})
    refuse_outside_judges(judge, {"model.path": base})
    refuse_outside_judges(judge, {"data_root": str(here.parent / "elsewhere")})
    refuse_outside_judges({"reward": {"checkpoint": "own"}}, {})
    config = here / "own" / "checkpoints" / "000001" / "config.yaml"
    config.write_text(f"model: {{hidden: 3}}\nalgorithm: {{critic: {{path: {base}}}}}\n")
    with pytest.raises(UserError, match=r"trained from algorithm\.critic\.path="):
        refuse_outside_judges({"reward": {"checkpoint": "own"}}, {})
    refuse_outside_judges({"reward": {"checkpoint": "gone"}}, {})  # the reward itself says so
