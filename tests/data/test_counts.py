"""Findings about tokens that are unknown, sources that are cut, and sources that are in train, too."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tokenrl_cli.data.counts import (
    Unread,
    fault_findings,
    lossy_finding,
    split_findings,
    unknown_finding,
    unknown_share,
)
from tokenrl_cli.data.encoding import Ragged
from tokenrl_cli.interfaces import Example, UserError
from tokenrl_cli.tokenizer.bpe import Bpe
from tokenrl_cli.tokenizer.word import Word


@dataclass
class Pairs:
    """A data set of (source, reference) pairs by split; None is an unlimited split, which must not be read."""

    pairs: dict[str, list[tuple[str, str]] | None]
    max_source_length: int = 4
    overlong: str = "truncate"

    def size(self, split: str) -> int | None:
        pairs = self.pairs[split]
        return None if pairs is None else len(pairs)

    def example(self, split: str, index: int) -> Example:
        pairs = self.pairs[split]
        assert pairs is not None, f"{split} is unlimited"
        source, reference = pairs[index]
        return Example(str(index), source, [reference], [reference], {})


def words(*known: str) -> Word:
    tokenizer = Word(100, 1)
    tokenizer.train(known)
    return tokenizer


def said(dataset: Pairs, source: str, target: str) -> list[tuple[str, str, str]]:
    return [(each.rule, each.severity, each.text) for each in split_findings(dataset, words(source), words(target))]


def test_unknown_tokens_of_val_and_test_are_findings_and_many_are_a_warning() -> None:
    known, few = ("a b c", "x y"), ("a b c", "x " * 19 + "new")
    data = Pairs({"train": None, "val": [known, few], "test": [("p q", "r"), ("a r", "x")]})
    remedy = ": it knows the words of train, tokenizer=bpe every text"
    assert said(data, "a b c", "x y") == [
        ("unknown_target_tokens", "note", "val: 1 of 22 target tokens (4.5 %) is unknown to the tokenizer"),
        (
            "unknown_source_tokens",
            "warning",
            f"test: 3 of 4 source tokens (75.0 %) are unknown to the tokenizer{remedy}",
        ),
        (
            "unknown_target_tokens",
            "warning",
            f"test: 1 of 2 target tokens (50.0 %) is unknown to the tokenizer{remedy}",
        ),
    ]


def test_nothing_is_said_where_nothing_is_and_unlimited_splits_are_not_read() -> None:
    pairs = [("a", "x")]
    assert said(Pairs({"train": [("b", "x")], "val": pairs, "test": None}), "a b", "x") == []
    assert said(Pairs({"train": None, "val": None, "test": None}), "a", "x") == []
    everything = Bpe(300, 1)
    data = Pairs({"train": None, "val": pairs, "test": [("\u0915", "\u0915")]})
    assert split_findings(data, everything, everything) == []


def test_sources_of_val_and_test_that_stand_in_train_are_counted_as_exact_text() -> None:
    train = [("a b", "x"), ("c", "x"), ("", "x")]
    val, test = [("a b", "z"), ("c ", "x"), ("C", "x"), ("c", "x")], [("c", "x"), ("", "x")]
    found = said(Pairs({"train": train, "val": val, "test": test}), "a b c C", "x z")
    assert found[-2:] == [
        ("sources_in_train", "note", "2 of 4 sources of val stand in train"),
        ("sources_in_train", "note", "1 of 2 sources of test stands in train"),
    ]


def test_a_column_with_a_name_that_a_reward_function_is_given_is_said_once() -> None:
    class Columns(Pairs):
        def example(self, split: str, index: int) -> Example:
            return Example("0", "a", ["x"], ["x"], {"step": 1, "topic": "t"})

    (found,) = said(Columns({"train": None, "val": [("a", "x")], "test": [("a", "x")]}), "a", "x")
    assert found[:2] == ("hidden_column", "note")
    assert found[2].startswith("the column 'step' of the data may not")


def test_sources_that_are_cut_are_counted() -> None:
    found = said(Pairs({"train": None, "val": [("a a a a a", "x"), ("a", "x")], "test": None}), "a", "x")
    text = "val: 1 of 2 sources is longer than dataset.max_source_length=4 tokens: truncated"
    assert found == [("overlong_sources", "note", text)]


@pytest.mark.parametrize(("unknown", "severity"), [(10, "note"), (11, "warning")])
def test_above_a_tenth_unknown_tokens_are_a_warning(unknown: int, severity: str) -> None:
    (found,) = unknown_finding("test", "source", unknown, 100)
    assert (found.severity, found.key) == (severity, "tokenizer")


def test_a_share_that_is_there_is_never_zero() -> None:
    assert unknown_share(17, 2400, "source") == "17 of 2,400 source tokens (0.7 %) are"
    assert unknown_share(1, 24000, "target") == "1 of 24,000 target tokens (less than 0.1 %) is"
    assert unknown_finding("val", "source", 0, 0) == []


class Known(Word):
    """A tokenizer that has an id for unknown words, or none."""

    def __init__(self, unknown_id: int | None) -> None:
        self.unknown_id = unknown_id  # type: ignore[assignment]


def test_what_a_model_did_not_read_is_one_sentence_over_all_batches() -> None:
    counts = Unread(Known(1), 3)
    assert counts.sentence() == ""
    counts.add(Ragged([[2, 2, 2, 1, 1], [2]], 3))  # what is cut off counts once
    assert counts.sentence() == "1 of 2 sources was longer than 3 tokens and was cut"
    counts.add(Ragged([[2, 2, 2, 2], [1, 1, 2]], 3))
    cut = "2 of 4 sources were longer than 3 tokens and were cut"
    assert counts.sentence() == f"{cut}; 2 of 10 source tokens (20.0 %) are unknown"
    never = Unread(Known(None), 3)
    never.add(Ragged([[1]], 3))
    assert never.sentence() == ""


class Lower(Word):
    """A tokenizer that writes lower case only."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text.lower())


