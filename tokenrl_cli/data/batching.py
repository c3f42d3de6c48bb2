"""Batches of examples, for training and for evaluation. `Batching.batch(step)` is a pure function of (seed, step).

A training batch holds examples of about the same length, unless `alike_lengths` is False. A finite split is read in
epochs: the examples that are not dropped are permuted and divided into pools of POOL batches; each pool is sorted by
length and cut into batches, which are then shuffled. The last batch of an epoch is filled up from the start of the
permutation, so the batch size is constant. An unlimited split has no epochs: each pool is made of newly drawn examples.
Of an example with several references, one is drawn anew in every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli import streams
from tokenrl_cli.data.counts import Unread, unknown_finding
from tokenrl_cli.data.encoding import Encoded, ReadSources, encoded_sources, unit_of
from tokenrl_cli.data.splits import Member
from tokenrl_cli.interfaces import (
    Batch,
    Dataset,
    Example,
    Features,
    Finding,
    Recording,
    SourceReader,
    Tokenizer,
    TranslatesIds,
    UserError,
)
from tokenrl_cli.usercode.copies import own_example

POOL = 50  # batches whose examples are sorted by length together
FRESH = 2**31  # examples of an unlimited split are drawn with an index below this
SEEN = 1_000  # examples of an unlimited split that `counts` and `findings` describe
VOCABULARY_EXAMPLES = 20_000  # examples of an unlimited split that are read, at most, to train a tokenizer


@dataclass(frozen=True)
class _Chapter:
    """The batches of one epoch of a finite split, or of one pool of an unlimited one."""

    number: int
    encoded: Encoded
    indices: np.ndarray  # [n], row of `encoded` -> the index of its example in the split
    rows: np.ndarray  # [batches, N], the row of `encoded` at each place
    pairs: np.ndarray  # [batches, N], its pair of demonstration and reference
    speeds: np.ndarray | None  # [batches, N], how fast its recording is played


class Batching:
    """Training batches of `batch_size` examples of a split, of those for which `member(example, index)` is True (None:
    of all). Targets are cut at `max_length` tokens, EOS included, and sources at the data set's `max_source_length`;
    with its `overlong` "drop" pairs over a limit are left out instead.

    With `alike_lengths` a batch holds texts of similar length, which saves padding; a loss that is a mean over the
    tokens of each batch then gives a token of a short text more weight than one of a long text. Without it batches are
    drawn at random. A finite split is read and encoded at once and held in memory as ids; the epoch or pool in use is
    cached between calls, and no state changes what `batch` returns.

    With `varies_speed` recordings are played at the speeds that `source_reader` names, one drawn anew for each example
    and epoch; batches are still made by the lengths at speed 1.

    Raises UserError where `batch_size` is below 1, the split is empty, `member` leaves no example or divides an
    unlimited split, or `overlong` "drop" leaves no example (of an unlimited split, when a batch is drawn).
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        batch_size: int,
        source_reader: SourceReader,
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        alike_lengths: bool = True,
        member: Member | None = None,
        varies_speed: bool = False,
    ) -> None:
        if batch_size < 1:
            raise UserError("trainer.batch_size", f"must be at least 1, got {batch_size}")
        self.dataset, self.split, self.batch_size, self.seed = dataset, split, batch_size, seed
        self.alike_lengths = alike_lengths
        self.source_reader, self.tokenizer, self.max_length = source_reader, tokenizer, max_length
        self.drop = dataset.overlong == "drop"
        plays = isinstance(source_reader, Features) and varies_speed
        self.speeds = np.array(source_reader.speeds if plays else [1.0])  # type: ignore[union-attr]
        self.batches_per_chapter = POOL
        self._whole: Encoded | None = None
        self._indices = _indices(dataset, split, member)
        if self._indices is not None:
            self._whole = self._encode([self._row(row) for row in range(len(self._indices))])
            self._require(self._whole)
            self.batches_per_chapter = -(-len(self._whole.rows) // batch_size)
        self._chapter: _Chapter | None = None

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step, from 0, on the CPU: always `batch_size` examples, a pure function of the seed
        and the step, whatever was called before. Opening another epoch or pool than that of the last call draws it
        anew. Examples are read again for their texts, so it raises UserError where the data cannot be read."""
        number, index = divmod(step, self.batches_per_chapter)
        if self._chapter is None or self._chapter.number != number:
            self._chapter = self._open(number)
        chapter = self._chapter
        rows, pairs = chapter.rows[index], chapter.pairs[index]
        speeds = None if chapter.speeds is None else chapter.speeds[index]
        indices = chapter.indices[rows].tolist()
        examples = [self._example(i) for i in indices]
        return chapter.encoded.batch(step, rows, pairs, examples, indices, self.read_sources, speeds)

    def read_sources(self, example: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the sources of the examples at some indices of the split, example [M] int64, in that order: source
        [M, S] int64 ids or [M, S, F] float32 frames, and source_mask [M, S] bool, on the CPU. Those of an unlimited
        split are made anew. An index must be one of `batch(step).example`."""
        if self._indices is not None and self._whole is not None:
            return self._whole.sources.padded(np.searchsorted(self._indices, example.cpu().numpy()))
        sources = [self._example(i).source for i in example.tolist()]
        found = encoded_sources(self.source_reader, sources, self.dataset.max_source_length)
        return found.padded(np.arange(len(sources)))

    def counts(self) -> dict[str, int]:
        """Returns the numbers of examples, sources, targets and tokens, and how many are over a limit, dropped or
        unknown to a tokenizer; of all examples of a finite split that `member` admits, or of the first SEEN (1,000) of
        an unlimited one, which are read again at each call. Dropped examples are in all of these numbers, too. Tokens
        are counted after the cut, EOS of targets included. Targets are demonstrations; an example without one counts as
        one empty target. The keys are examples, dropped_examples, sources, overlong_sources, source_tokens,
        unknown_source_tokens, targets, overlong_targets, target_tokens and unknown_target_tokens; of recordings
        source_tokens are frames."""
        encoded = self._whole or self._encode([self._example(i) for i in range(SEEN)])
        return {
            "examples": len(encoded),
            "dropped_examples": len(encoded) - len(encoded.rows),
            "sources": len(encoded.sources.lengths),
            "overlong_sources": int(encoded.sources.overlong.sum()),
            "source_tokens": int(encoded.sources.lengths.sum()),
            "unknown_source_tokens": encoded.unknown["source"],
            "targets": len(encoded.targets.lengths),
            "overlong_targets": int(encoded.targets.overlong.sum()),
            "target_tokens": len(encoded.targets.flat),
            "unknown_target_tokens": encoded.unknown["target"],
        }

    def findings(self) -> list[Finding]:
        """Returns notes and warnings for the user, one for each of the `counts` of overlong texts, dropped examples and
        unknown tokens that is not 0; [] where all are."""
        n = self.counts()
        name = self.split if self._whole else f"{self.split} (first {SEEN:,} examples)"
        source_limit, limit = f"dataset.max_source_length={self.dataset.max_source_length}", f"{self.max_length}"
        found = []
        for side, key in (("source", source_limit), ("target", f"decode.max_length={limit}")):
            if n[f"overlong_{side}s"]:
                fate = "dropped" if self.drop else "truncated"
                share = f"{n[f'overlong_{side}s']:,} of {n[f'{side}s']:,} {side}s"
                unit = unit_of(self.source_reader if side == "source" else self.tokenizer)
                text = f"{name}: {share} are longer than {key} {unit}: {fate} (dataset.overlong)"
                found.append(Finding(f"overlong_{side}s", "note", 0, text, key.partition("=")[0]))
        if n["dropped_examples"]:
            text = f"{name}: {n['dropped_examples']:,} of {n['examples']:,} examples are left out"
            found.append(Finding("dropped_examples", "note", 0, text, "dataset.overlong"))
        for side in ("source", "target"):
            fixed = isinstance(self.source_reader if side == "source" else self.tokenizer, TranslatesIds)
            found += unknown_finding(name, side, n[f"unknown_{side}_tokens"], n[f"{side}_tokens"], fixed)
        return found

    def _example(self, index: int) -> Example:
        return own_example(self.dataset.example(self.split, index))

    def _row(self, row: int) -> Example:
        """Example of a finite split by its row, the number among the examples that `member` admits."""
        assert self._indices is not None
        return self._example(int(self._indices[row]))

    def _encode(self, examples: list[Example]) -> Encoded:
        limits = (self.dataset.max_source_length, self.max_length)
        return Encoded(examples, self.source_reader, self.tokenizer, *limits, self.drop)

    def _require(self, encoded: Encoded) -> None:
        """Raises UserError where there is no example, or none within the limits."""
        if not len(encoded):
            raise UserError("dataset", f"the split {self.split!r} is empty")
        if not len(encoded.rows):
            limits = f"dataset.max_source_length={self.dataset.max_source_length}, decode.max_length={self.max_length}"
            problem = f"all {len(encoded):,} examples of the split {self.split!r} are over the limits ({limits})"
            raise UserError("dataset.overlong=drop", problem, "raise a limit, or set dataset.overlong=truncate")

    def _open(self, number: int) -> _Chapter:
        """Draws the batches of an epoch or a pool."""
        # The generator depends on the number alone: a resumed run need not replay earlier draws.
        draws = streams.generator(self.seed, "batching", number)
        slots = self.batches_per_chapter * self.batch_size
        if self._whole is not None and self._indices is not None:
            encoded, indices = self._whole, self._indices
            # np.resize repeats the permutation from its start: that fills up the last batch of the epoch.
            order = np.resize(torch.randperm(len(encoded.rows), generator=draws).numpy(), slots)
        else:
            indices = self._fresh(slots, draws)
            encoded, order = self._encode([self._example(i) for i in indices.tolist()]), np.arange(slots)
        rows = encoded.rows[order]
        pairs = encoded.choose(rows, draws)
        places = np.arange(slots).reshape(-1, self.batch_size)
        if self.alike_lengths:
            lengths = np.stack([encoded.sources.lengths[rows], encoded.targets.lengths[pairs]])
            places = _by_length(lengths, self.batch_size, draws)
        speeds = None
        if len(self.speeds) > 1 or self.speeds[0] != 1:  # drawn last, so that they change no other draw
            speeds = self.speeds[torch.randint(len(self.speeds), places.shape, generator=draws).numpy()]
        return _Chapter(number, encoded, indices, rows[places], pairs[places], speeds)

    def _fresh(self, wanted: int, draws: torch.Generator) -> np.ndarray:
        """Draws the indices of `wanted` examples that are not dropped of an unlimited split."""
        kept = np.zeros(0, dtype=np.int64)
        while len(kept) < wanted:
            # With `drop` some are left out: at least SEEN are drawn at a time, so that `_require` has many to check.
            indices = torch.randint(FRESH, (max(wanted, SEEN if self.drop else 0),), generator=draws).numpy()
            if self.drop:
                encoded = self._encode([self._example(i) for i in indices.tolist()])
                self._require(encoded)
                indices = indices[encoded.rows]
            kept = np.concatenate([kept, indices])
        return kept[:wanted]


def _indices(dataset: Dataset, split: str, member: Member | None) -> np.ndarray | None:
    """Indices [n] of the examples of a finite split for which `member` is True; None for an unlimited split. Raises
    UserError where `member` divides an unlimited split or leaves nothing."""
    size = dataset.size(split)
    if member is None:
        return None if size is None else np.arange(size)
    if size is None:
        problem = f"divides the split {split!r}, which is unlimited: a source hardly comes twice"
        raise UserError("dataset.rl_share", problem, "leave it at 0")
    kept = np.array([i for i in range(size) if member(dataset.example(split, i), i)], dtype=np.int64)
    if not len(kept):
        problem = f"leaves none of the {size:,} examples of {split!r} to the warm start, or none to RL"
        raise UserError("dataset.rl_share", problem, "choose another share")
    return kept


def _by_length(lengths: np.ndarray, batch_size: int, draws: torch.Generator) -> np.ndarray:
    """Divides the examples of each pool into batches of similar length, and shuffles the batches.

    lengths [2, batches * N] of sources and targets -> [batches, N] places in that array. Examples are sorted by the
    longer of the two lengths, then by the shorter: that leaves a tenth less padding than sorting by their sum.
    """
    batches = []
    for start in range(0, lengths.shape[1], POOL * batch_size):
        part = lengths[:, start : start + POOL * batch_size]
        pool = start + np.lexsort((part.min(0), part.max(0)))
        cut = pool.reshape(-1, batch_size)
        batches.append(cut[torch.randperm(len(cut), generator=draws).numpy()])
    return np.concatenate(batches)


def evaluation_batches(
    dataset: Dataset,
    split: str,
    examples: int,
    batch_size: int,
    source_reader: SourceReader,
    tokenizer: Tokenizer,
    max_length: int,
) -> Iterator[tuple[list[int], Batch]]:
    """Yields (indices in the split, batch) for the first `examples` examples of a split (0: all), sorted by the length
    of the source so that there is little padding; the last batch may be smaller. Batches are on the CPU.

    Nothing is dropped or drawn at random. Source and target ids are cut at their limits (`max_length`, EOS included, is
    that of targets), the texts `references` are not. Targets are the first demonstration of each example; `step` is 0.
    When the first batch is requested, all examples are read, and a UserError is raised where the split is empty, or is
    unlimited and `examples` is 0.
    """
    size = dataset.size(split)
    if size is None and examples == 0:
        raise UserError("trainer.eval_examples", f"the split {split!r} is unlimited: say how many examples")
    count = examples if size is None else min(examples or size, size)
    if count < 1:
        raise UserError("dataset", f"the split {split!r} is empty")
    items = [own_example(dataset.example(split, i)) for i in range(count)]
    encoded = Encoded(items, source_reader, tokenizer, dataset.max_source_length, max_length, drop=False)
    order = np.argsort(encoded.sources.lengths, kind="stable")
    read_sources = _reading(encoded)
    for start in range(0, count, batch_size):
        rows = order[start : start + batch_size]
        indices = rows.tolist()
        chosen = [items[i] for i in indices]
        yield indices, encoded.batch(0, rows, encoded.first_pairs(rows), chosen, indices, read_sources)


def _reading(encoded: Encoded) -> ReadSources:
    """What reads sources again where the examples of `encoded` are the first ones of a split."""
    return lambda example: encoded.sources.padded(example.cpu().numpy())


def example_batch(
    dataset: Dataset,
    split: str,
    indices: Sequence[int],
    source_reader: SourceReader,
    tokenizer: Tokenizer,
    max_length: int,
) -> Batch:
    """Returns one batch of the examples at `indices` of a split, in that order, encoded: ids cut at their limits
    (`max_length`, EOS included, is that of targets), targets the first demonstrations, `step` 0, on the CPU."""
    items = [own_example(dataset.example(split, i)) for i in indices]
    encoded = Encoded(items, source_reader, tokenizer, dataset.max_source_length, max_length, drop=False)
    rows = np.arange(len(items))

    def read_sources(example: Tensor) -> tuple[Tensor, Tensor]:
        return encoded.sources.padded(np.array([list(indices).index(i) for i in example.tolist()], dtype=np.int64))

    return encoded.batch(0, rows, encoded.first_pairs(rows), items, indices, read_sources)


def source_batch(
    sources: Sequence[str | Recording],
    source_reader: SourceReader,
    max_source_length: int,
    unread: Unread | None = None,
) -> Batch:
    """Returns one batch of N sources alone to decode, texts or recordings, on the CPU, without references and columns:
    targets are [N, 1], all padding, `example` their indices among `sources`, and `step` is 0. Sources are cut at
    `max_source_length` tokens or frames.

    `unread`, where given, adds up how many sources are cut and how many of the tokens left are unknown.
    """
    encoded = encoded_sources(source_reader, sources, max_source_length)
    if unread is not None:
        unread.add(encoded)
    ids = torch.zeros(len(sources), 1, dtype=torch.int64)
    mask = torch.zeros(len(sources), 1, dtype=torch.bool)
    rows = torch.arange(len(sources))

    def read_sources(example: Tensor) -> tuple[Tensor, Tensor]:
        return encoded.padded(example.cpu().numpy())

    texts = [str(source) for source in sources]
    references: list[list[str]] = [[] for _ in sources]
    return Batch(0, *read_sources(rows), ids, mask, ids, mask, texts, references, {}, rows, read_sources)


def training_recordings(dataset: Dataset) -> Iterator[Recording]:
    """Yields the recordings that features are trained on: the sources of the split train of `dataset`, of an unlimited
    one those of the first SEEN (1,000) examples. Raises UserError where a source is a text."""
    size = dataset.size("train")
    for i in range(SEEN if size is None else size):
        source = dataset.example("train", i).source
        if not isinstance(source, Recording):
            problem = "reads recordings, and the sources of this data set are texts"
            raise UserError("features", problem, "leave features out, and choose a model that reads texts")
        yield source


def training_texts(dataset: Dataset, sources: bool, targets: bool) -> Iterator[str]:
    """Yields the texts that a tokenizer is trained on: sources, targets or both, as the two flags say, of every example
    of the split train of `dataset`. A source that is a recording has no text.

    Targets are references, and demonstrations where they differ from these. Of an unlimited split the first examples
    are read, at least 2,000 and at most VOCABULARY_EXAMPLES (20,000), until the second half of those read has brought
    no new word. Raises UserError, when all are read, where every text was empty or there was no example.
    """
    size = dataset.size("train")
    words: set[str] = set()
    newest = 0
    empty = True
    for i in range(VOCABULARY_EXAMPLES if size is None else size):
        example = own_example(dataset.example("train", i))
        same = example.demonstrations == example.references
        own = [example.source] if sources and isinstance(example.source, str) else []
        texts = own + (example.references + example.demonstrations * (not same)) * targets
        yield from texts
        empty = empty and not any(texts)
        if size is None:
            before = len(words)
            words.update(word for text in texts for word in text.split())
            newest = i if len(words) > before else newest
            if i >= max(2_000, 2 * newest):
                break
    if empty:
        key = "tokenizer" if targets else "source_tokenizer"
        lacking = "references" if targets and not sources else "sources" if sources and not targets else "text"
        remedy = "init_from=RUN takes over that run's tokenizers" + "; source_tokenizer=null makes one of both" * (
            sources != targets
        )
        raise UserError(key, f"there is nothing to make it of: train has no {lacking}", remedy)
