"""Examples encoded in compact arrays, texts as token ids and recordings as frames: truncation, dropping of overlong
examples, and padded batches."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli.interfaces import (
    Batch,
    EncodesSources,
    Example,
    Features,
    Recording,
    SourceReader,
    Tokenizer,
    UserError,
)

ReadSources = Callable[[Tensor], tuple[Tensor, Tensor]]  # see Batch.read_sources


class Sources(Protocol):
    """n sources as numbers: token ids, or frames."""

    lengths: np.ndarray  # [n] int64, in tokens or frames, after the cut
    overlong: np.ndarray  # [n] bool, True for those that were cut

    def padded(self, rows: np.ndarray, speeds: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Returns the sources at the indices rows [N], in that order and padded on the right: ids [N, L] int64 or
        frames [N, L, F] float32, 0 where padded, and mask [N, L] bool, True where they are real. L is the length of the
        longest of these, at least 1. Recordings are played `speeds` [N] times as fast; None: as they are."""

    def unknown(self, token: int | None) -> int:
        """Returns how many tokens are `token`, the id that stands for the unknown ones; 0 for None and for frames."""


class Ragged:
    """n sequences of token ids stored one after another, each cut at `limit` tokens.

    Sequence i is flat[starts[i] : starts[i] + lengths[i]], flat int32, starts and lengths [n] int64; overlong [n] bool
    is True for those that were cut.
    """

    def __init__(self, sequences: Iterable[list[int]], limit: int) -> None:
        flat, full = array("i"), array("q")  # 4 bytes a token; a list of Python integers would take about 36
        for ids in sequences:
            full.append(len(ids))
            flat.fromlist(ids[:limit])
        self.flat = np.array(flat, dtype=np.int32)
        self.overlong = np.array(full, dtype=np.int64) > limit
        self.lengths = np.minimum(np.array(full, dtype=np.int64), limit)
        self.starts = np.cumsum(self.lengths) - self.lengths

    def padded(self, rows: np.ndarray, speeds: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Returns the sequences at the indices rows [N], in that order and padded on the right: ids [N, L] int64, 0
        where padded, and mask [N, L] bool, True at real tokens. L is the length of the longest of these sequences, at
        least 1. `speeds` is not read."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max(initial=1))
        mask = columns < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        # Boolean indexing visits the places of `ids` row by row, in the same order as the gathered tokens.
        ids[mask] = self.flat[(self.starts[rows, None] + columns)[mask]]
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def unknown(self, token: int | None) -> int:
        """Returns the number of occurrences of a token id in all sequences, after the cut; 0 for None."""
        return 0 if token is None else int((self.flat == token).sum())


class Frames:
    """The frames of n recordings, each cut at `limit` of them. They stay with `features`, which computes them once.

    lengths [n] int64 are in frames; overlong [n] bool is True for recordings that were cut. Raises UserError where a
    recording cannot be read.
    """

    def __init__(self, features: Features, recordings: Sequence[Recording], limit: int) -> None:
        self.features, self.recordings = features, recordings
        full = np.array([len(features.frames(each)) for each in recordings], dtype=np.int64)
        self.overlong, self.lengths = full > limit, np.minimum(full, limit)

    def padded(self, rows: np.ndarray, speeds: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Returns the frames of the recordings at the indices rows [N], in that order, played `speeds` [N] times as
        fast (None: as they are), and padded on the right: [N, L, F] float32, 0 where padded, and mask [N, L] bool, True
        at real frames. L is the length of the longest of these, at least 1."""
        played = np.ones(len(rows)) if speeds is None else speeds
        pairs = zip(rows.tolist(), played.tolist(), strict=True)
        found = [self._played(row, speed) for row, speed in pairs]
        lengths = np.array([len(each) for each in found], dtype=np.int64)
        mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
        frames = np.zeros((*mask.shape, self.features.width), dtype=np.float32)
        for row, each in enumerate(found):
            frames[row, : len(each)] = each
        return torch.from_numpy(frames), torch.from_numpy(mask)

    def _played(self, row: int, speed: float) -> np.ndarray:
        """The frames of a recording at a speed. The cut is at the same sound at every speed: a recording that is within
        the limit stays whole where it is played more slowly."""
        frames = self.features.frames(self.recordings[row], speed)
        return frames[: round(int(self.lengths[row]) / speed)] if self.overlong[row] else frames

    def unknown(self, token: int | None) -> int:
        """Returns 0: frames are no tokens."""
        return 0


class Encoded:
    """n examples as token ids, the sources of recordings as frames. Each has one or more pairs (demonstration, clean
    reference); an example without a reference has one pair of empty sequences.

    EOS is appended to every target and counts towards the limit `max_length`, so a target that is cut has no EOS.
    `pairs` [P] are the indices of the kept pairs among all pairs, and `rows` [M] those of the kept examples among all
    examples: every one, or with `drop` only pairs whose source and demonstration are within the limits, and examples
    with such a pair. Dropped ones stay encoded, and are included in `len` and in `unknown`, the numbers of unknown
    tokens of "source" and "target" (demonstrations) after the cut. Raises UserError where an example has not as many
    demonstrations as references.
    """

    def __init__(
        self,
        examples: Iterable[Example],
        source_reader: SourceReader,
        tokenizer: Tokenizer,
        max_source_length: int,
        max_length: int,
        drop: bool,
    ) -> None:
        sources, demonstrations, references, sizes = _texts(examples)
        eos = tokenizer.eos_id
        self.sources = encoded_sources(source_reader, sources, max_source_length)

        def targets(texts: list[str | None]) -> Ragged:
            return Ragged(([] if text is None else [*tokenizer.encode(text), eos] for text in texts), max_length)

        self.targets = targets(demonstrations)
        self.clean = self.targets if demonstrations == references else targets(references)
        self.unknown = {
            "source": self.sources.unknown(unknown_id(source_reader)),
            "target": self.targets.unknown(tokenizer.unknown_id),
        }
        owner = np.repeat(np.arange(len(sizes)), sizes)  # the row of the example that each pair belongs to
        usable = ~((self.targets.overlong | self.sources.overlong[owner]) & drop)
        self.pairs = np.flatnonzero(usable)  # in the order of their examples
        self._choices = np.bincount(owner[self.pairs], minlength=len(sizes))  # kept pairs of each example
        self._first = np.cumsum(self._choices) - self._choices  # where in `pairs` those of each example begin
        self.rows = np.flatnonzero(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def choose(self, rows: np.ndarray, draws: torch.Generator) -> np.ndarray:
        """Draws one kept pair (of `self.pairs`) of each of N examples, uniformly. rows [N]: their indices among all
        examples, each of them in `self.rows` (not checked) -> [N], indices among all pairs. Draws N numbers from
        `draws`, however many pairs there are."""
        # floor(u * n) with one u for every row: the same number of draws whatever the numbers of pairs are.
        uniform = torch.rand(len(rows), dtype=torch.float64, generator=draws).numpy()
        chosen: np.ndarray = self.pairs[self._first[rows] + (uniform * self._choices[rows]).astype(np.int64)]
        return chosen

    def first_pairs(self, rows: np.ndarray) -> np.ndarray:
        """Returns the first kept pair (of `self.pairs`) of each of N examples. rows [N]: their indices among all
        examples, each of them in `self.rows` (not checked) -> [N], indices among all pairs."""
        pairs: np.ndarray = self.pairs[self._first[rows]]
        return pairs

    def batch(
        self,
        step: int,
        rows: np.ndarray,
        pairs: np.ndarray,
        examples: list[Example],
        indices: Sequence[int],
        read_sources: ReadSources,
        speeds: np.ndarray | None = None,
    ) -> Batch:
        """Returns a padded batch of N examples, on the CPU. rows [N] are the indices of the examples among all
        examples, pairs [N] the indices, among all pairs, of their targets and clean references, as `choose` or
        `first_pairs` returns them, and `examples` the N examples of these rows, for the texts and columns. Every column
        that any of them has is there; a value that an example lacks is None. `step` is that of the batch. The lists of
        references are shared with `examples`. `indices` [N] are those in the split, which `read_sources` can read
        again. Recordings are played `speeds` [N] times as fast; None: as they are."""
        keys = dict.fromkeys(key for example in examples for key in example.columns)
        return Batch(
            step,
            *self.sources.padded(rows, speeds),
            *self.targets.padded(pairs),
            *self.clean.padded(pairs),
            sources=[str(example.source) for example in examples],
            references=[example.references for example in examples],
            columns={key: [example.columns.get(key) for example in examples] for key in keys},
            example=torch.tensor(list(indices), dtype=torch.int64),
            read_sources=read_sources,
        )


def unknown_id(reader: SourceReader) -> int | None:
    """Returns the id of unknown tokens of a tokenizer; None where there is none, and for frames."""
    return None if isinstance(reader, Features) else reader.unknown_id


def unit_of(reader: SourceReader) -> str:
    """Returns what the lengths of sources count: "tokens", or "frames" with Features."""
    return "frames" if isinstance(reader, Features) else "tokens"


def encoded_sources(reader: SourceReader, sources: Iterable[str | Recording], limit: int) -> Sources:
    """Returns sources as numbers, each of at most `limit` tokens or frames: texts with a Tokenizer, recordings with
    Features. Raises UserError where a source is not of the kind that `reader` reads, a recording cannot be read, or
    what stands around a text is longer than the limit."""
    found = list(sources)
    if isinstance(reader, Features):
        recordings = [source for source in found if isinstance(source, Recording)]
        if len(recordings) < len(found):
            problem = "reads recordings, and the sources of this data set are texts"
            raise UserError(
                "features", problem, "leave features out, and choose a model that reads texts, such as model=lstm"
            )
        return Frames(reader, recordings, limit)
    texts = [source for source in found if isinstance(source, str)]
    if len(texts) < len(found):
        problem = "is null, and the sources of this data set are recordings"
        raise UserError("features", problem, "features=logmel, and a model that reads frames: model=speech_lstm")
    return ragged_sources(reader, texts, limit)


def ragged_sources(tokenizer: Tokenizer, sources: Iterable[str], limit: int) -> Ragged:
    """Returns the token ids of all sources, each of at most `limit` tokens: the first ones, or those that a tokenizer
    which is `EncodesSources` chooses. A source without tokens becomes one EOS, without which attention over it would be
    over nothing. Raises UserError where such a tokenizer cannot keep the limit."""
    shortened: list[bool] = []

    def cut(source: str) -> tuple[list[int], bool]:
        ids = tokenizer.encode(source)
        return ids, len(ids) > limit

    encode = partial(tokenizer.encode_source, limit=limit) if isinstance(tokenizer, EncodesSources) else cut

    def encoded() -> Iterator[list[int]]:
        for source in sources:
            ids, over = encode(source)
            shortened.append(over)
            yield ids or [tokenizer.eos_id]

    ragged = Ragged(encoded(), limit)
    ragged.overlong = np.array(shortened, dtype=bool)
    return ragged


def _texts(
    examples: Iterable[Example],
) -> tuple[list[str | Recording], list[str | None], list[str | None], list[int]]:
    """(sources, demonstrations, clean references, number of pairs of each example), one list each over all examples. An
    example without a reference has one pair of None."""
    sources: list[str | Recording] = []
    demonstrations: list[str | None] = []
    references: list[str | None] = []
    sizes: list[int] = []
    for example in examples:
        if len(example.references) != len(example.demonstrations):
            found = f"{len(example.references)} references and {len(example.demonstrations)} demonstrations"
            raise UserError("dataset", f"example {example.id!r} has {found}; expected as many of both")
        sources.append(example.source)
        demonstrations += example.demonstrations or [None]
        references += example.references or [None]
        sizes.append(max(1, len(example.references)))
    return sources, demonstrations, references, sizes
