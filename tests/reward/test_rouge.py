"""ROUGE is rouge-score's."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from rouge_score.rouge_scorer import RougeScorer

from tests.reward.said import GOLDEN, assert_length_does_not_pay, pairs, texts
from tokenrl_cli.reward.rouge import Rouge

VARIANTS: list[Literal["rouge1", "rouge2", "rougeL"]] = ["rouge1", "rouge2", "rougeL"]
MEASURES: list[Literal["fmeasure", "precision", "recall"]] = ["fmeasure", "precision", "recall"]


@pytest.mark.parametrize(("hypothesis", "references"), GOLDEN)
def test_the_reward_is_rouge_scores_number(hypothesis: str, references: list[str]) -> None:
    for variant, measure, stemmer in itertools.product(VARIANTS, MEASURES, (False, True)):
        expected = RougeScorer([variant], use_stemmer=stemmer).score_multi(references, hypothesis)[variant]
        (score,) = Rouge(variant, measure, stemmer)(texts([(hypothesis, references)]))
        assert score == getattr(expected, measure)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_the_reward_is_rouge_scores_number_on_any_text(pair: tuple[str, list[str]]) -> None:
    hypothesis, references = pair
    for variant in VARIANTS:
        scorer = RougeScorer([variant])
        best = max(scorer.score(reference, hypothesis)[variant].fmeasure for reference in references)
        assert Rouge(variant, "fmeasure", False)(texts([pair]))[0] == best


def test_known_numbers() -> None:
    row = texts([("the cat sat", ["the cat sat on the mat"])])
    found = [Rouge(v, m, False)(row)[0] for v in VARIANTS for m in MEASURES]
    assert found == pytest.approx([2 / 3, 1, 1 / 2, 4 / 7, 1, 2 / 5, 2 / 3, 1, 1 / 2], abs=1e-12)


def test_all_measures_are_of_the_reference_with_the_best_f() -> None:
    row = texts([("a b", ["a b c d e f", "a"])])  # F 1/2 with precision 1; F 2/3 with precision 1/2
    assert Rouge("rouge1", "precision", False)(row)[0] == pytest.approx(1 / 2)


def test_the_stemmer_is_used_when_asked_for() -> None:
    row = texts([("jumping dogs", ["jumped dog"])])
    assert [Rouge("rouge1", "fmeasure", stemmer)(row)[0] for stemmer in (False, True)] == [0, 1]


def test_the_corpus_score_is_the_mean_and_says_how() -> None:
    corpus = Rouge("rougeL", "recall", True).corpus(texts([("a", ["a"]), ("b", ["a"]), ("b", [])]))
    assert corpus.value == 0.5
    assert np.isnan(corpus.sentences[2])
    assert corpus.signature == "rougeL|recall|stemmer:yes|version:rouge-score 0.1.2"


def test_a_source_without_references_has_no_score() -> None:
    assert math.isnan(Rouge("rouge1", "fmeasure", False)(texts([("a", [])]))[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_length_does_not_pay(variant: Literal["rouge1", "rouge2", "rougeL"]) -> None:
    assert_length_does_not_pay(Rouge(variant, "fmeasure", False))


def test_the_library_is_imported_only_when_it_is_used() -> None:
    code = "import sys, tokenrl_cli.reward.rouge; sys.exit('rouge_score' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
