"""Every metric equals its reference library on every prefix of a text, as a tokenizer decodes them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, islice
from typing import Any

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from tests.real_data import real
from tests.reward.said import error_rate, texts
from tokenrl_cli.reward.bleu import Bleu
from tokenrl_cli.reward.chrf import Chrf
from tokenrl_cli.reward.rouge import Rouge
from tokenrl_cli.tokenizer.bpe import Bpe

Score = Callable[[str, list[str]], float]

# ---------------------------------------------------------------------------------------------------------- the texts

PIECES = [
    "the", " the", " cat", " cat", " sat", "s", " on", " mat", ".", ",", " .", "5", ".5", " 5.", "-", "3-", "'s", "&",
    "amp;", "&quot;", "<skip", "ped>", "<unk>", "</s>", " ", "  ", "\t", "\n", "-\n", "\u00a0", "\u2003", "\u3000",
    "\x1c",
    "\u00e9", "e\u0301", "\u0130", "\u03a3", "\u03bf\u03a3", "\u0391", "\u00df", "\u732b", " \u732b", "\u30cd\u30b3",
    "\U0001f408", "\u200d", "\ufffd", "\u201e", "\u20ac", "\u00bd", "\uff0c",
    "running", " Runs", "(hi)", "a", "\ud800",
]  # fmt: skip
FEW = [" a", " b", " a b", "a"]
pieces = st.lists(st.sampled_from(PIECES), max_size=14) | st.lists(st.sampled_from(FEW), max_size=30)
pieces = pieces | st.lists(st.text(max_size=3), max_size=8)
references = st.lists(pieces.map("".join), min_size=1, max_size=8)
rows = st.lists(st.tuples(pieces, references), min_size=1, max_size=4)

HARD = [
    (["It", " cost", " 5", ".", "3", " ."], ["It cost 5.3 .", "It cost 5 .", ""]),
    (["a", "-", "\n", "b", " c"], ["ab c", "a- b c"]),
    (["\u039f", "\u03a3", "\u0391", " \u03a3"], ["\u03bf\u03c3\u03b1 \u03c3", "\u039f\u03a3"]),
    ([" .", "5", " .5", " 5."], [".5 .5 5.", " .5"]),
    (["a", "\t", "b", " ", "\t", "c"], ["a\tb c", "a b c"]),
    ([" ", " ", "a"], ["a"]),
    (["5", ".", " ", "x", " "], ["5 . x"]),
    ([], [""]),
    (["a"], ["", "a b c d"]),
]


def grown(parts: Sequence[str]) -> list[str]:
    return list(accumulate(parts, initial=""))


def assert_equal(reward: Any, score: Score, said: Sequence[tuple[Sequence[str], list[str]]], every: int = 1) -> None:
    """Asserts that scores of prefixes and of whole texts equal the library, which is asked about each of `every`
    prefixes; shorter rows repeat their last prefix."""
    prefixes = [grown(parts) for parts, _ in said]
    seen = texts([(strings[-1], refs) for strings, (_, refs) in zip(prefixes, said, strict=True)])
    found = reward.prefix_scores(seen, prefixes)
    width = max(map(len, prefixes))
    assert found.shape == (len(said), width)
    for row, (strings, (_, refs)) in enumerate(zip(prefixes, said, strict=True)):
        expected = np.array([score(string, refs) for string in strings[::every]])
        assert np.abs(found[row, : len(strings) : every] - expected).max() <= 1e-9, (strings, refs)
        assert (found[row, len(strings) :] == found[row, len(strings) - 1]).all()
    assert np.abs(reward(seen) - found[:, -1]).max() <= 1e-12


# ------------------------------------------------------------------------------------------------------- the libraries


def bleu(order: int, smoothing: Any, value: float | None, effective: bool, tokenize: Any, lowercase: bool) -> Score:
    metric = BLEU(lowercase, True, tokenize, smoothing, value, order, effective)  # force: no advice
    return lambda text, refs: metric.corpus_score([text], [[ref] for ref in refs]).score / 100


def chrf(*values: Any) -> Score:
    metric = CHRF(values[0], values[1], values[2], values[4], values[3])
    return lambda text, refs: metric.sentence_score(text, refs).score / 100


def rouge(variant: str, measure: str, stemmer: bool) -> Score:
    metric = RougeScorer([variant], use_stemmer=stemmer)
    return lambda text, refs: getattr(metric.score_multi(refs, text)[variant], measure)


def jiwers(rate: Callable[[str, str], Any]) -> Score:
    return lambda text, refs: 1 - min(float(rate(ref, text)) for ref in refs)


def phones(reference: str, text: str) -> float:
    return jiwer.wer(" ".join(reference.split()), " ".join(text.split()))


SMOOTHINGS = [("exp", None), ("none", None), ("floor", None), ("floor", 0.01), ("add-k", None), ("add-k", 0.5)]
BLEUS = [
    (4, smoothing, value, effective, "13a", False) for smoothing, value in SMOOTHINGS for effective in (True, False)
]
BLEUS += [
    (4, "exp", None, True, tokenize, low) for tokenize in ("none", "char", "intl", "zh", "13a") for low in (True, False)
]
BLEUS += [
    (1, "exp", None, True, "13a", False),
    (2, "add-k", 1.0, True, "none", True),
    (6, "floor", 0.1, True, "char", False),
]
CHRFS = [
    (6, 0, 2, False, False),
    (6, 2, 2, True, True),
    (1, 1, 1, False, True),
    (3, 2, 3, True, False),
    (6, 2, 2, False, False),
]
ROUGES = [
    (variant, measure, stemmer)
    for variant in ("rouge1", "rouge2", "rouge3", "rougeL")
    for measure, stemmer in (("fmeasure", False), ("precision", True), ("recall", False), ("fmeasure", True))
]
METRICS: dict[str, Callable[[], tuple[Any, Score]]] = {
    **{f"bleu {values}": lambda v=values: (Bleu(*v), bleu(*v)) for values in BLEUS},
    **{f"chrf {values}": lambda v=values: (Chrf(*v), chrf(*v)) for values in CHRFS},
    **{f"rouge {values}": lambda v=values: (Rouge(*v), rouge(*v)) for values in ROUGES},
    "wer": lambda: (error_rate("words"), jiwers(jiwer.wer)),
    "cer": lambda: (error_rate("characters"), jiwers(jiwer.cer)),
    "per": lambda: (error_rate("phones"), jiwers(phones)),
}
MAIN = [name for name in METRICS if name in ("wer", "cer", "per")] + [
    f"bleu {BLEUS[0]}", f"chrf {CHRFS[0]}", f"chrf {CHRFS[1]}", f"rouge {ROUGES[0]}", f"rouge {ROUGES[-1]}"
]  # fmt: skip


@cache
def pair(name: str) -> tuple[Any, Score]:
    return METRICS[name]()  # kept: ids of words must stay right over many batches


# ----------------------------------------------------------------------------------------------------------- the tests


@pytest.mark.sample(16)
@pytest.mark.parametrize("name", METRICS)
def test_hard_texts(name: str) -> None:
    assert_equal(*pair(name), HARD)


@pytest.mark.sample(10)
@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=15, deadline=None)
@given(rows)
def test_any_text(name: str, said: list[tuple[list[str], list[str]]]) -> None:
    assert_equal(*pair(name), said)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", MAIN)
def test_two_hundred_tokens_against_eight_references(name: str) -> None:
    random = np.random.default_rng(1)
    words = [" " + "".join(random.choice(list("abcde.,5-"), random.integers(1, 4))) for _ in range(40)]

    def text(size: int) -> list[str]:
        return random.choice(words, size).tolist()

    said = [
        (text(200), ["".join(text(int(size))) for size in random.integers(1, 220, 8)]),
        (text(1), ["".join(text(200))]),
    ]
    assert_equal(*pair(name), said, every=1 if name in ("wer", "cer", "per") else 7)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", MAIN)
@pytest.mark.parametrize("data", ["e2e_nlg", "tatoeba_en_de", "g2p_cmudict", "scitldr"])
def test_real_text_said_in_sub_words_of_its_own(data: str, name: str) -> None:
    """Scores a reference of one example against the references of another and of its own."""
    with gzip.open(next(real(data).glob("test.jsonl.gz")), "rt", encoding="utf-8") as lines:
        examples = [json.loads(line)["refs"] for line in islice(lines, 12)]
    bpe = Bpe(400, 1)
    bpe.train([text for refs in examples for text in refs])
    reward, score = pair(name)
    said = [bpe.prefixes(bpe.encode(refs[0])[:60]) for refs in examples]
    goals = [[*refs[:3], *other[:1]] for refs, other in zip(examples, examples[1:] + examples[:1], strict=True)]
    found = reward.prefix_scores(texts([(strings[-1], refs) for strings, refs in zip(said, goals, strict=True)]), said)
    for row, (strings, refs) in enumerate(zip(said, goals, strict=True)):
        assert np.abs(found[row, : len(strings)] - [score(string, refs) for string in strings]).max() <= 1e-9


@cache
def byte_pairs() -> Bpe:
    bpe = Bpe(300, 1)
    bpe.train(
        [
            "the cat sat on the mat .",
            "Gr\u00fc\u00dfe, \u732b und 5.30 \u20ac!",
            "\U0001f408 \u0928\u092e\u0938\u094d\u0924\u0947",
        ]
        * 3
    )
    return bpe


@pytest.mark.parametrize("name", MAIN)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 280), max_size=40), references)
def test_half_words_and_half_characters_of_any_sampled_ids(name: str, ids: list[int], refs: list[str]) -> None:
    reward, score = pair(name)
    bpe = byte_pairs()
    strings = bpe.prefixes([i % bpe.size for i in ids])
    found = reward.prefix_scores(texts([(strings[-1], refs)]), [strings])
    assert np.abs(found[0] - [score(string, refs) for string in strings]).max() <= 1e-9


@pytest.mark.parametrize("name", MAIN)
def test_a_row_without_a_reference_has_no_score_and_changes_no_other(name: str) -> None:
    reward, _ = pair(name)
    rows = [("the cat", ["the cat sat"]), ("the", []), ("", ["a"])]
    prefixes = [["", "the", "the cat"], ["", "the"], [""]]
    found = reward.prefix_scores(texts(rows), prefixes)
    assert np.isnan(found[1]).all()
    assert not np.isnan(found[[0, 2]]).any()
    alone = reward.prefix_scores(texts(rows[:1]), prefixes[:1])
    assert (found[0] == alone[0]).all()
    assert np.isnan(reward(texts(rows[1:2]))).all()


@pytest.mark.parametrize("name", MAIN)
def test_no_prefix_depends_on_a_later_token(name: str) -> None:
    reward, _ = pair(name)
    parts = ["It", " cost", " 5", ".", "3", "0", " eur", "os", "."]
    refs = ["It cost 5.30 euros .", "5. eur"]
    whole = reward.prefix_scores(texts([("".join(parts), refs)]), [grown(parts)])[0]
    for t in range(len(parts)):
        other = [*parts[:t], " zebra", "-", "5", "\u00e9"]
        assert (
            reward.prefix_scores(texts([("".join(other), refs)]), [grown(other)])[0][: t + 1] == whole[: t + 1]
        ).all()


def test_a_full_memory_of_words_is_emptied_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenrl_cli.metrics.growth.REMEMBERED", 20)
    reward, score = Bleu(*BLEUS[0]), bleu(*BLEUS[0])
    for batch in range(6):
        words = [f" word{batch}{i}." for i in range(9)]
        assert_equal(reward, score, [(words, ["".join(words[::-1]), "".join(words[:4])])])
        assert len(reward.words._starts) < 60
