from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from tests.real_data import real
from tokenrl_cli.data.batching import SEEN, Batching, evaluation_batches, source_batch, training_texts
from tokenrl_cli.data.encoding import Encoded, Ragged
from tokenrl_cli.dataset.jsonl import Jsonl
from tokenrl_cli.dataset.sequence_task import SequenceTask
from tokenrl_cli.interfaces import Batch, Example, UserError
from tokenrl_cli.tokenizer.word import Word


class Listed:
    """A data set whose example i contains the number i in its source, references and demonstrations; lengths vary."""

    def __init__(self, size: int | None, references: int = 3, max_source_length: int = 99, overlong: str = "truncate"):
        self._size, self.references = size, references
        self.max_source_length, self.overlong = max_source_length, overlong

    def size(self, split: str) -> int | None:
        return self._size

    def example(self, split: str, index: int) -> Example:
        i = index % 1000
        source = f"s{i}" + " x" * (i * 7 % 10)
        references = [f"r{i}k{k}" + " y" * ((i + k) * 3 % 8) for k in range(self.references)]
        demonstrations = [text.replace("r", "d", 1) for text in references]
        return Example(str(index), source, references, demonstrations, {"number": i})


def words(dataset: Any) -> Word:
    tokenizer = Word(100_000, 1)
    examples = [dataset.example("train", i) for i in range(1000)]
    tokenizer.train(text for e in examples for text in [e.source, *e.references, *e.demonstrations])
    return tokenizer


def batching(dataset: Any, batch_size: int = 4, max_length: int = 99, seed: int = 1) -> Batching:
    tokenizer = words(dataset)
    return Batching(dataset, "train", batch_size, tokenizer, tokenizer, max_length, seed)


def same(one: Batch, other: Batch) -> bool:
    for field in fields(Batch):
        if field.name == "read_sources":
            continue
        left, right = getattr(one, field.name), getattr(other, field.name)
        if not (torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right):
            return False
    return True


