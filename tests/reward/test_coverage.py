"""Does it mention what it has to?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reward.said import texts
from tokenrl_cli.dataset.jsonl import Jsonl
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.coverage import Coverage


def scores(column: list[Any], *said: str, lowercase: bool = True, unsaid: list[str] | None = None) -> list[float]:
    said_of = texts([(text, []) for text in said], slots=column)
    return Coverage("slots", unsaid or [], lowercase, "reward")(said_of).tolist()


def test_items_are_found_as_whole_words_wherever_they_stand() -> None:
    slots = [["Green Man", "\u00a320"], ["art"], ["caf\u00e9", "C++"], "cheap pub"]
    said = ["The green man costs \u00a320-25.", "a cart", "Caf\u00e9 (C++).", "a pub"]
    assert scores(slots, *said) == [1, 0, 1, 0.5]
    assert scores([["Green"]], "green", lowercase=False) == [0]


def test_a_word_goes_on_over_marks_and_joiners() -> None:
    assert scores([["क"]] * 3, "कि", "\u093eक", "कि क") == [0, 0, 1]
    assert scores([["می"]] * 2, "می\u200cخواهم", "می خواهم") == [0, 1]
    assert scores([["e"], ["e\u0301"], ["\U0001f469"]], "e\u0301", "E\u0301.", "\U0001f468\u200d\U0001f469") == [
        0,
        1,
        0,
    ]


def test_every_place_is_looked_at_also_where_two_overlap() -> None:
    assert scores([["a a"], ["x"], ["x"]], "aa a a", "xx x", "xx_x x2") == [1, 1, 0]


def test_nothing_to_mention_is_no_score() -> None:
    assert np.isnan(scores([[], " ", None], "a", "b", "c")).all()


def test_a_line_without_the_column_has_no_score_and_does_not_move_the_others(tmp_path: Path) -> None:
    lines = '{"src": "a", "refs": ["a"], "slots": ["a", "b"]}', '{"src": "b", "refs": ["b"]}'
    (tmp_path / "val.jsonl").write_text("\n".join(lines), "utf-8")
    dataset = Jsonl(str(tmp_path), {}, "src", "refs", False, False, 0.0, None, 9, "drop")
    found = scores([dataset.example("val", i).columns["slots"] for i in range(2)], "a", "b")
    assert found[0] == 0.5
    assert np.isnan(found[1])


def test_nothing_covers_nothing_and_a_list_of_all_items_covers_all_as_the_documentation_admits() -> None:
    assert scores([["the cat", "mat"]] * 2, "", "mat dog mat the cat cat") == [0, 1]
    assert Coverage("slots", [], True, "reward")(texts([("", [])], slots=["a"])).dtype == np.float64
    assert "gamed by listing" in str(Coverage.__doc__)


def test_a_column_that_is_not_there_or_holds_something_else_is_named() -> None:
    with pytest.raises(UserError, match=r"reward.column=slots: the dataset has no such column, but keywords, names"):
        Coverage("slots", [], True, "reward")(texts([("a", [])], names=[[]], keywords=[[]]))
    with pytest.raises(
        UserError, match=r"reward.column=slots: must hold strings, or lists or records of strings, holds 5"
    ):
        scores([5], "a")


def test_the_values_of_a_record_are_items_but_for_those_nobody_says() -> None:
    record = {"name": "The Vaults", "familyFriendly": "yes"}
    assert scores([record] * 2, "The Vaults .", "The Vaults yes") == [0.5, 1]
    assert scores([record], "The Vaults .", unsaid=["yes"]) == [1]
    assert np.isnan(scores([{"familyFriendly": "yes"}], "yes", unsaid=["yes"])[0])
