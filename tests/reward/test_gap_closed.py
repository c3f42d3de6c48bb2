"""The share of the known gap that is closed."""

from __future__ import annotations

import pytest

from tests.reward.test_validity import MAN, WOMAN, texts
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.gap_closed import GapClosed
from tokenrl_cli.tasks.ceiling import ceiling
from tokenrl_cli.tasks.grammar import Meaning


def test_the_true_greedy_path_closes_nothing_and_the_best_translation_all() -> None:
    known = [ceiling(Meaning.parse(meaning)) for meaning in (WOMAN, MAN)]
    said = [(known[0].greedy_text, WOMAN), (known[0].best_text, WOMAN), (known[1].best_text, MAN), ("", MAN)]
    scores = GapClosed(1)(texts(said))
    assert scores[:3] == pytest.approx([0, 1, 1], abs=1e-12)
    assert scores[3] == pytest.approx(-known[1].greedy / (known[1].best - known[1].greedy))


def test_over_a_corpus_sources_count_by_their_gap() -> None:
    known = [ceiling(Meaning.parse(meaning)) for meaning in (WOMAN, MAN)]
    said = [(known[0].best_text, WOMAN), (known[1].greedy_text, MAN)]
    score = GapClosed(2).corpus(texts(said))
    gaps = [k.best - k.greedy for k in known]
    assert score.value == pytest.approx(gaps[0] / sum(gaps))
    assert score.aggregate(score.statistics[:1].sum(0)) == pytest.approx(1)
    assert score.sentences == pytest.approx([1, 0], abs=1e-12)


def test_a_dataset_without_meanings_is_refused_with_the_remedy() -> None:
    blank = texts([("Leider", WOMAN)])
    blank.columns.clear()
    with pytest.raises(UserError, match=r"gap_closed.*'meaning'") as refused:
        GapClosed(1)(blank)
    assert "dataset=grammar" in refused.value.remedy
