"""Does it say the same again?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reward.said import texts, words
from tokenrl_cli.reward.repetition import Repetition


def test_words_of_an_ngram_said_before_count_as_repeated() -> None:
    rows = [("a b c d", []), ("a b a b", []), ("a a a a", []), ("x a b y a b", []), ("a", []), ("", [])]
    assert Repetition(2)(texts(rows)).tolist() == pytest.approx([1, 0.5, 0.25, 4 / 6, 1, 1])
    assert Repetition(1)(texts([("a b a", [])])).tolist() == pytest.approx([2 / 3])


@settings(max_examples=60, deadline=None)
@given(words | st.text(max_size=12), st.integers(1, 4))
def test_it_is_1_exactly_where_no_ngram_occurs_twice(text: str, order: int) -> None:
    said = text.split()
    ngrams = [said[i : i + order] for i in range(len(said) - order + 1)]
    again = {i + k for i, ngram in enumerate(ngrams) if ngram in ngrams[:i] for k in range(order)}
    scores = Repetition(order)(texts([(text, [])]))
    assert scores.dtype == np.float64
    assert 0 <= scores[0] <= 1
    assert scores[0] == pytest.approx(1 - len(again) / len(said) if said else 1, abs=1e-12)
    assert (scores[0] == 1) == all(ngrams.count(ngram) == 1 for ngram in ngrams)


def test_a_text_of_at_most_order_words_has_nothing_to_repeat() -> None:
    assert Repetition(2)(texts([("a a", []), ("a a a", [])])).tolist() == pytest.approx([1, 1 / 3])


def test_endless_repetition_comes_near_nothing() -> None:
    assert Repetition(3)(texts([("the cat sat " * 50, [])]))[0] < 0.05
