"""Error rates are jiwer's; of several references the best counts."""

from __future__ import annotations

from typing import Any

import jiwer
import numpy as np
import pytest

from tests.reward.said import GOLDEN, assert_length_does_not_pay, texts
from tokenrl_cli.reward.error_rate import ErrorRate

LIBRARY: list[tuple[Any, Any]] = [("words", jiwer.wer), ("characters", jiwer.cer), ("phones", jiwer.wer)]


@pytest.mark.parametrize(("unit", "rate"), LIBRARY)
@pytest.mark.parametrize(("hypothesis", "references"), GOLDEN)
def test_the_reward_is_1_less_the_smallest_rate(unit: Any, rate: Any, hypothesis: str, references: list[str]) -> None:
    (score,) = ErrorRate(unit)(texts([(hypothesis, references)]))
    assert abs(score - (1 - min(rate(reference, hypothesis) for reference in references))) < 1e-12


def test_known_numbers() -> None:
    rows = [("the cat sat", ["the cat sat"]), ("the dog sat down", ["the cat sat"]), ("", ["a b"]), ("a b c", ["x"])]
    assert ErrorRate("words")(texts(rows)).tolist() == [1, 1 - 2 / 3, 0, -2]
    assert ErrorRate("characters")(texts([("abd", ["abc"]), (" ab ", ["ab"])])).tolist() == [1 - 1 / 3, 1]


def test_an_empty_reference_counts_insertions() -> None:
    assert ErrorRate("words")(texts([("a b", [""]), ("", [""])])).tolist() == [1 - jiwer.wer("", "a b"), 1]


def test_a_single_tab_divides_phones_but_not_words() -> None:
    seen = texts([("a\tb", ["a b"])])
    assert ErrorRate("words")(seen)[0] == 1 - jiwer.wer("a b", "a\tb") == -0.0
    assert ErrorRate("phones")(seen)[0] == 1


@pytest.mark.parametrize(("unit", "rate"), LIBRARY)
def test_the_corpus_rate_and_that_of_any_part_are_jiwers(unit: Any, rate: Any) -> None:
    rows = [(hypothesis, references[:1]) for hypothesis, references in GOLDEN]
    corpus = ErrorRate(unit).corpus(texts(rows))
    for part in (slice(None), slice(2, 6), slice(3, 7), slice(11, 12)):
        expected = rate([references[0] for _, references in rows[part]], [text for text, _ in rows[part]])
        assert abs(corpus.aggregate(corpus.statistics[part].sum(0)) - expected) < 1e-12
    assert corpus.lower_is_better
    assert corpus.value == corpus.aggregate(corpus.statistics.sum(0))


def test_of_several_references_the_corpus_takes_each_texts_best() -> None:
    rows = [("a b c", ["x y z", "a b d"]), ("a", ["a", "b c"])]
    corpus = ErrorRate("words").corpus(texts(rows))
    assert corpus.value == 1 / 4
    assert corpus.sentences.tolist() == [1 / 3, 0]
    assert corpus.signature.startswith("wer|refs:best|")


def test_a_text_without_a_reference_has_no_score_and_does_not_move_the_others() -> None:
    rows = [("a b", ["a c"]), ("a", [])]
    assert np.isnan(ErrorRate("words")(texts(rows))).tolist() == [False, True]
    corpus = ErrorRate("words").corpus(texts(rows))
    assert corpus.value == 0.5
    assert np.isnan(corpus.sentences[1])


@pytest.mark.parametrize(("unit", "name"), [("words", "wer"), ("characters", "cer"), ("phones", "per")])
def test_each_preset_is_logged_by_its_own_name(unit: Any, name: str) -> None:
    assert ErrorRate(unit).name == name


@pytest.mark.parametrize("unit", ["words", "characters", "phones"])
def test_length_does_not_pay(unit: Any) -> None:
    assert_length_does_not_pay(ErrorRate(unit))


def test_without_any_reference_a_corpus_has_no_rate() -> None:
    corpus = ErrorRate("words").corpus(texts([("a b", []), ("c", [])]))
    assert np.isnan(corpus.value)
    assert np.isnan(corpus.sentences).all()
