"""Validity: translations to the letter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tokenrl_cli.interfaces import Texts, UserError
from tokenrl_cli.reward.adequacy import Adequacy
from tokenrl_cli.reward.gap_closed import GapClosed
from tokenrl_cli.reward.validity import Validity

WOMAN = "Unfortunately,|the woman|visit||the child|today"
MAN = "Perhaps|the man|read||my book|soon"


def texts(said: list[tuple[str, Any]]) -> Texts:
    """(hypothesis, meaning) pairs."""
    nothing = np.zeros((len(said), 0), dtype=np.int64)
    columns: dict[str, list[Any]] = {"meaning": [meaning for _, meaning in said]}
    blank = [""] * len(said)
    return Texts(
        [text for text, _ in said],
        [[] for _ in said],
        blank,
        columns,
        nothing,
        nothing.astype(bool),
        np.ones(len(said), bool),
        0,
    )


def test_a_translation_is_valid_and_the_same_text_for_another_source_is_not() -> None:
    said = [
        ("Leider besucht die Frau heute das Kind.", WOMAN),
        ("Bedauerlicherweise besucht heute die Frau das Kind.", WOMAN),
        ("Leider besucht die Frau heute das Kind.", MAN),
        ("Leider besucht die Frau das heute Kind.", WOMAN),
        ("leider besucht die Frau heute das Kind.", WOMAN),
        ("", WOMAN),
    ]
    scores = Validity(2)(texts(said))
    assert scores.dtype == np.float64
    assert scores.tolist() == [1, 1, 0, 0, 0, 0]


def test_the_corpus_score_is_the_share_and_its_statistics_rebuild_it() -> None:
    said = [("Leider besucht die Frau heute das Kind.", WOMAN)] * 3 + [("Leider", WOMAN)]
    score = Validity(1).corpus(texts(said))
    assert score.value == 0.75
    assert score.statistics.tolist() == [[1, 1], [1, 1], [1, 1], [0, 1]]
    assert score.aggregate(score.statistics[2:].sum(0)) == 0.5


def test_forgetting_sources_changes_no_score() -> None:
    said = [("Leider besucht die Frau heute das Kind.", WOMAN), ("Vielleicht liest der Mann bald mein Buch.", MAN)] * 3
    assert Validity(1)(texts(said)).tolist() == Validity(100)(texts(said)).tolist() == [1] * 6


def test_a_dataset_without_meanings_is_refused_with_the_remedy() -> None:
    blank = texts([("Leider", WOMAN)])
    blank.columns.clear()
    with pytest.raises(UserError, match=r"validity.*'meaning'") as refused:
        Validity(1)(blank)
    assert "dataset=grammar" in refused.value.remedy


@pytest.mark.parametrize("meaning", ["the book", 7, [1]])
def test_a_column_that_holds_no_meanings_is_named(meaning: Any) -> None:
    given = texts([("Vielleicht liest die Frau das Buch.", meaning)])
    for reward, name in ((Validity(9), "validity"), (Adequacy(9), "adequacy"), (GapClosed(9), "gap_closed")):
        with pytest.raises(UserError, match=f"^{name}: the column 'meaning' is no meaning: "):
            reward(given)
