from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.real_data import real
from tokenrl_cli.dataset.jsonl import Jsonl
from tokenrl_cli.interfaces import Dataset, Example, UserError

GOOD = b'{"id": "a", "src": "x", "refs": ["y"]}\n'
PACKED = gzip.compress(GOOD * 1000, mtime=0)


def dataset(folder: Path, **changes: Any) -> Jsonl:
    values = {"source_column": "src", "reference_column": "refs", "reverse": False, "detokenize": False}
    values |= {"splits": {}} | changes
    values |= {"rl_share": 0.0, "rl_split": None}
    return Jsonl(**({"path": str(folder), "max_source_length": 10, "overlong": "truncate"} | values))


def written(folder: Path, *records: dict[str, Any], split: str = "train") -> Path:
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def test_a_line_is_an_example_with_its_further_columns(tmp_path: Path) -> None:
    first = {"id": 7, "src": "x\u2028y ", "refs": [" é", "f\t"], "topic": "news"}
    written(tmp_path, first, {"src": "z", "refs": ["g"], "n": 1})
    data = dataset(tmp_path)
    assert isinstance(data, Dataset)
    assert data.size("train") == 2
    columns = {"id": 7, "topic": "news", "n": None}
    assert data.example("train", 0) == Example("7", "x\u2028y ", [" é", "f\t"], [" é", "f\t"], columns)
    assert data.example("train", 1) == Example("2", "z", ["g"], ["g"], {"n": 1, "id": None, "topic": None})


