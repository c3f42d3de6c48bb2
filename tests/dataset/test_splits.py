"""Which files a split is read from, for every kind of data set."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tokenrl_cli.dataset.jsonl import Jsonl
from tokenrl_cli.dataset.parallel import Parallel
from tokenrl_cli.dataset.splits import check_rl
from tokenrl_cli.interfaces import Dataset, Divided, NamedSplits, UserError

RL: dict[str, Any] = {"rl_share": 0.0, "rl_split": None, "max_source_length": 10, "overlong": "truncate"}


def jsonl(folder: Path, **splits: Any) -> Jsonl:
    return Jsonl(str(folder), splits, "src", "refs", False, False, **RL)


def parallel(folder: Path, **splits: Any) -> Parallel:
    return Parallel(str(folder), splits, "en", "de", **RL)


def sources(data: Dataset, split: str) -> list[str]:
    return [data.example(split, i).source for i in range(data.size(split) or 0)]


def line(source: str) -> str:
    return json.dumps({"src": source, "refs": ["x"]}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train", "b", "a", "more/2", "more/10", "more/1"):
        path = tmp_path / "data [1]" / f"{name}.jsonl"  # a folder whose name would be a pattern
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line(name), "utf-8")
    (tmp_path / "data [1]" / "packed.jsonl.gz").write_bytes(gzip.compress(line("packed").encode()))
    (tmp_path / "data [1]" / "more" / "README.md").write_text("no data")
    (tmp_path / "data [1]" / "more" / ".0.jsonl").write_text("hidden, as what a file system or an editor leaves")
    return tmp_path / "data [1]"


@pytest.mark.parametrize(
    ("entry", "read"),
    [
        ("a.jsonl", ["a"]),
        ("a", ["a"]),
        ("packed.jsonl.gz", ["packed"]),
        ("packed.jsonl", ["packed"]),
        ("packed", ["packed"]),
        (["b", "packed", "a"], ["b", "packed", "a"]),
        ("more", ["more/1", "more/10", "more/2"]),
        ("?.jsonl", ["a", "b"]),
        ("[ab]", ["a", "b"]),
        ("more/1*", ["more/1", "more/10"]),
        (["b", "more/[12]"], ["b", "more/1", "more/2"]),
        ("**/1.jsonl", ["more/1"]),
    ],
)
def test_a_split_is_a_file_a_folder_a_pattern_or_a_list(folder: Path, entry: Any, read: list[str]) -> None:
    data = jsonl(folder, val=entry, train=str(folder / "b.jsonl"))
    assert isinstance(data, NamedSplits)
    assert isinstance(data, Divided)
    assert sources(data, "val") == read
    assert sources(data, "train") == ["b"], "a path from the root stays what it is"


def test_what_is_not_named_is_read_where_it_always_was_and_names_add_splits(folder: Path) -> None:
    data = jsonl(folder, test_seen="a")
    assert sources(data, "train") == ["train"]
    assert sources(data, "test_seen") == ["a"]
    assert data.splits() == ["train", "val", "test", "test_seen"]
    with pytest.raises(UserError, match=r"val\.jsonl: there is neither this file nor val\.jsonl\.gz"):
        data.size("val")
    with pytest.raises(UserError, match=r"split=test_sen: .*did you mean 'test_seen'.*\n.*train, val, test, test_seen"):
        data.size("test_sen")


def test_of_a_file_that_lies_there_plain_and_packed_a_folder_gives_the_plain_one(folder: Path) -> None:
    (folder / "more" / "2.jsonl.gz").write_bytes(gzip.compress(line("old").encode()))
    assert sources(jsonl(folder, val="more"), "val") == ["more/1", "more/10", "more/2"]


def test_files_of_a_list_are_named_with_the_line_in_them(folder: Path) -> None:
    (folder / "b.jsonl").write_text(line("b") + '{"src": 3}\n')
    with pytest.raises(UserError, match=r"b\.jsonl, line 2: expected a string"):
        jsonl(folder, val=["a", "b"]).size("val")
    assert jsonl(folder, val=["packed", "a"]).example("val", 1).place == f"{folder / 'a.jsonl'}, line 1"


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"val": "c"}, r"dataset\.splits\.val=c: there is no file .*c, with or without \.jsonl and \.gz"),
        ({"val": "c*"}, r"dataset\.splits\.val=c\*: no file is called like"),
        ({"val": "empty"}, r"there is no file in .*empty that ends in \.jsonl"),
        ({"val": []}, r"^splits\.val: names no file"),
        ({"val": ""}, r"^splits\.val: names no file"),
        ({"../up": "a"}, r"^splits\.\.\./up: is no name for a split"),
    ],
)
def test_what_names_no_file_is_refused(folder: Path, splits: dict[str, Any], said: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=said):
        jsonl(folder, **splits).size("val")


@pytest.mark.parametrize("entry", ["news", "news.en", ["news"], "new*", "."])
def test_of_aligned_files_the_sources_are_named_and_the_targets_found(tmp_path: Path, entry: Any) -> None:
    (tmp_path / "news.en").write_text("one\ntwo\n")
    (tmp_path / "news.de.gz").write_bytes(gzip.compress(b"eins\nzwei\n"))
    data = parallel(tmp_path, test=entry)
    assert [(e.source, e.references) for e in map(data.example, ["test"] * 2, range(2))] == [
        ("one", ["eins"]),
        ("two", ["zwei"]),
    ]
    assert data.example("test", 1).place == f"{tmp_path / 'news.en'}, line 2"


def test_aligned_files_are_refused_where_the_suffix_is_another(tmp_path: Path) -> None:
    (tmp_path / "news.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"news\.txt: must end in \.en, as dataset\.source_suffix=en says"):
        parallel(tmp_path, test="news.txt").size("test")


@pytest.mark.parametrize(
    ("share", "split", "said"),
    [
        (0.0, "rl2", "did you mean 'rl'"),
        (0.0, "test", "is what a run is measured on"),
        (0.5, "rl", "^rl_share: RL draws from the split rl"),
    ],
)
def test_what_rl_draws_from_is_one_thing_that_is_there(share: float, split: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_rl(share, split, ["train", "val", "test", "rl"])
