"""The gap in expected BLEU of the embedded task: a property of the grammar, known before any training."""

from __future__ import annotations

from itertools import product
from random import Random

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from tokenrl_cli.dataset.grammar import Grammar
from tokenrl_cli.tasks import grammar
from tokenrl_cli.tasks.ceiling import ceiling, expected_bleu, greedy_text, sentence_bleu
from tokenrl_cli.tasks.grammar import OPENINGS, Meaning

SOURCES = 500  # the whole test split of dataset=grammar
TRUE_GREEDY, BEST = 0.3831, 0.5738  # expected sentence BLEU


def test_sentence_bleu_is_sacrebleus_on_texts_good_and_bad() -> None:
    draws = Random(1)
    reference = BLEU(effective_order=True)
    for _ in range(8):
        said = list(grammar.translations(grammar.sample_meaning(draws)))[:40]
        shuffled = " ".join(draws.sample(said[0].split(), len(said[0].split())))
        odd = ["", "der", "dass dass", "Leider Leider", "die die die die die die.", shuffled, said[0] + said[-1]]
        hypotheses = [*said[:3], grammar.sample(draws)[1], *odd]
        ours = sentence_bleu([grammar.tokens(h) for h in hypotheses], [grammar.tokens(r) for r in said])
        theirs = [[reference.sentence_score(h, [r]).score / 100 for r in said] for h in hypotheses]
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_expected_bleu_weighs_each_reference_by_its_probability() -> None:
    references = {"Leider liest der Mann.": 0.75, "Natürlich schreibt eine Frau.": 0.25}
    said = list(references)
    single = sentence_bleu([grammar.tokens(t) for t in said], [grammar.tokens(t) for t in said])
    np.testing.assert_allclose(
        expected_bleu(said, references), [0.75 + 0.25 * single[0, 1], 0.25 + 0.75 * single[1, 0]]
    )


def test_the_greedy_path_takes_the_likeliest_token_not_the_likeliest_text() -> None:
    assert greedy_text({"a b": 0.4, "c d": 0.3, "c e": 0.3}) == "c d"
    assert greedy_text({"a": 0.3, "a b": 0.3, "a c": 0.3, "b": 0.1}) == "a"
    assert greedy_text({"a": 0.2, "a b": 0.3, "c": 0.5 - 1e-9}) == "a b"


def test_the_greedy_path_opens_like_the_others_and_the_houses_first_way_is_about_the_best() -> None:
    draws = Random(2)
    missed = []
    for _ in range(60):
        meaning = grammar.sample_meaning(draws)
        said, found = grammar.translations(meaning), ceiling(meaning)
        house, others = OPENINGS[meaning.opening]
        assert found.greedy_text.startswith(others)
        first = max((text for text in said if text.startswith(house)), key=lambda text: said[text])
        missed.append(found.best - float(expected_bleu([first], said)[0]))
        assert found.best >= found.greedy
    assert min(missed) > -1e-12
    assert sum(missed) / len(missed) < 0.005


def test_the_ceiling_is_the_maximum_over_all_translations_by_sacrebleu() -> None:
    meaning = Meaning.parse("Perhaps|the woman|read||the book|today")
    said = grammar.translations(meaning)
    bleu = BLEU(effective_order=True)
    expected = dict.fromkeys(said, 0.0)
    for text, (reference, probability) in product(said, said.items()):
        expected[text] += probability * bleu.sentence_score(text, [reference]).score / 100
    found = ceiling(meaning)
    assert found.best == pytest.approx(max(expected.values()), abs=1e-12)
    assert found.greedy == pytest.approx(expected[found.greedy_text], abs=1e-12)


@pytest.mark.slow
def test_likelihood_leaves_a_known_gap_of_expected_bleu_on_the_test_split() -> None:
    data = Grammar(corpus_seed=1, val_size=200, test_size=SOURCES, max_source_length=32, overlong="truncate")
    meanings = [Meaning.parse(data.example("test", i).columns["meaning"]) for i in range(SOURCES)]
    each = [ceiling(meaning) for meaning in meanings]
    greedy, best = (sum(values) / SOURCES for values in zip(*((c.greedy, c.best) for c in each), strict=True))
    print(f"true greedy {greedy:.6f}  best {best:.6f}  gap {best - greedy:.6f}")
    assert (greedy, best) == pytest.approx((TRUE_GREEDY, BEST), abs=5e-5)
    assert best - greedy >= 0.10
