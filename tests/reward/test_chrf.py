"""chrF is sacrebleu's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from sacrebleu.metrics.chrf import CHRF

from tests.reward.said import GOLDEN, assert_length_does_not_pay, columns, pairs, texts
from tokenrl_cli.reward.chrf import Chrf

SETTINGS = [(6, 0, 2, False, False), (6, 2, 2, True, True)]


def library(char_order: int, word_order: int, beta: int, whitespace: bool, lowercase: bool) -> CHRF:
    return CHRF(char_order=char_order, word_order=word_order, beta=beta, whitespace=whitespace, lowercase=lowercase)


@pytest.mark.parametrize("values", SETTINGS)
@pytest.mark.parametrize(("hypothesis", "references"), GOLDEN)
def test_the_reward_is_a_hundredth_of_sacrebleu(
    hypothesis: str, references: list[str], values: tuple[int, int, int, bool, bool]
) -> None:
    (score,) = Chrf(*values)(texts([(hypothesis, references)]))
    assert abs(score * 100 - library(*values).sentence_score(hypothesis, references).score) < 1e-7


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_the_reward_is_sacrebleu_on_any_text(pair: tuple[str, list[str]]) -> None:
    for values in SETTINGS:
        expected = library(*values).sentence_score(*pair).score
        assert abs(Chrf(*values)(texts([pair]))[0] * 100 - expected) < 1e-7


@pytest.mark.parametrize("values", SETTINGS)
def test_the_corpus_score_and_its_signature_are_sacrebleus(values: tuple[int, int, int, bool, bool]) -> None:
    corpus = Chrf(*values).corpus(texts(GOLDEN))
    for part in (slice(None), slice(2, 6), slice(5, 6)):
        metric, rows = library(*values), GOLDEN[part]
        expected = metric.corpus_score([h for h, _ in rows], columns(rows)).score
        assert abs(corpus.aggregate(corpus.statistics[part].sum(0)) - expected) < 1e-7
        assert Chrf(*values).corpus(texts(rows)).signature == str(metric.get_signature())
    assert np.abs(corpus.sentences - Chrf(*values)(texts(GOLDEN)) * 100).max() < 1e-12


def test_a_beta_that_sacrebleus_signature_does_not_tell_is_added() -> None:
    assert Chrf(6, 0, 3, False, False).corpus(texts(GOLDEN)).signature.endswith("|beta:3")


def test_a_text_without_a_reference_has_no_score_and_does_not_move_the_others() -> None:
    rows, reward = [("a b c d", ["a b c e"]), ("a", [])], Chrf(6, 0, 2, False, False)
    assert np.isnan(reward(texts(rows))).tolist() == [False, True]
    corpus = reward.corpus(texts(rows))
    assert corpus.value == reward.corpus(texts(rows[:1])).value
    assert not corpus.statistics[1].any()


def test_length_does_not_pay() -> None:
    assert_length_does_not_pay(Chrf(6, 0, 2, False, False))