def test_the_share_of_references_that_come_back_from_the_tokenizer_is_a_finding() -> None:
    tokenizer = Lower(100, 1)
    tokenizer.train(["ab cd e"])
    texts = ["ab", "Cd ab", "E", "unknown Words", "cd", "e ab"]
    (found,) = lossy_finding("val", texts, [tokenizer.encode(text) for text in texts], tokenizer)
    assert (found.rule, found.severity, found.key) == ("lossy_tokenizer", "note", "tokenizer")
    assert found.text == (
        "val: 3 of 5 references (60.0 %) come back from the tokenizer as they are; others do not, such as "
        '"E", which comes back as "e": no policy can generate these; a metric may ignore case: '
        "metrics.bleu.lowercase=true"
    )
    same = ["ab", "cd"]
    assert lossy_finding("val", same, [tokenizer.encode(text) for text in same], tokenizer) == []
    data = Pairs({"train": None, "val": [("ab", "Ab")], "test": [("ab", "ab")]})
    assert [each.rule for each in split_findings(data, tokenizer, tokenizer)] == ["lossy_tokenizer"]


def test_half_of_a_surrogate_pair_is_no_loss() -> None:
    tokenizer = Bpe(300, 1)
    assert lossy_finding("val", ["a\ud800"], [tokenizer.encode("a\ud800")], tokenizer) == []


def test_a_fixed_vocabulary_gets_no_advice_to_train_another() -> None:
    (found,) = unknown_finding("val", "target", 5, 10, fixed=True)
    assert "its vocabulary is fixed" in found.text
    assert "bpe" not in found.text


@dataclass
class Faulty(Pairs):
    """A data set that has left out examples."""

    faults: dict[str, list[UserError]] = field(default_factory=dict)


def test_examples_left_out_for_their_files_are_a_warning_with_their_number_and_the_first() -> None:
    pairs = {"train": [("a", "b")] * 3, "val": [("a", "b")]}
    left = [UserError("m.jsonl, line 2", "a.wav: is empty"), UserError("m.jsonl, line 4", "b.wav: is silent")]
    (found,) = fault_findings(Faulty(pairs, faults={"train": left, "val": []}), ("train", "val"))
    assert (found.rule, found.severity, found.key) == ("faulty_files", "warning", "dataset.faulty")
    assert found.text.startswith("train: 2 of 5 examples are left out for faults of their files")
    assert found.text.endswith("the first is m.jsonl, line 2: a.wav: is empty")
    assert fault_findings(Pairs(pairs), ("train", "val")) == []