def texts(tokenizer: Word, ids: torch.Tensor, mask: torch.Tensor) -> list[str]:
    return [tokenizer.decode(row[keep].tolist()) for row, keep in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("size", [30, None])
@pytest.mark.parametrize("overlong", ["truncate", "drop"])
def test_a_batch_is_a_pure_function_of_seed_and_step(size: int | None, overlong: str) -> None:
    steps = [0, 1, 70, 3, 120, 1, 0]
    one, other = (batching(Listed(size, overlong=overlong), max_length=8) for _ in range(2))
    first = {step: one.batch(step) for step in steps}
    assert all(same(first[step], other.batch(step)) for step in reversed(steps))
    assert all(first[step].step == step for step in steps)
    assert not same(first[0], batching(Listed(size, overlong=overlong), max_length=8, seed=2).batch(0))


def test_every_example_comes_once_an_epoch_and_the_last_batch_is_filled_from_the_start_of_the_permutation() -> None:
    data = batching(Listed(30))
    assert data.batches_per_chapter == 8
    orders = []
    for epoch in range(3):
        numbers = [n for step in range(8) for n in data.batch(8 * epoch + step).columns["number"]]
        counts = np.bincount(numbers, minlength=30)
        assert len(numbers) == 32
        assert counts.min() == 1
        assert counts.sum() == 32
        assert counts.max() == 2
        orders.append(numbers)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("alike_lengths", [True, False])
def test_every_example_comes_once_in_an_epoch_of_several_pools(alike_lengths: bool) -> None:
    """130 batches are cut from three pools."""
    dataset = Listed(260)
    tokenizer = words(dataset)
    data = Batching(dataset, "train", 2, tokenizer, tokenizer, 99, 1, alike_lengths)
    for epoch in range(2):
        numbers = [n for step in range(130) for n in data.batch(130 * epoch + step).columns["number"]]
        assert sorted(numbers) == list(range(260))


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    """Neither the order of a split nor which examples come twice at its end is the same in two epochs."""
    dataset = Listed(30)
    tokenizer = words(dataset)
    data = Batching(dataset, "train", 8, tokenizer, tokenizer, 99, 1, False)
    epochs = [[n for step in range(4) for n in data.batch(4 * epoch + step).columns["number"]] for epoch in range(4)]
    for numbers in epochs:
        assert numbers[30:] == numbers[:2]
        assert sorted(numbers[:30]) == list(range(30)) != numbers[:30]
    assert len({tuple(numbers) for numbers in epochs}) == 4
    assert len({tuple(numbers[30:]) for numbers in epochs}) > 1


def test_a_split_smaller_than_a_batch_is_repeated() -> None:
    numbers = batching(Listed(3), batch_size=8).batch(5).columns["number"]
    assert sorted(np.bincount(numbers)) == [2, 3, 3]


@pytest.mark.parametrize("size", [200, None])
@pytest.mark.parametrize("overlong", ["truncate", "drop"])
def test_text_ids_columns_and_the_pair_of_demonstration_and_reference_belong_to_the_same_example(
    size: int | None, overlong: str
) -> None:
    dataset = Listed(size, overlong=overlong, max_source_length=9)
    data = batching(dataset, batch_size=16)
    chosen = set()
    for step in range(60):
        batch = data.batch(step)
        sources = texts(data.source_reader, batch.source, batch.source_mask)
        references = texts(data.tokenizer, batch.reference_ids, batch.reference_mask)
        demonstrations = texts(data.tokenizer, batch.targets, batch.target_mask)
        for i, number in enumerate(batch.columns["number"]):
            example = dataset.example("train", number)
            assert batch.sources[i] == example.source
            assert batch.references[i] == example.references
            assert sources[i] == " ".join(example.source.split()[:9])
            k = example.references.index(references[i])
            assert demonstrations[i] == example.demonstrations[k]
            chosen.add(k)
    assert chosen == {0, 1, 2}


def test_the_reference_of_an_example_is_drawn_anew_in_every_epoch() -> None:
    data = batching(Listed(1), batch_size=1)
    drawn = [data.batch(step).targets.tolist()[0][0] for step in range(30)]
    assert len(set(drawn)) == 3


def test_masks_cover_the_end_and_nothing_behind_it() -> None:
    data = batching(Listed(100), batch_size=10)
    eos = data.tokenizer.eos_id
    for step in range(10):
        batch = data.batch(step)
        for ids, mask in ((batch.targets, batch.target_mask), (batch.reference_ids, batch.reference_mask)):
            lengths = mask.sum(-1)
            assert mask.dtype == torch.bool
            assert ids.dtype == torch.int64
            assert ids.shape[1] == lengths.max()
            assert torch.equal(mask, torch.arange(ids.shape[1]) < lengths[:, None])
            assert torch.equal(ids[torch.arange(10), lengths - 1], torch.full((10,), eos))
            assert (ids * mask == eos).sum() == (~mask).sum() + 10  # one end a row, and 0 behind it
        said = [text.count(" ") + 1 for text in texts(data.tokenizer, batch.targets, batch.target_mask)]
        assert batch.target_mask.sum(-1).tolist() == [n + 1 for n in said]
        assert batch.source_mask.sum(-1).tolist() == [text.count(" ") + 1 for text in batch.sources]


def test_batches_hold_examples_of_about_the_same_length() -> None:
    data = batching(Listed(1000), batch_size=20)
    padding = [1 - float(data.batch(step).target_mask.float().mean()) for step in range(50)]
    assert np.mean(padding) < 0.25
    assert max(padding) < 0.5
    lengths = [float(data.batch(step).target_mask.sum()) for step in range(50)]
    assert abs(np.corrcoef(lengths, range(50))[0, 1]) < 0.5  # short and long batches in turn


def test_what_is_over_a_limit_is_truncated_without_an_end_and_counted() -> None:
    data = batching(Listed(100, max_source_length=5), batch_size=10, max_length=6)
    cut = 0
    for step in range(10):
        batch = data.batch(step)
        assert batch.source.shape[1] <= 5
        assert batch.targets.shape[1] <= 6
        for ids, mask in zip(batch.targets, batch.target_mask, strict=True):
            cut += data.tokenizer.eos_id not in ids[mask].tolist()
    assert cut > 0
    counts = data.counts()
    assert (counts["overlong_sources"], counts["overlong_targets"], counts["dropped_examples"]) == (50, 112, 0)
    assert [each.text for each in data.findings()] == [
        "train: 50 of 100 sources are longer than dataset.max_source_length=5 tokens: truncated (dataset.overlong)",
        "train: 112 of 300 targets are longer than decode.max_length=6 tokens: truncated (dataset.overlong)",
    ]


def test_what_is_over_a_limit_is_dropped_and_counted() -> None:
    data = batching(Listed(100, references=1, max_source_length=5, overlong="drop"), batch_size=10, max_length=6)
    numbers = [n for step in range(data.batches_per_chapter) for n in data.batch(step).columns["number"]]
    assert set(numbers) == {i for i in range(100) if i * 7 % 10 < 5 and i * 3 % 8 < 5}
    assert all(data.tokenizer.eos_id in row for step in range(3) for row in data.batch(step).targets.tolist())
    assert data.findings()[-1].text == f"train: {100 - len(set(numbers))} of 100 examples are left out"


def test_an_example_stays_while_one_of_its_demonstrations_is_short_enough() -> None:
    data = batching(Listed(100, overlong="drop"), batch_size=10, max_length=4)
    seen = {n for step in range(data.batches_per_chapter) for n in data.batch(step).columns["number"]}
    assert seen == {i for i in range(100) if min((i + k) * 3 % 8 for k in range(3)) < 3}
    assert max(data.batch(step).targets.shape[1] for step in range(10)) <= 4


def test_unknown_tokens_are_counted() -> None:
    dataset, known = Listed(10), Word(1000, 1)
    known.train(["x y"])
    data = Batching(dataset, "train", 2, known, known, 99, 1)
    assert data.counts()["unknown_source_tokens"] == 10
    assert data.counts()["unknown_target_tokens"] == 30
    found = data.findings()[0]
    said = "train: 10 of 55 source tokens (18.2 %) are unknown to the tokenizer"
    assert found.text.startswith(said)
    assert found.severity == "warning"


def test_an_unlimited_split_speaks_of_its_first_examples_and_never_repeats_a_pool() -> None:
    data = batching(Listed(None, max_source_length=5, overlong="drop"))
    half = f"train (first {SEEN} examples): {SEEN // 2} of {SEEN} sources are longer than"
    assert data.findings()[0].text.startswith(half)
    assert not same(data.batch(0), data.batch(50))
    assert all(len(source.split()) <= 5 for step in range(100) for source in data.batch(step).sources)


@pytest.mark.parametrize("size", [20, None])
def test_a_split_without_a_usable_example_is_refused(size: int | None) -> None:
    with pytest.raises(UserError, match=r"dataset\.overlong=drop: all .* are over the limits .*decode\.max_length=1"):
        batching(Listed(size, overlong="drop"), max_length=1).batch(0)


def test_an_empty_split_and_a_batch_of_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="'train' is empty"):
        batching(Listed(0))
    with pytest.raises(UserError, match="batch_size"):
        batching(Listed(5), batch_size=0)