def test_gzip_windows_line_ends_a_byte_order_mark_and_blank_lines_are_read(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") + b"\n" + GOOD
    (tmp_path / "val.jsonl.gz").write_bytes(gzip.compress(content, mtime=0))
    assert dataset(tmp_path).size("val") == 2


def test_the_columns_can_have_other_names(tmp_path: Path) -> None:
    written(tmp_path, {"id": "1", "en": "x", "de": ["y"]})
    example = dataset(tmp_path, source_column="en", reference_column="de").example("train", 0)
    assert (example.source, example.references, example.columns) == ("x", ["y"], {"id": "1"})
    with pytest.raises(UserError, match=r"^reference_column: must differ from source_column=en"):
        dataset(tmp_path, source_column="en", reference_column="en")


def test_tokens_of_english_text_are_joined_in_sources_and_references_alone(tmp_path: Path) -> None:
    written(tmp_path, {"src": "price : £ 20", "refs": ["It isn 't cheap ."], "price": "£ 20"})
    example = dataset(tmp_path, detokenize=True).example("train", 0)
    assert (example.source, example.references) == ("price: £20", ["It isn't cheap."])
    assert example.demonstrations == example.references
    assert example.columns["price"] == "£ 20"
    assert dataset(tmp_path).example("train", 0).source == "price : £ 20"


def test_a_line_without_references_is_a_prompt_and_a_source_may_be_empty(tmp_path: Path) -> None:
    written(tmp_path, {"src": "x"}, {"src": "", "refs": []}, {"src": "y", "refs": None, "n": 1})
    data = dataset(tmp_path)
    assert [data.example("train", i).source for i in range(3)] == ["x", "", "y"]
    assert not any(data.example("train", i).references for i in range(3))
    assert data.example("train", 1).place == f"{tmp_path / 'train.jsonl'}, line 2"


def test_without_a_column_of_sources_every_source_is_empty(tmp_path: Path) -> None:
    written(tmp_path, {"refs": ["y"], "src": "a column now"})
    example = dataset(tmp_path, source_column=None).example("train", 0)
    assert (example.source, example.references, example.columns) == ("", ["y"], {"src": "a column now"})


@pytest.mark.parametrize(
    ("record", "lacking"), [({"src": "x"}, "references to make sources of"), ({"src": "", "refs": ["y"]}, "source to")]
)
def test_reversed_a_line_without_one_side_is_refused(tmp_path: Path, record: dict[str, Any], lacking: str) -> None:
    written(tmp_path, {"src": "x", "refs": ["y"]}, record)
    with pytest.raises(UserError, match=rf"train\.jsonl, line 2: has no {lacking}"):
        dataset(tmp_path, reverse=True).size("train")
    with pytest.raises(UserError, match=r"^reverse"):
        dataset(tmp_path, reverse=True, source_column=None)


def test_reversed_every_reference_is_a_source_and_equal_ones_are_merged(tmp_path: Path) -> None:
    written(
        tmp_path,
        {"id": "1", "src": "Hi.", "refs": ["Hallo!", "Servus!"], "n": 1},
        {"id": "2", "src": "Hello.", "refs": ["Hallo!"], "n": 2},
        {"id": "3", "src": "Hi.", "refs": ["Hallo!"], "n": 3},
    )
    data = dataset(tmp_path, reverse=True)
    examples = [data.example("train", i) for i in range(data.size("train") or 0)]
    assert examples == [
        Example("1.0", "Hallo!", ["Hi.", "Hello."], ["Hi.", "Hello."], {"id": "1", "n": 1}),
        Example("1.1", "Servus!", ["Hi."], ["Hi."], {"id": "1", "n": 1}),
    ]


def test_a_split_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    written(tmp_path, {"src": "x", "refs": ["y"]}, split="test")
    assert dataset(tmp_path).size("test") == 1
    dataset(tmp_path / "nowhere")  # a policy can be used where the data is not


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (GOOD + b"{'id': 1}\n", 2, "is not JSON"),
        (GOOD + b"\n[1, 2]\n", 3, "expected a JSON object"),
        (b'{"refs": ["y"]}\n', 1, "expected a string under 'src', got nothing"),
        (b'{"src": 3, "refs": ["y"]}\n', 1, "expected a string under 'src', got 3"),
        (b'{"src": "x", "refs": "y"}\n', 1, 'got "y"'),
        (b'{"src": "x", "refs": ["y", " "]}\n', 1, "non-empty strings"),
        (b'{"src": "x", "refs": ["y", null]}\n', 1, "non-empty strings"),
        (b'{"src": "\\uD83D", "refs": ["y"]}\n', 1, "surrogate"),
        (GOOD + b'{"src": "x", "src": "z", "refs": ["y"]}', 2, 'the key "src" twice'),
    ],
)
def test_a_bad_line_is_named_with_what_was_expected(tmp_path: Path, content: bytes, line: int, said: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        dataset(tmp_path).size("train")
    assert caught.value.where == f"{path}, line {line}"
    assert said in caught.value.problem


def test_wrong_bytes_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(GOOD + GOOD + b'{"src": "\xe9"}\n')
    with pytest.raises(UserError, match=r"train\.jsonl: line 3 is not UTF-8: byte 0xe9"):
        dataset(tmp_path).size("train")


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.jsonl: is empty"):
        dataset(tmp_path).size("train")


@pytest.mark.parametrize("content", [b"plain", PACKED[:-20], PACKED[:12] + b"!" * 20])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.jsonl\.gz: is no whole gzip file"):
        dataset(tmp_path).size("train")


def test_missing_files_and_folders_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither this file nor val\.jsonl\.gz\n.*TOKENRL_DATA"):
        dataset(tmp_path).size("val")
    with pytest.raises(UserError, match=r"no such folder\n.*data_root"):
        dataset(tmp_path / "nowhere").size("train")


@pytest.mark.parametrize(
    "name",
    ["val.json", "val.JSONL", "Val.jsonl", "valid.jsonl", "dev.jsonl", "dev.jsonl.gz", "val.jsonl.zst", "val.ndjson"],
)
def test_a_file_that_may_be_meant_is_named(tmp_path: Path, name: str) -> None:
    for each in (name, "validator.jsonl", "val", "notes.json"):
        (tmp_path / each).write_bytes(GOOD)
    with pytest.raises(UserError) as caught:
        dataset(tmp_path).size("val")
    assert caught.value.where == str(tmp_path / "val.jsonl")
    assert caught.value.problem.endswith(f"but {name} lies there")
    packed = name.endswith(".zst")
    wanted = "unpack it" if packed else f"rename it to val.jsonl, or say +dataset.splits.val={name}"
    assert caught.value.remedy.startswith(wanted)


def test_no_other_file_is_taken_for_a_split(tmp_path: Path) -> None:
    for each in ("train.jsonl", "validator.jsonl", "val", "val.txt"):
        (tmp_path / each).write_bytes(GOOD)
    (tmp_path / "dev.jsonl").mkdir()
    with pytest.raises(UserError, match=r"neither this file nor val\.jsonl\.gz\n"):
        dataset(tmp_path).size("val")
    with pytest.raises(UserError, match=r"train\.jsonl: is a file, expected the folder"):
        dataset(tmp_path / "train.jsonl").size("train")


@pytest.mark.parametrize(
    ("name", "reverse", "sizes"),
    [
        ("tatoeba_en_de", False, (1163, 1243)),
        ("tatoeba_en_de", True, (1436, 1541)),
        ("e2e_nlg", False, (547, 415)),
        ("g2p_cmudict", False, (1892, 3817)),
    ],
)
def test_the_real_files_are_read(name: str, reverse: bool, sizes: tuple[int, int]) -> None:
    data = dataset(real(name), reverse=reverse)
    assert (data.size("val"), data.size("test")) == sizes
    for i in range(sizes[1]):
        example = data.example("test", i)
        assert example.source
        assert all(example.references)
        assert example.references == example.demonstrations
