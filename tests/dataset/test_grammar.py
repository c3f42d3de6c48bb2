"""The embedded translation data set."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tokenrl_cli.dataset.grammar import Grammar, split_of
from tokenrl_cli.tasks.grammar import Meaning, english, translations


def grammar(**changes: Any) -> Grammar:
    values = {"corpus_seed": 1, "val_size": 20, "test_size": 30, "max_source_length": 32, "overlong": "truncate"}
    return Grammar(**(values | changes))


def test_an_example_is_a_function_of_the_corpus_seed_the_split_and_the_index() -> None:
    one, same, other = grammar(), grammar(), grammar(corpus_seed=2)
    backwards = [same.example("train", i) for i in reversed(range(50))][::-1]
    assert [one.example("train", i) for i in range(50)] == backwards
    for split in ("train", "val", "test"):
        assert [one.example(split, i).source for i in range(20)] != [other.example(split, i).source for i in range(20)]


def test_no_source_of_a_split_can_occur_in_another() -> None:
    data = grammar()
    for split in ("train", "val", "test"):
        assert {split_of(data.example(split, i).source) for i in range(200)} == {split}
    sources = [f"sentence {i}" for i in range(20_000)]
    assert sum(split_of(source) == "train" for source in sources) == pytest.approx(18_000, abs=200)


def test_an_example_carries_its_meaning_and_one_of_its_translations() -> None:
    data = grammar()
    for i in range(50):
        example = data.example("val", i)
        meaning = Meaning.parse(example.columns["meaning"])
        assert english(meaning) == example.source
        assert example.references == example.demonstrations
        assert len(example.references) == 1
        assert example.references[0] in translations(meaning)


def test_train_is_unlimited_and_the_other_splits_have_their_sizes() -> None:
    data = grammar()
    assert (data.size("train"), data.size("val"), data.size("test")) == (None, 20, 30)
    assert data.example("train", 2**31).source


def test_an_example_takes_few_calls() -> None:
    """Calls are counted, not timed: 135 of them, 22 microseconds on a quiet core."""
    data, calls = grammar(), 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for i in range(200):
            data.example("train", i)
    finally:
        sys.setprofile(None)
    assert 200 < calls < 200 * 400


def test_a_split_that_there_is_not_has_no_example() -> None:
    with pytest.raises(KeyError):
        grammar().example("dev", 0)
