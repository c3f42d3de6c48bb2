"""Sentence BLEU is sacrebleu's."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from sacrebleu.metrics.bleu import BLEU

from tests.reward.said import GOLDEN, REFERENCE, assert_length_does_not_pay, pairs, texts
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
    rows = [("", ["a"]), ("cat", ["cat"]), ("the cat sat", ["the cat sat on"]), ("a b c x", ["a b c d"])]
    by_hand = [0.0, 1.0, np.exp(1 - 4 / 3), (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25]  # no 4-gram of 1: counts as 1/2
    assert REWARD(texts(rows)) == pytest.approx(by_hand, abs=1e-12)


def test_a_marker_left_in_the_text_costs() -> None:
    assert REWARD(texts([("the cat </s>", ["the cat"]), ("the c@@ at", ["the cat"])])).max() < 0.6


def test_the_corpus_score_and_any_part_of_it_are_sacrebleus() -> None:
    rows = [(h, r) for h, r in GOLDEN if len(r) == 1]
    corpus = REWARD.corpus(texts(rows))
    for part in (slice(None), slice(2, 6), slice(0, 1)):
        expected = BLEU().corpus_score([h for h, _ in rows[part]], [[r[0] for _, r in rows[part]]]).score
        assert abs(corpus.aggregate(corpus.statistics[part].sum(0)) - expected) < 1e-7
    assert corpus.value == corpus.aggregate(corpus.statistics.sum(0))
    assert "tok:13a" in corpus.signature and "version:" in corpus.signature


def test_length_does_not_pay() -> None:
    assert_length_does_not_pay(REWARD)


def test_the_order_of_words_counts() -> None:
    shuffled = " ".join(sorted(REFERENCE.split()))
    assert REWARD(texts([(shuffled, [REFERENCE])]))[0] < 0.5
