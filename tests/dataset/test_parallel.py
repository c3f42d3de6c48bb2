from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from tokenrl_cli.dataset.parallel import Parallel
from tokenrl_cli.interfaces import Dataset, Example, UserError


def dataset(folder: Path, **changes: Any) -> Parallel:
    values: dict[str, Any] = {"path": str(folder), "splits": {}, "source_suffix": "en", "target_suffix": "de"}
    values |= {"rl_share": 0.0, "rl_split": None}
    return Parallel(**(values | {"max_source_length": 10, "overlong": "drop"} | changes))


def test_line_n_belongs_to_line_n(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_bytes("one\r\ntwo \u2028 2\n".encode())
    (tmp_path / "train.de.gz").write_bytes(gzip.compress(b"eins\nzwei\n"))
    data = dataset(tmp_path)
    assert isinstance(data, Dataset)
    assert data.size("train") == 2
    assert data.example("train", 0) == Example("1", "one", ["eins"], ["eins"], {})
    assert data.example("train", 1) == Example("2", "two \u2028 2", ["zwei"], ["zwei"], {})


@pytest.mark.parametrize(
    ("source", "target", "where", "said"),
    [
        ("a\nb\n", "x\n", "train.en", "has 2 lines, train.de has 1"),
        ("a\n\n", "x\ny\n", "train.en, line 2", "is empty"),
        ("a\nb\n", "x\n \n", "train.de, line 2", "is empty"),
        ("", "x\n", "train.en", "is empty"),
        ("a\n", "\udce9\n", "train.de", "line 1 is not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, source: str, target: str, where: str, said: str) -> None:
    (tmp_path / "train.en").write_bytes(source.encode())
    (tmp_path / "train.de").write_bytes(target.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        dataset(tmp_path).size("train")
    assert caught.value.where == str(tmp_path / where)
    assert said in caught.value.problem


def test_a_missing_side_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_text("a\n")
    with pytest.raises(UserError, match=r"train\.de: there is neither this file nor train\.de\.gz"):
        dataset(tmp_path).size("train")


@pytest.mark.parametrize(
    ("key", "value"),
    [("target_suffix", "en"), ("source_suffix", "en/../x")],
)
def test_values_out_of_range_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{key}"):
        dataset(tmp_path, **{key: value})
