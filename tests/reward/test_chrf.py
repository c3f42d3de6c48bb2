"""chrF is sacrebleu's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from sacrebleu.metrics.chrf import CHRF

from tests.reward.said import GOLDEN, assert_length_does_not_pay, pairs, texts
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


def test_the_corpus_score_is_sacrebleus() -> None:
    rows = [(h, r) for h, r in GOLDEN if len(r) == 1]
    corpus = Chrf(6, 0, 2, False, False).corpus(texts(rows))
    for part in (slice(None), slice(2, 6)):
        expected = CHRF().corpus_score([h for h, _ in rows[part]], [[r[0] for _, r in rows[part]]]).score
        assert abs(corpus.aggregate(corpus.statistics[part].sum(0)) - expected) < 1e-7
    assert "nc:6" in corpus.signature


def test_length_does_not_pay() -> None:
    assert_length_does_not_pay(Chrf(6, 0, 2, False, False))
