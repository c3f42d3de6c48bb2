"""Text layout: what may be wrapped, what is cut, and how numbers are written."""

from __future__ import annotations

import math
import re

import pytest
from rich.cells import cell_len

from tokenrl_cli.report import layout

STRANGE = [
    "中文測試和更多的文字",
    "हिन्दी में कुछ शब्द",
    "👨‍👩‍👧‍👦 family",
    "e\u0301te\u0301",
    "a\tb\nc\r\x1b[31m",
    "\u202eright",
    "❤️ x",
    "",
]
METRICS = [("bleu", "41.20", "(+1.30)"), ("policy/target_rank", "187.2", ""), ("mean_length", "7.000", "(-0.123)")] * 4


@pytest.mark.parametrize("text", STRANGE)
def test_a_cut_text_is_never_wider_than_asked_and_keeps_the_layout(text: str) -> None:
    shown = layout.escaped(text)
    assert not set(shown) & set("\t\n\r\x1b\u202e")
    assert layout.cells(shown) >= cell_len(shown)
    for width in range(2, 30):
        cut = layout.truncated(shown, width)
        assert cell_len(cut) <= width
        assert (cut == shown) == (layout.cells(shown) <= width)
        assert cut == shown or cut.endswith("…")
        assert cell_len(layout.padded(cut, width)) <= width


def test_a_letter_keeps_its_marks_where_a_text_is_cut() -> None:
    assert layout.truncated("e\u0301e\u0301e\u0301", 2) == "e\u0301…"


def test_control_characters_are_spelt_out_and_joined_emoji_stay() -> None:
    assert layout.escaped("a\tb\nc\x1b[0m\u202e\ud800") == r"a\tb\nc\x1b[0m\u202e\ud800"
    assert layout.escaped("क्\u200dष 👩\u200d👧") == "क्\u200dष 👩\u200d👧"
    assert layout.escaped("a\nb\tc", "\n") == "a\nb\\tc"


@pytest.mark.parametrize("width", [1, 10, 40, 80, 120, 160, 240])
def test_a_grid_breaks_nowhere_inside_an_item(width: int) -> None:
    lines = layout.grid(METRICS, width)
    assert all(cell_len(line) <= max(width, 35) for line in lines)
    found = re.findall(r"(\S+) +([\d.]+)(?: +(\(\S+\)))?", "\n".join(lines))
    assert sorted(found) == sorted(METRICS)
    assert len(lines) == 12 if width < 60 else len(lines) <= 6

    assert layout.grid([], width) == []


ROWS = [
    ["test, greedy", "warm start (400)", "final (550)", "best (500)", "final - warm start", "p"],
    ["bleu", "43.20", "61.98", "62.00", "+18.78 [+14.60, +22.50]", "0.001"],
    ["policy/target_rank", "187.2", "61.98", "62.00", "", ""],
]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160])
def test_a_table_fits_and_breaks_no_word_and_no_number(width: int) -> None:
    lines = layout.table(ROWS, width)
    text = "\n".join(lines)
    assert all(len(line) <= width for line in lines)
    words = {word for row in ROWS for cell in row for word in cell.split()}
    assert set(text.split()) <= words
    assert {"61.98", "187.2", "+18.78", "policy/target_rank"} <= set(text.split())


def test_columns_of_text_share_what_numbers_leave() -> None:
    rows = [["source", "hypothesis", "score"], ["a b", "long " * 30, "0.512"], ["中文" * 40, "x", "12.00"]]
    for width in (40, 80, 120, 160):
        lines = layout.table(rows, width, (0, 1))
        assert len(lines) == 3
        assert max(map(cell_len, lines)) == width
        assert lines[1].endswith("0.512")
        assert lines[2].endswith("12.00")


def test_wrapping_hangs_and_leaves_long_words_whole() -> None:
    assert layout.wrapped("  name  one two", 80) == ["  name one two"]
    assert layout.wrapped("aa bb " + "c" * 9 + " d", 5, 2) == ["aa bb", "  " + "c" * 9, "  d"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.4121, "0.412"), (41.2, "41.20"), (412.0, "412.0"), (4120.0, "4,120"), (-0.0004, "0.000"), (-0.0, "0.000"),
        (9.9996, "10.00"), (99.996, "100.0"), (math.nan, "nan"), (-math.nan, "nan"), (math.inf, "inf"),
        (1e9, "1.00e+09"), (-3.25, "-3.250"), (None, "-"),
    ],
)  # fmt: skip
def test_numbers_are_of_one_width_and_zero_has_no_sign(value: float | None, shown: str) -> None:
    assert layout.number(value) == shown


def test_a_change_has_the_digits_of_its_value() -> None:
    assert layout.change(41.2, 39.9) == "(+1.30)"
    assert layout.change(0.41, 0.512) == "(-0.102)"
    assert layout.change(0.41, 0.41001) == "(+0.000)"
    assert layout.change(3e7, 1e7) == "(+2.00e+07)"
    assert layout.change(math.nan, 1.0) == layout.change(1.0, math.nan) == layout.change(1.0, None) == ""


@pytest.mark.parametrize(("reported", "used"), [(0, 80), (1, 40), (10, 40), (40, 40), (123, 123), (10_000, 240)])
def test_a_width_that_cannot_be_is_not_believed(reported: int, used: int) -> None:
    assert layout.layout_width(reported) == used
