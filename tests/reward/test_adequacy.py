"""Adequacy: everything said, in whatever order."""

from __future__ import annotations

import pytest

from tests.reward.test_validity import MAN, WOMAN, texts
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.adequacy import Adequacy


def test_a_bad_order_is_adequate_and_a_missing_content_is_not() -> None:
    said = [
        ("Leider besucht die Frau heute das Kind.", WOMAN),
        ("Leider die Frau heute das Kind besucht.", WOMAN),
        ("Leider besucht die Frau das Kind.", WOMAN),
        ("Leider besucht die Frau heute das Kind.", MAN),
        ("", WOMAN),
    ]
    assert Adequacy(2)(texts(said)).tolist() == [1, 1, 0, 0, 0]


def test_the_corpus_score_is_the_share() -> None:
    said = [("Leider die Frau heute das Kind besucht.", WOMAN), ("Leider besucht die Frau das Kind.", WOMAN)]
    score = Adequacy(1).corpus(texts(said))
    assert score.value == 0.5
    assert score.statistics.tolist() == [[1, 1], [0, 1]]


def test_a_dataset_without_meanings_is_refused_with_the_remedy() -> None:
    blank = texts([("Leider", WOMAN)])
    blank.columns.clear()
    with pytest.raises(UserError, match=r"adequacy.*'meaning'") as refused:
        Adequacy(1)(blank)
    assert "dataset=grammar" in refused.value.remedy
