"""Error rates are jiwer's; of several references the best counts."""

from __future__ import annotations

import itertools
from typing import Any

import jiwer
import numpy as np
import pytest

from tests.reward.said import GOLDEN, assert_length_does_not_pay, error_rate, texts
from tokenrl_cli.interfaces import SettingError
from tokenrl_cli.metrics.text_normalisation import TextNormalisation

LIBRARY: list[tuple[Any, Any]] = [("words", jiwer.wer), ("characters", jiwer.cer), ("phones", jiwer.wer)]


@pytest.mark.parametrize(("unit", "rate"), LIBRARY)
@pytest.mark.parametrize(("hypothesis", "references"), GOLDEN)
def test_the_reward_is_1_less_the_smallest_rate(unit: Any, rate: Any, hypothesis: str, references: list[str]) -> None:
    (score,) = error_rate(unit)(texts([(hypothesis, references)]))
    assert abs(score - (1 - min(rate(reference, hypothesis) for reference in references))) < 1e-12


def test_known_numbers() -> None:
    rows = [("the cat sat", ["the cat sat"]), ("the dog sat down", ["the cat sat"]), ("", ["a b"]), ("a b c", ["x"])]
    assert error_rate("words")(texts(rows)).tolist() == [1, 1 - 2 / 3, 0, -2]
    assert error_rate("characters")(texts([("abd", ["abc"]), (" ab ", ["ab"])])).tolist() == [1 - 1 / 3, 1]


def test_an_empty_reference_counts_insertions() -> None:
    assert error_rate("words")(texts([("a b", [""]), ("", [""])])).tolist() == [1 - jiwer.wer("", "a b"), 1]


def test_a_single_tab_divides_phones_but_not_words() -> None:
    seen = texts([("a\tb", ["a b"])])
    assert error_rate("words")(seen)[0] == 1 - jiwer.wer("a b", "a\tb") == -0.0
    assert error_rate("phones")(seen)[0] == 1


@pytest.mark.parametrize(("unit", "rate"), LIBRARY)
def test_the_corpus_rate_and_that_of_any_part_are_jiwers(unit: Any, rate: Any) -> None:
    rows = [(hypothesis, references[:1]) for hypothesis, references in GOLDEN]
    corpus = error_rate(unit).corpus(texts(rows))
    for part in (slice(None), slice(2, 6), slice(3, 7), slice(11, 12)):
        expected = rate([references[0] for _, references in rows[part]], [text for text, _ in rows[part]])
        assert abs(corpus.aggregate(corpus.statistics[part].sum(0)) - expected) < 1e-12
    assert corpus.lower_is_better
    assert corpus.value == corpus.aggregate(corpus.statistics.sum(0))


def test_of_several_references_the_corpus_takes_each_texts_best() -> None:
    rows = [("a b c", ["x y z", "a b d"]), ("a", ["a", "b c"])]
    corpus = error_rate("words").corpus(texts(rows))
    assert corpus.value == 1 / 4
    assert corpus.sentences.tolist() == [1 / 3, 0]
    assert corpus.signature.startswith("wer|refs:best|")


def test_a_text_without_a_reference_has_no_score_and_does_not_move_the_others() -> None:
    rows = [("a b", ["a c"]), ("a", [])]
    assert np.isnan(error_rate("words")(texts(rows))).tolist() == [False, True]
    corpus = error_rate("words").corpus(texts(rows))
    assert corpus.value == 0.5
    assert np.isnan(corpus.sentences[1])


@pytest.mark.parametrize(("unit", "name"), [("words", "wer"), ("characters", "cer"), ("phones", "per")])
def test_each_preset_is_logged_by_its_own_name(unit: Any, name: str) -> None:
    assert error_rate(unit).name == name


@pytest.mark.parametrize("unit", ["words", "characters", "phones"])
def test_length_does_not_pay(unit: Any) -> None:
    assert_length_does_not_pay(error_rate(unit))


def test_without_any_reference_a_corpus_has_no_rate() -> None:
    corpus = error_rate("words").corpus(texts([("a b", []), ("c", [])]))
    assert np.isnan(corpus.value)
    assert np.isnan(corpus.sentences).all()


# ------------------------------------------------------------------------------------------------ weights of the errors


def test_weights_of_errors_by_hand() -> None:
    rows = [("a x c", ["a b c d"]), ("a b c d e", ["a b c d"]), ("", ["a b"]), ("a b", [""]), ("x", ["a"])]
    found = error_rate("words", substitution=2.0, deletion=0.5, insertion=3.0)(texts(rows))
    assert found.tolist() == [1 - (2 + 0.5) / 4, 1 - 3 / 4, 0.5, 1 - 6, -1.0]
    cheaper = error_rate("words", substitution=5.0, deletion=0.5, insertion=3.0)
    assert cheaper(texts(rows[-1:])).tolist() == [1 - 3.5]  # one word too many and one missing instead of a wrong one


def test_the_best_reference_is_that_of_the_weighted_rate_in_the_corpus_too() -> None:
    rows = [("a b c", ["a b", "a x c"])]  # one word too many, or one that is wrong
    assert error_rate("words").corpus(texts(rows)).value == 1 / 3
    corpus = error_rate("words", substitution=2.0, insertion=0.5).corpus(texts(rows))
    assert corpus.value == corpus.sentences[0] == 0.25
    assert corpus.statistics.tolist() == [[0.5, 2.0]]


