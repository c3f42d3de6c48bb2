"""Words at the right place."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings

from tests.reward.said import pairs, texts
from tokenrl_cli import __version__
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
    corpus = TokenAccuracy().corpus(texts([("a", ["a"]), ("a", ["a b"]), ("a", [])]))
    assert corpus.value == 0.75
    assert corpus.signature.endswith(f"|version:tokenrl {__version__}")


def test_a_text_without_a_reference_has_no_score() -> None:
    assert math.isnan(TokenAccuracy()(texts([("a", [])]))[0])


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_it_is_the_best_share_of_places_on_any_text(pair: tuple[str, list[str]]) -> None:
    said, references = pair[0].split(), [reference.split() for reference in pair[1]]
    shares = [
        sum(said[i : i + 1] == [word] for i, word in enumerate(words)) / len(words) if words else float(not said)
        for words in references
    ]
    assert TokenAccuracy()(texts([pair]))[0] == pytest.approx(max(shares), abs=1e-12)
