"""Words at the right place."""

from __future__ import annotations

import pytest

from tests.reward.said import texts
from tokenrl_cli.reward.token_accuracy import TokenAccuracy


@pytest.mark.parametrize(
    ("row", "score"),
    [
        (("", ["a"]), 0),
        (("", [""]), 1),
        (("a", [""]), 0),
        (("a", ["a"]), 1),
        (("a b c d", ["a x c d"]), 3 / 4),
        (("b a", ["a b"]), 0),
        (("a", ["a b"]), 1 / 2),
        (("a b", ["x y z", "a c"]), 1 / 2),
        (("a b.", ["a b ."]), 1 / 3),
        ((" a  b ", ["a b"]), 1),
    ],
)
def test_known_answers(row: tuple[str, list[str]], score: float) -> None:
    assert TokenAccuracy()(texts([row]))[0] == score


def test_going_on_costs_nothing_as_its_documentation_admits() -> None:
    assert TokenAccuracy()(texts([("a b c d e", ["a b"])]))[0] == 1
    assert "Gamed" in str(TokenAccuracy.__doc__)


def test_the_corpus_score_is_the_mean() -> None:
    assert TokenAccuracy().corpus(texts([("a", ["a"]), ("a", ["a b"])])).value == 0.75
