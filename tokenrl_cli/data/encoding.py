"""Examples encoded as token ids in compact arrays: truncation, dropping of overlong examples, and padded batches."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli.interfaces import Batch, EncodesSources, Example, Tokenizer, UserError


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

    def padded(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Returns the sequences at the indices rows [N], in that order and padded on the right: ids [N, L] int64, 0
        where padded, and mask [N, L] bool, True at real tokens. L is the length of the longest of these sequences, at
        least 1."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max(initial=1))
        mask = columns < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        # Boolean indexing visits the places of `ids` row by row, in the same order as the gathered tokens.
        ids[mask] = self.flat[(self.starts[rows, None] + columns)[mask]]
        return torch.from_numpy(ids), torch.from_numpy(mask)


class Encoded:
    """n examples as token ids. Each has one or more pairs (demonstration, clean reference); an example without a
    reference has one pair of empty sequences.

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
        source_tokenizer: Tokenizer,
        tokenizer: Tokenizer,
        max_source_length: int,
        max_length: int,
        drop: bool,
    ) -> None:
        sources, demonstrations, references, sizes = _texts(examples)
        eos = tokenizer.eos_id
        self.sources = ragged_sources(source_tokenizer, sources, max_source_length)

        def targets(texts: list[str | None]) -> Ragged:
            return Ragged(([] if text is None else [*tokenizer.encode(text), eos] for text in texts), max_length)

        self.targets = targets(demonstrations)
        self.clean = self.targets if demonstrations == references else targets(references)
        self.unknown = {
            "source": count(self.sources, source_tokenizer.unknown_id),
            "target": count(self.targets, tokenizer.unknown_id),
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

    def batch(self, step: int, rows: np.ndarray, pairs: np.ndarray, examples: list[Example]) -> Batch:
        """Returns a padded batch of N examples, on the CPU. rows [N] are the indices of the examples among all
        examples, pairs [N] the indices, among all pairs, of their targets and clean references, as `choose` or
        `first_pairs` returns them, and `examples` the N examples of these rows, for the texts and columns. Every column
        that any of them has is there; a value that an example lacks is None. `step` is that of the batch. The lists of
        references are shared with `examples`."""
        keys = dict.fromkeys(key for example in examples for key in example.columns)
        return Batch(
            step,
            *self.sources.padded(rows),
            *self.targets.padded(pairs),
            *self.clean.padded(pairs),
            sources=[example.source for example in examples],
            references=[example.references for example in examples],
            columns={key: [example.columns.get(key) for example in examples] for key in keys},
        )


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


def _texts(examples: Iterable[Example]) -> tuple[list[str], list[str | None], list[str | None], list[int]]:
    """(sources, demonstrations, clean references, number of pairs of each example), one list each over all examples. An
    example without a reference has one pair of None."""
    sources: list[str] = []
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


def count(ragged: Ragged, token: int | None) -> int:
    """Returns the number of occurrences of a token id in all sequences, after the cut; 0 for None."""
    return 0 if token is None else int((ragged.flat == token).sum())
