"""Examples as token ids in compact arrays: what is cut, what is dropped, and padding. Batches are made of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli.interfaces import Batch, Example, Tokenizer, UserError


class Ragged:
    """Sequences of token ids one after the other, each cut at `limit`; `overlong` [n] says which were."""

    def __init__(self, sequences: Iterable[list[int]], limit: int) -> None:
        flat, full = array("i"), array("q")
        for ids in sequences:
            full.append(len(ids))
            flat.fromlist(ids[:limit])
        self.flat = np.array(flat, dtype=np.int32)
        self.overlong = np.array(full, dtype=np.int64) > limit
        self.lengths = np.minimum(np.array(full, dtype=np.int64), limit)
        self.starts = np.cumsum(self.lengths) - self.lengths

    def padded(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """ids [N, L] int64 (0 where padded), mask [N, L] bool; L is at least 1."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max(initial=1))
        mask = columns < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = self.flat[(self.starts[rows, None] + columns)[mask]]
        return torch.from_numpy(ids), torch.from_numpy(mask)


class Encoded:
    """n examples as ids. Each has one or more pairs of a demonstration and the clean reference behind it; a prompt,
    which has no reference, has one pair without a token.

    EOS ends every target, and counts for the limit: a target that is cut has none. With `drop`, a pair whose
    demonstration is over the limit is not usable, nor is an example whose source is, or that has no usable pair.
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
        self.sources = Ragged(source_ids(source_tokenizer, sources), max_source_length)

        def targets(texts: list[str | None]) -> Ragged:
            return Ragged(([] if text is None else [*tokenizer.encode(text), eos] for text in texts), max_length)

        self.targets = targets(demonstrations)
        self.clean = self.targets if demonstrations == references else targets(references)
        self.unknown = {
            "source": count(self.sources, source_tokenizer.unknown_id),
            "target": count(self.targets, tokenizer.unknown_id),
        }
        owner = np.repeat(np.arange(len(sizes)), sizes)  # of each pair: the row of its example
        kept = ~((self.targets.overlong | self.sources.overlong[owner]) & drop)
        self.pairs = np.flatnonzero(kept)  # the usable ones, by example
        self._choices = np.bincount(owner[self.pairs], minlength=len(sizes))
        self._first = np.cumsum(self._choices) - self._choices  # of each example: where in `pairs` its own start
        self.rows = np.flatnonzero(self._choices)  # the usable examples

    def __len__(self) -> int:
        return len(self._choices)

    def choose(self, rows: np.ndarray, draws: torch.Generator) -> np.ndarray:
        """One usable pair of each of the rows, uniformly."""
        uniform = torch.rand(len(rows), dtype=torch.float64, generator=draws).numpy()
        chosen: np.ndarray = self.pairs[self._first[rows] + (uniform * self._choices[rows]).astype(np.int64)]
        return chosen

    def first_pairs(self, rows: np.ndarray) -> np.ndarray:
        pairs: np.ndarray = self.pairs[self._first[rows]]
        return pairs

    def batch(self, step: int, rows: np.ndarray, pairs: np.ndarray, examples: list[Example]) -> Batch:
        """`examples` are those of the rows, in their order; pair i belongs to row i."""
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


def source_ids(tokenizer: Tokenizer, sources: list[str]) -> Iterable[list[int]]:
    """An empty source would leave attention nothing to look at: it reads as one EOS."""
    return (ids or [tokenizer.eos_id] for ids in map(tokenizer.encode, sources))


def _texts(examples: Iterable[Example]) -> tuple[list[str], list[str | None], list[str | None], list[int]]:
    """Sources; demonstrations, the references behind them, and of each example how many. None where there is none."""
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
    """How often a token stands there; None never does."""
    return 0 if token is None else int((ragged.flat == token).sum())
