"""How many different n-grams?"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reward.said import texts, words
from tokenrl_cli.reward.distinct import Distinct


def test_it_is_distinct_ngrams_over_ngrams() -> None:
    rows = [("a b c", []), ("a a a", []), ("a b a b", []), ("a", []), ("", [])]
    assert Distinct(2)(texts(rows)).tolist() == pytest.approx([1, 0.5, 2 / 3, 0, 0])
    assert Distinct(1)(texts([("a b a c", [])])).tolist() == [0.75]


@settings(max_examples=60, deadline=None)
@given(words | st.text(max_size=12), st.integers(1, 4))
def test_it_is_the_share_of_any_text(text: str, order: int) -> None:
    said = text.split()
    counts = Counter(zip(*(said[k:] for k in range(order)), strict=False))
    scores = Distinct(order)(texts([(text, [])]))
    assert scores.dtype == np.float64
    assert 0 <= scores[0] <= 1
    assert scores[0] == pytest.approx(len(counts) / counts.total() if counts else 0, abs=1e-12)


def test_endless_repetition_comes_near_nothing_and_a_short_text_games_it_as_the_documentation_admits() -> None:
    assert Distinct(2)(texts([("the cat sat " * 50, []), ("the cat", [])])).tolist() == pytest.approx([3 / 149, 1])
    assert "Gamed by short texts" in " ".join(str(Distinct.__doc__).split())
