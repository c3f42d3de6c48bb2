"""Does it say the same again?"""

from __future__ import annotations

import pytest

from tests.reward.said import texts
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.repetition import Repetition


def test_words_of_an_ngram_said_before_count_as_repeated() -> None:
    rows = [("a b c d", []), ("a b a b", []), ("a a a a", []), ("x a b y a b", []), ("a", []), ("", [])]
    assert Repetition(2)(texts(rows)).tolist() == pytest.approx([1, 0.5, 0.25, 4 / 6, 1, 1])
    assert Repetition(1)(texts([("a b a", [])])).tolist() == pytest.approx([2 / 3])


def test_endless_repetition_comes_near_nothing() -> None:
    assert Repetition(3)(texts([("the cat sat " * 50, [])]))[0] < 0.05


def test_an_order_out_of_range_is_named() -> None:
    with pytest.raises(UserError, match="reward.order: must be at least 1, got 0"):
        Repetition(0)
