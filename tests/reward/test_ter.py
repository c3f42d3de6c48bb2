"""TER is sacrebleu's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.ter import TER

from tests.reward.said import GOLDEN, assert_length_does_not_pay, columns, texts, words
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.ter import Ter

OPTIONS = list(itertools.product((False, True), repeat=4))
PLAIN = (False, False, False, False)
sentences = words | st.text(max_size=12) | st.text("猫が坐る。、ａ a.,-'&quot;<>", max_size=12)
pairs = st.tuples(sentences, st.lists(sentences, min_size=1, max_size=8))


@pytest.mark.parametrize("options", OPTIONS)
def test_the_reward_is_1_less_a_hundredth_of_sacrebleu(options: tuple[bool, bool, bool, bool]) -> None:
    expected = [1 - TER(*options).sentence_score(text, references).score / 100 for text, references in GOLDEN]
    assert np.abs(Ter(*options)(texts(GOLDEN)) - expected).max() < 1e-12


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_the_reward_is_sacrebleu_on_any_text(pair: tuple[str, list[str]]) -> None:
    for options in OPTIONS:
        expected = 1 - TER(*options).sentence_score(*pair).score / 100
        assert abs(Ter(*options)(texts([pair]))[0] - expected) < 1e-12


def test_known_numbers() -> None:
    rows = [("a b c d", ["a b c d"]), ("c d a b", ["a b c d"]), ("", ["a b"]), ("a b x y z w", ["a b"])]
    assert Ter(*PLAIN)(texts(rows)).tolist() == [1, 0.75, 0, -1]  # a block that moves is one edit


def test_the_corpus_score_any_part_of_it_and_its_signature_are_sacrebleus() -> None:
    corpus = Ter(*PLAIN).corpus(texts(GOLDEN))
    for part in (slice(None), slice(2, 6), slice(5, 7)):
        library = TER()
        expected = library.corpus_score([h for h, _ in GOLDEN[part]], columns(GOLDEN[part])).score
        assert abs(corpus.aggregate(corpus.statistics[part].sum(0)) - expected) < 1e-9
        assert Ter(*PLAIN).corpus(texts(GOLDEN[part])).signature == str(library.get_signature())
    assert corpus.lower_is_better


def test_a_text_without_a_reference_has_no_score() -> None:
    assert np.isnan(Ter(*PLAIN)(texts([("a", ["a"]), ("a", [])]))).tolist() == [False, True]
    with pytest.raises(UserError, match="no text has a reference"):
        Ter(*PLAIN).corpus(texts([("a", [])]))


def test_nothing_is_worth_something_where_references_differ_in_length_as_the_documentation_admits() -> None:
    rows = [("", ["a b"]), ("", ["a", "a b c d e"]), ("", [""])]
    assert Ter(*PLAIN)(texts(rows)).tolist() == pytest.approx([0, 1 - 1 / 3, 1])
    assert "An empty text has 0 against one reference" in " ".join(str(Ter.__doc__).split())


def test_length_does_not_pay() -> None:
    assert_length_does_not_pay(Ter(*PLAIN))