def test_an_example_whose_demonstrations_do_not_match_its_references_is_refused() -> None:
    tokenizer = words(Listed(5))
    bad = Example("e7", "x", ["y", "y"], ["y"], {})
    with pytest.raises(UserError, match="'e7' has 2 references and 1 demonstrations"):
        Encoded([bad], tokenizer, tokenizer, 9, 9, False)


def evaluated(dataset: Any, examples: int, max_length: int = 99) -> Iterable[tuple[list[int], Batch]]:
    tokenizer = words(dataset)
    return evaluation_batches(dataset, "test", examples, 8, tokenizer, tokenizer, max_length)


@pytest.mark.parametrize(("size", "examples", "expected"), [(30, 0, 30), (30, 20, 20), (30, 50, 30), (None, 20, 20)])
def test_evaluation_reads_the_first_examples_once_sorted_by_length_with_their_indices(
    size: int | None, examples: int, expected: int
) -> None:
    dataset = Listed(size, max_source_length=4, overlong="drop")
    batches = list(evaluated(dataset, examples, max_length=3))
    order = [i for indices, _ in batches for i in indices]
    assert sorted(order) == list(range(expected))
    lengths = []
    for indices, batch in batches:
        wanted = [dataset.example("test", i) for i in indices]
        assert batch.sources == [e.source for e in wanted]
        assert batch.references == [e.references for e in wanted]
        assert batch.columns["number"] == indices
        assert batch.step == 0
        assert batch.source.shape[1] <= 4
        assert batch.targets.shape[1] <= 3
        lengths += batch.source_mask.sum(-1).tolist()
    assert lengths == sorted(lengths)


