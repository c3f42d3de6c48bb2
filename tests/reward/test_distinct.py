"""How many different n-grams?"""

from __future__ import annotations

import pytest

from tests.reward.said import texts
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.distinct import Distinct


def test_it_is_distinct_ngrams_over_ngrams() -> None:
    rows = [("a b c", []), ("a a a", []), ("a b a b", []), ("a", []), ("", [])]
    assert Distinct(2)(texts(rows)).tolist() == pytest.approx([1, 0.5, 2 / 3, 0, 0])
    assert Distinct(1)(texts([("a b a c", [])])).tolist() == [0.75]


def test_an_order_out_of_range_is_named() -> None:
    with pytest.raises(UserError, match="reward.order: must be at least 1, got 0"):
        Distinct(0)
