from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.real_data import real
from tokenrl_cli.dataset.text import Text
from tokenrl_cli.interfaces import Dataset, Divided, Example, NamedSplits, UserError

SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}


def dataset(path: Path, **changes: Any) -> Text:
    values: dict[str, Any] = {"path": str(path), "splits": {}, "shares": SHARES, "piece_words": 3, "prompt_words": 1}
    values |= {"blank_lines": False, "rl_share": 0.0, "rl_split": None, "max_source_length": 9, "overlong": "drop"}
    return Text(**(values | changes))


def pieces(data: Dataset, split: str = "train") -> list[tuple[str, str]]:
    examples = [data.example(split, i) for i in range(data.size(split) or 0)]
    assert all(each.references == each.demonstrations for each in examples)
    return [(each.source, each.references[0]) for each in examples]


def written(folder: Path, text: str, name: str = "train.txt") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder


def test_a_piece_is_a_prompt_and_what_follows_it(tmp_path: Path) -> None:
    data = dataset(written(tmp_path, "To be, or\nnot to  be: that\r\nis it.\n"))
    assert isinstance(data, Dataset)
    assert isinstance(data, NamedSplits)
    assert isinstance(data, Divided)
    assert pieces(data) == [("To", " be, or\n"), ("not", " to  be: "), ("that", "\nis it.")]
    first = data.example("train", 2)
    assert first == Example("3", "that", ["\nis it."], ["\nis it."], {})
    assert first.place == f"{tmp_path / 'train.txt'}, line 2"


def test_without_a_prompt_the_source_is_empty(tmp_path: Path) -> None:
    assert pieces(dataset(written(tmp_path, "a b c d"), prompt_words=0)) == [("", "a b c "), ("", "d")]


def test_a_piece_that_would_leave_nothing_to_say_goes_to_its_neighbour(tmp_path: Path) -> None:
    assert pieces(dataset(written(tmp_path, "a b c d"))) == [("a", " b c d")]
    cut = dataset(written(tmp_path, "a\n\nb c\n\nd e"), blank_lines=True)
    assert pieces(cut) == [("a", "\n\nb c\n\n"), ("d", " e")]


def test_blank_lines_end_a_piece_and_long_ones_are_cut_as_well(tmp_path: Path) -> None:
    written(tmp_path, "a b\n \nc d e f g\nh\n\n\ni j")
    assert pieces(dataset(tmp_path, blank_lines=True, piece_words=0)) == [
        ("a", " b\n \n"),
        ("c", " d e f g\nh\n\n\n"),
        ("i", " j"),
    ]
    assert [first for first, _ in pieces(dataset(tmp_path, blank_lines=True))] == ["a", "c", "f", "i"]


@given(
    text=st.text(st.sampled_from("ab \n\u2028é")).filter(lambda text: len(text.split()) > 2),
    piece=st.integers(0, 4),
    prompt=st.integers(0, 2),
    blank=st.booleans(),
)
def test_the_pieces_joined_are_the_text(
    tmp_path_factory: pytest.TempPathFactory, text: str, piece: int, prompt: int, blank: bool
) -> None:
    piece = piece if blank and not piece else max(piece, prompt + 1)
    folder = written(tmp_path_factory.getbasetemp(), text)
    found = pieces(dataset(folder, piece_words=piece, prompt_words=prompt, blank_lines=blank))
    assert "".join(source + rest for source, rest in found) == text.removesuffix("\n")
    assert all(len(source.split()) == prompt and rest.split() for source, rest in found)


@pytest.mark.parametrize("packed", [False, True])
def test_one_text_is_cut_in_three_without_overlap(tmp_path: Path, packed: bool) -> None:
    text = " ".join(f"w{i}" for i in range(24))
    path = tmp_path / ("all.txt.gz" if packed else "all.txt")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    for given_path in (path, tmp_path):  # a folder without train, val and test is one text, too
        data = dataset(given_path)
        parts = [pieces(data, split) for split in ("train", "val", "test")]
        assert [len(part) for part in parts] == [4, 2, 2]
        assert "".join(source + rest for part in parts for source, rest in part) == text


def test_splits_are_files_where_they_lie_there_or_are_named(tmp_path: Path) -> None:
    for name in ("train", "val", "test", "old"):
        written(tmp_path, f"{name} b", f"{name}.txt")
    data = dataset(tmp_path, splits={"val": ["old", "test"]})
    assert [pieces(data, split) for split in ("train", "val")] == [[("train", " b")], [("old", " b"), ("test", " b")]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"piece_words": 1}, "^piece_words: must be above prompt_words=1"),
        ({"piece_words": 0}, "nothing says where the text is cut"),
        ({"shares": {"train": 1.0, "val": 0.0, "test": 0.0}}, "^shares: must be a share above 0"),
        ({"shares": {"train": 1.0, "val": 0.1, "test": 0.1}}, "1 together"),
        ({"shares": {"train": 1.0}}, "each of train, val, test"),
        ({"shares": {"train": float("nan"), "val": 0.5, "test": 0.5}}, "^shares"),
        ({"rl_share": 0.5, "rl_split": "train"}, "^rl_share"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        dataset(tmp_path, **changes)


def test_texts_that_are_too_short_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.txt: has 1 words, and dataset\.prompt_words=1 of them"):
        dataset(written(tmp_path, "one\n")).size("train")
    with pytest.raises(UserError, match=r"dataset\.shares\.train=0\.5: leaves train none of the 1 pieces"):
        dataset(written(tmp_path, "one two", "all.txt") / "all.txt").size("train")


def test_the_real_text_is_cut_without_loss() -> None:
    folder = real("tinyshakespeare")
    text = gzip.decompress((folder / "val.txt.gz").read_bytes()).decode()
    found = pieces(dataset(folder, piece_words=32, prompt_words=8, blank_lines=True), "val")
    assert "".join(source + rest for source, rest in found) == text.removesuffix("\n")