def test_evaluation_refuses_an_empty_or_endless_split() -> None:
    with pytest.raises(UserError, match="empty"):
        list(evaluated(Listed(0), 0))
    with pytest.raises(UserError, match="unlimited"):
        list(evaluated(Listed(None), 0))


def test_plain_lines_become_a_batch_without_targets_and_an_empty_line_is_one_end() -> None:
    tokenizer = words(Listed(5))
    batch = source_batch(["s1 x x x x", "", "s2"], tokenizer, 3)
    assert batch.source_mask.sum(-1).tolist() == [3, 1, 1]
    assert batch.source[1, 0] == tokenizer.eos_id
    assert batch.sources == ["s1 x x x x", "", "s2"]
    assert batch.references == [[], [], []]
    assert batch.targets.shape == (3, 1)
    assert not batch.target_mask.any()
    assert not batch.reference_mask.any()


def test_a_tokenizer_reads_the_training_split_sources_and_targets_as_asked() -> None:
    dataset = Listed(2, references=1)
    one, two = dataset.example("train", 0), dataset.example("train", 1)
    targets = [[*example.references, *example.demonstrations] for example in (one, two)]
    both = [one.source, *targets[0], two.source, *targets[1]]
    assert list(training_texts(dataset, sources=True, targets=True)) == both
    assert list(training_texts(dataset, sources=True, targets=False)) == [one.source, two.source]
    assert list(training_texts(dataset, sources=False, targets=True)) == [*targets[0], *targets[1]]


def test_of_an_unlimited_split_a_tokenizer_reads_until_no_new_word_comes() -> None:
    assert len(list(training_texts(Listed(None), sources=True, targets=False))) == 2001
    few = SequenceTask("copy", 10, 3, 8, 0.0, 1, 2, 2, 9, "truncate")
    assert len(list(training_texts(few, sources=False, targets=True))) == 2001


def test_ragged_sequences_are_padded_in_any_order() -> None:
    ragged = Ragged([[1, 2, 3], [], [4], [5, 6, 7, 8]], limit=3)
    ids, mask = ragged.padded(np.array([3, 1, 2, 3]))
    assert ids.tolist() == [[5, 6, 7], [0, 0, 0], [4, 0, 0], [5, 6, 7]]
    assert mask.sum(-1).tolist() == [3, 0, 1, 3]
    assert ragged.overlong.tolist() == [False, False, False, True]


def test_the_real_data_goes_through() -> None:
    dataset = Jsonl(str(real("e2e_nlg")), {}, "src", "refs", False, False, 0.0, None, 64, "truncate")
    tokenizer = Word(5000, 1)
    tokenizer.train(training_texts(dataset, sources=True, targets=True))
    data = Batching(dataset, "train", 64, tokenizer, tokenizer, 60, 1)
    for step in range(0, data.batches_per_chapter, 10):
        batch = data.batch(step)
        said = texts(tokenizer, batch.targets, batch.target_mask)
        whole = batch.targets[torch.arange(64), batch.target_mask.sum(-1) - 1] == tokenizer.eos_id
        for text, references, complete in zip(said, batch.references, whole.tolist(), strict=True):
            assert any(reference == text if complete else reference.startswith(text) for reference in references)
    assert any("truncated" in finding.text for finding in data.findings())
