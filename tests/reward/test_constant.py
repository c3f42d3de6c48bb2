"""A control without a signal."""

from __future__ import annotations

import pytest

from tests.reward.said import texts
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.constant import Constant


def test_it_is_the_same_for_every_text() -> None:
    assert Constant(0.5)(texts([("", []), ("a b", ["a"])])).tolist() == [0.5, 0.5]


def test_a_value_that_is_no_number_is_named() -> None:
    with pytest.raises(UserError, match="reward.value: must be finite, got inf"):
        Constant(float("inf"))
