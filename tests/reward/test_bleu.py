"""Sentence BLEU is sacrebleu's."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from sacrebleu.metrics.bleu import BLEU

from tests.reward.said import GOLDEN, REFERENCE, assert_length_does_not_pay, columns, pairs, texts
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.bleu import Bleu

REWARD = Bleu(4, "exp", None, True, "13a", False)


@pytest.mark.parametrize(("hypothesis", "references"), GOLDEN)
def test_the_reward_is_a_hundredth_of_sacrebleu(hypothesis: str, references: list[str]) -> None:
    expected = BLEU(effective_order=True).sentence_score(hypothesis, references).score
    (score,) = REWARD(texts([(hypothesis, references)]))
    assert abs(score * 100 - expected) < 1e-7


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_the_reward_is_sacrebleu_on_any_text(pair: tuple[str, list[str]]) -> None:
    cases: tuple[tuple[int, Literal["exp", "add-k"], float | None, bool], ...] = (
        (4, "exp", None, False),
        (2, "add-k", 1.0, True),
    )
    for order, smoothing, value, lowercase in cases:
        reward = Bleu(order, smoothing, value, True, "13a", lowercase)
        metric = BLEU(
            max_ngram_order=order,
            smooth_method=smoothing,
            smooth_value=value,
            lowercase=lowercase,
            effective_order=True,
        )
        expected = metric.sentence_score(*pair).score
        assert abs(reward(texts([pair]))[0] * 100 - expected) < 1e-7


def test_known_numbers() -> None:
    """Trap 25: of an empty text, one word, an identical text, an order without a match."""
    rows = [("", ["a"]), ("cat", ["cat"]), ("the cat sat", ["the cat sat on"]), ("a b c x", ["a b c d"])]
    by_hand = [0.0, 1.0, np.exp(1 - 4 / 3), (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25]  # no 4-gram of 1: counts as 1/2
    assert REWARD(texts(rows)) == pytest.approx(by_hand, abs=1e-12)


def test_a_marker_left_in_the_text_costs() -> None:
    assert REWARD(texts([("the cat </s>", ["the cat"]), ("the c@@ at", ["the cat"])])).max() < 0.6


SMOOTHINGS: list[tuple[Any, float | None]] = [
    ("exp", None), ("none", None), ("floor", 0.01), ("add-k", 1.0), ("add-k", 0.5)
]  # fmt: skip


@pytest.mark.parametrize(("smoothing", "value"), SMOOTHINGS)
def test_the_corpus_score_and_any_part_of_it_are_sacrebleus(smoothing: Any, value: float | None) -> None:
    corpus = Bleu(4, smoothing, value, True, "13a", False).corpus(texts(GOLDEN))
    for part in (slice(None), slice(2, 6), slice(3, 7), slice(0, 1)):
        library = BLEU(smooth_method=smoothing, smooth_value=value)
        expected = library.corpus_score([h for h, _ in GOLDEN[part]], columns(GOLDEN[part])).score
        assert abs(corpus.aggregate(corpus.statistics[part].sum(0)) - expected) < 1e-7
    assert corpus.value == corpus.aggregate(corpus.statistics.sum(0)) > 0


@pytest.mark.parametrize("part", [slice(0, 3), slice(5, 6), slice(4, 7), slice(5, 8)])
def test_the_signature_is_sacrebleus_however_many_references_there_are(part: slice) -> None:
    library = BLEU()
    library.corpus_score([h for h, _ in GOLDEN[part]], columns(GOLDEN[part]))
    assert REWARD.corpus(texts(GOLDEN[part])).signature == str(library.get_signature())


def test_an_order_that_sacrebleus_signature_does_not_tell_is_added() -> None:
    assert Bleu(2, "exp", None, True, "13a", False).corpus(texts(GOLDEN)).signature.endswith("|order:2")


@pytest.mark.parametrize("effective_order", [False, True])
def test_no_sentence_is_worth_a_line_in_the_log(effective_order: bool, caplog: pytest.LogCaptureFixture) -> None:
    reward = Bleu(4, "exp", None, effective_order, "13a", False)
    rows = [(f"{h} .", r) for h, r in GOLDEN] * 20  # sacrebleu has advice on full stops, too
    scores = reward(texts(rows))
    reward.corpus(texts(rows))
    assert not caplog.records
    library = BLEU(effective_order=effective_order)
    expected = [library.sentence_score(h, r).score for h, r in rows]
    assert len(caplog.records) == (0 if effective_order else len(rows))
    assert np.abs(scores * 100 - expected).max() < 1e-7


def test_a_text_without_a_reference_has_no_score_and_does_not_move_the_others() -> None:
    rows = [("a b c d", ["a b c e"]), ("a", [])]
    assert np.isnan(REWARD(texts(rows))).tolist() == [False, True]
    corpus = REWARD.corpus(texts(rows))
    assert corpus.value == REWARD.corpus(texts(rows[:1])).value
    assert np.isnan(corpus.sentences[1])
    assert corpus.statistics.shape == (2, 10)
    assert not corpus.statistics[1].any()
    with pytest.raises(UserError, match="no text has a reference"):
        REWARD.corpus(texts(rows[1:]))


def test_a_smoothing_without_a_value_refuses_one() -> None:
    with pytest.raises(UserError, match=r"^smoothing_value: exp takes none, got 0.1"):
        Bleu(4, "exp", 0.1, True, "13a", False)


def test_length_does_not_pay() -> None:
    assert_length_does_not_pay(REWARD)


def test_the_order_of_words_counts() -> None:
    shuffled = " ".join(sorted(REFERENCE.split()))
    assert REWARD(texts([(shuffled, [REFERENCE])]))[0] < 0.5
