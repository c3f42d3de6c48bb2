"""Does it mention what it has to?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.reward.said import texts
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.coverage import Coverage


def scores(column: list[Any], *said: str, lowercase: bool = True) -> list[float]:
    return Coverage("slots", lowercase)(texts([(text, []) for text in said], slots=column)).tolist()


def test_items_are_found_as_whole_words_wherever_they_stand() -> None:
    slots = [["Green Man", "\u00a320"], ["art"], ["caf\u00e9", "C++"], "cheap pub"]
    said = ["The green man costs \u00a320-25.", "a cart", "Caf\u00e9 (C++).", "a pub"]
    assert scores(slots, *said) == [1, 0, 1, 0.5]
    assert scores([["Green"]], "green", lowercase=False) == [0]


def test_nothing_to_mention_is_no_score() -> None:
    assert np.isnan(scores([[], " "], "a", "b")).all()


def test_a_column_that_is_not_there_or_holds_something_else_is_named() -> None:
    with pytest.raises(UserError, match="reward.column=slots: the dataset has no such column, but keywords, names"):
        Coverage("slots", True)(texts([("a", [])], names=[[]], keywords=[[]]))
    with pytest.raises(UserError, match="reward.column=slots: must hold strings or lists of strings, holds 5"):
        scores([5], "a")
