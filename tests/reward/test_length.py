"""How near is the length?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.reward.said import assert_length_does_not_pay, pairs, texts
from tokenrl_cli.reward.length import Length


def test_it_is_the_shorter_over_the_longer_of_the_best_reference() -> None:
    rows = [("a b", ["x y z w"]), ("a b c d", ["x y"]), ("a b c", ["x", "x y z"]), ("", ["x"]), ("a", [""]), ("", [""])]
    assert Length()(texts(rows)).tolist() == [0.5, 0.5, 1, 0, 0, 1]


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_it_is_the_best_ratio_of_any_text(pair: tuple[str, list[str]]) -> None:
    said, wanted = len(pair[0].split()), [len(reference.split()) for reference in pair[1]]
    ratios = [
        1.0 if said == length else min(said / length, length / said) if said and length else 0 for length in wanted
    ]
    scores = Length()(texts([pair]))
    assert scores.dtype == np.float64
    assert scores[0] == pytest.approx(max(ratios), abs=1e-12)


def test_a_source_without_a_reference_has_no_score() -> None:
    assert np.isnan(Length()(texts([("a", [])]))[0])


def test_length_does_not_pay() -> None:
    assert_length_does_not_pay(Length())


def test_any_words_will_do_as_the_documentation_admits() -> None:
    assert Length()(texts([("x x", ["a b"])]))[0] == 1
    assert "gamed by any words" in str(Length.__doc__)
