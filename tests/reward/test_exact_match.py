"""A text equals a reference, or it does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings

from tests.reward.said import GOLDEN, assert_length_does_not_pay, pairs, texts
from tokenrl_cli import __version__
from tokenrl_cli.reward.exact_match import ExactMatch


@pytest.mark.parametrize(
    ("row", "lowercase", "strip", "score"),
    [
        (("", [""]), False, False, 1),
        (("", ["a"]), False, False, 0),
        (("a", ["b", "a"]), False, False, 1),
        (("a ", ["a"]), False, False, 0),
        (("a ", [" a"]), False, True, 1),
        (("A", ["a"]), False, True, 0),
        (("Stra\u00dfe", ["STRASSE"]), True, True, 1),
        (("a </s>", ["a"]), True, True, 0),
        (("a.", ["a"]), True, True, 0),
    ],
)
def test_known_answers(row: tuple[str, list[str]], lowercase: bool, strip: bool, score: int) -> None:
    (found,) = ExactMatch(lowercase, strip)(texts([row]))
    assert found == score


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_it_is_equality_on_any_text(pair: tuple[str, list[str]]) -> None:
    assert ExactMatch(False, False)(texts([pair]))[0] == (pair[0] in pair[1])


def test_the_corpus_score_is_the_share() -> None:
    corpus = ExactMatch(False, True).corpus(texts([*GOLDEN, ("a", [])]))
    assert corpus.value == sum(h.strip() in [r.strip() for r in rs] for h, rs in GOLDEN) / len(GOLDEN)
    assert corpus.signature == f"exact_match|case:mixed|strip:yes|version:tokenrl {__version__}"


def test_a_text_without_a_reference_has_no_score() -> None:
    assert math.isnan(ExactMatch(True, True)(texts([("a", [])]))[0])


def test_length_does_not_pay() -> None:
    assert_length_does_not_pay(ExactMatch(True, True))