def test_the_signature_names_weights_and_what_was_done_to_the_texts() -> None:
    rows = [("a", ["a"])]
    plain = error_rate("words").corpus(texts(rows)).signature
    assert "|substitution:1|deletion:1|insertion:1|case:keep|punctuation:keep|numbers:keep|" in plain
    other = error_rate("words", deletion=0.5, lowercase=True, punctuation="remove").corpus(texts(rows)).signature
    assert "|substitution:1|deletion:0.5|insertion:1|case:lower|punctuation:remove|numbers:keep|" in other


COMPLETIONS = ["".join(word) for n in range(5) for word in itertools.product("ab", repeat=n)]  # 31 words of 2 letters


@pytest.mark.parametrize("weights", [(1, 1, 1), (2, 1, 0.5), (0.5, 0.25, 1), (4, 1, 1)])
def test_rewards_of_letters_sum_to_the_score_and_promise_what_the_best_completion_gets(weights: Any) -> None:
    """By listing all 31 texts of at most 4 letters: the promise is that of those that begin with the prefix."""
    named = dict(zip(("substitution", "deletion", "insertion"), weights, strict=True))
    reward = error_rate("characters", **named)
    for references in (["aba"], ["b", "ab"], [""]):
        scores = dict(zip(COMPLETIONS, reward(texts([(each, references) for each in COMPLETIONS])), strict=True))
        seen = texts([(each, references) for each in COMPLETIONS], [max(1, len(each)) for each in COMPLETIONS])
        prefixes = [[each[:t] for t in range(len(each) + 1)] for each in COMPLETIONS]
        grown, promised = reward.prefix_scores(seen, prefixes), reward.completion_scores(seen, prefixes)
        for row, text in enumerate(COMPLETIONS):
            assert grown[row, : len(text) + 1] == pytest.approx([scores[text[:t]] for t in range(len(text) + 1)])
            assert promised[row, len(text)] == pytest.approx(scores[text])
            best = [max(s for whole, s in scores.items() if whole.startswith(text[:t])) for t in range(len(text))]
            # A reference of r letters needs at most r more: longer texts than those listed would not score higher.
            short = [t for t in range(len(text)) if t + max(map(len, references)) <= 4]
            assert promised[row, short] == pytest.approx([best[t] for t in short])
            assert np.diff(grown[row]).sum() == pytest.approx(scores[text] - scores[""])


# ------------------------------------------------------------------------------------------- what is done to the texts


def test_texts_and_references_are_changed_alike_and_prefixes_as_they_stand() -> None:
    rows = [("Don't, GO!", ["don\u2019t go"]), ("well-known", ["Well known."])]
    assert error_rate("words")(texts(rows)).tolist() == [0.0, 0.0]
    for unit in ("words", "characters", "phones"):
        reward = error_rate(unit, lowercase=True, punctuation="remove")
        assert reward(texts(rows)).tolist() == [1.0, 1.0]
        assert reward.corpus(texts(rows)).value == 0
    reward, plain = error_rate("characters", lowercase=True, punctuation="remove"), error_rate("characters")
    prefixes = [[rows[0][0][:t] for t in range(11)], [rows[1][0][:t] for t in range(11)]]
    changed = [[reward.normalised(each) for each in row] for row in prefixes]
    goals = texts([(text, [reward.normalised(ref) for ref in refs]) for text, refs in rows], [10, 10])
    assert "don" in changed[0]  # of "Don'": an apostrophe at the end is not inside a word yet
    for method in ("prefix_scores", "completion_scores"):
        found = getattr(reward, method)(texts(rows, [10, 10]), prefixes)
        assert found.tolist() == getattr(plain, method)(goals, changed).tolist()


def test_a_reference_of_punctuation_alone_becomes_empty_and_counts_insertions() -> None:
    assert error_rate("words", punctuation="remove")(texts([("a b", ["..."]), ("!", ["..."])])).tolist() == [-1, 1]


def test_each_reference_is_changed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    change = TextNormalisation.__call__
    monkeypatch.setattr(TextNormalisation, "__call__", lambda self, text: seen.append(text) or change(self, text))
    reward = error_rate("words", lowercase=True)
    for _ in range(3):
        reward(texts([("x", ["THE REFERENCE", "OTHER"])] * 2))
    assert sorted(seen) == ["OTHER", "THE REFERENCE"] + ["x"] * 6


def test_numbers_as_words_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenrl_cli.config.extras.find_spec", lambda name: None)
    with pytest.raises(SettingError, match="num2words") as error:
        error_rate("words", numbers="words")
    assert "tokenrl[speech]" in str(error.value)


def test_numbers_as_words_are_compared() -> None:
    pytest.importorskip("num2words")
    reward = error_rate("words", numbers="words")
    assert reward(texts([("21 cats", ["twenty one cats"])])).tolist() == [1.0]
    found = reward.prefix_scores(texts([("21", ["twenty one"])], [2]), [["", "2", "21"]])
    assert found.tolist() == [[0.0, 0.0, 1.0]]
