from __future__ import annotations

from typing import Any

import pytest

from tokenrl_cli.dataset.sequence_task import SequenceTask
from tokenrl_cli.interfaces import Dataset, UserError


def dataset(**changes: Any) -> SequenceTask:
    values: dict[str, Any] = {"task": "copy", "symbols": 12, "min_symbols": 2, "max_symbols": 6, "corruption": 0.0}
    values |= {"corpus_seed": 1, "val_size": 20, "test_size": 30, "max_source_length": 10, "overlong": "truncate"}
    return SequenceTask(**(values | changes))


@pytest.mark.parametrize(
    ("task", "solve"), [("copy", list), ("reverse", lambda words: words[::-1]), ("sort", lambda w: sorted(w, key=int))]
)
def test_the_reference_solves_the_task(task: str, solve: Any) -> None:
    data = dataset(task=task)
    lengths = set()
    for i in range(200):
        example = data.example("train", i)
        words = example.source.split(" ")
        assert example.references == example.demonstrations == [" ".join(solve(words))]
        lengths.add(len(words))
    assert lengths == {2, 3, 4, 5, 6}


def test_example_i_is_a_pure_function_of_corpus_seed_split_and_i() -> None:
    one, other = dataset(corruption=0.5), dataset(corruption=0.5)
    forwards = [one.example("train", i) for i in range(20)]
    assert forwards == [other.example("train", i) for i in reversed(range(20))][::-1]
    assert forwards != [dataset(corruption=0.5, corpus_seed=2).example("train", i) for i in range(20)]


def test_train_is_unlimited_and_the_splits_draw_from_streams_of_their_own() -> None:
    data = dataset()
    assert isinstance(data, Dataset)
    assert [data.size(split) for split in ("train", "val", "test")] == [None, 20, 30]
    firsts = {split: [data.example(split, i).source for i in range(20)] for split in ("train", "val", "test")}
    assert firsts["train"] != firsts["val"] != firsts["test"] != firsts["train"]
    assert data.example("train", 2**31 - 1).source


@pytest.mark.parametrize("symbols", [2, 12])
def test_symbols_are_replaced_by_a_different_one_at_the_stated_rate_and_the_reference_stays(symbols: int) -> None:
    noisy, clean = dataset(corruption=0.3, symbols=symbols), dataset(symbols=symbols)
    wrong = total = 0
    for i in range(1500):
        example = noisy.example("train", i)
        assert example.references == clean.example("train", i).references
        pairs = list(zip(example.references[0].split(), example.demonstrations[0].split(), strict=True))
        assert all(0 <= int(said) < symbols for _, said in pairs)
        wrong += sum(right != said for right, said in pairs)
        total += len(pairs)
    assert abs(wrong / total - 0.3) < 4 * (0.3 * 0.7 / total) ** 0.5


def test_full_corruption_leaves_no_symbol_right_and_spreads_over_the_others() -> None:
    data = dataset(corruption=1.0, symbols=4)
    said = set()
    for i in range(200):
        example = data.example("train", i)
        pairs = list(zip(example.references[0].split(), example.demonstrations[0].split(), strict=True))
        assert all(a != b for a, b in pairs)
        said |= set(pairs)
    assert len(said) == 4 * 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_symbols", 0),
        ("min_symbols", 7),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{key}"):
        dataset(**{key: value})
