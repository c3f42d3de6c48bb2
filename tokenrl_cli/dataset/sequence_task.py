"""Toy data sets: copy, reverse or sort a sequence of numbers, with demonstrations that may contain errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Literal

import torch

from tokenrl_cli import streams
from tokenrl_cli.config.ranges import WIDE, Count, Ge, Le, Probability, Size
from tokenrl_cli.interfaces import Example, SettingError

TASKS: dict[str, Callable[[list[int]], list[int]]] = {
    "copy": list,
    "reverse": lambda symbols: symbols[::-1],
    "sort": sorted,
}
KEPT = 20_000  # examples that are cached: the tokenizer, the counts and every evaluation read the same ones again


class SequenceTask:
    """Sources are sequences of numbers below `symbols`, separated by spaces, uniform in length (`min_symbols` to
    `max_symbols`) and in each number.

    The reference is the correct answer. In the demonstration each number of it is replaced, with probability
    `corruption`, by a different one: imitation learns the errors, too, and only RL can reach a score of 1. Example i,
    errors included, is a pure function of (corpus_seed, split, i); train is unlimited. Raises SettingError where
    `min_symbols` is above `max_symbols`.
    """

    def __init__(
        self,
        task: Literal["copy", "reverse", "sort"],
        symbols: Annotated[int, Ge(2), Le(WIDE)],
        min_symbols: Size,
        max_symbols: Size,
        corruption: Probability,
        corpus_seed: int,
        val_size: Count,
        test_size: Count,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        if not 1 <= min_symbols <= max_symbols:
            found = f"{min_symbols} to {max_symbols}"
            raise SettingError("min_symbols", f"must be from 1 to {{here}}.max_symbols, got {found}")
        self.max_source_length, self.overlong = max_source_length, overlong
        self.solve, self.symbols, self.corruption, self.corpus_seed = TASKS[task], symbols, corruption, corpus_seed
        self.lengths = (min_symbols, max_symbols)
        self.sizes = {"train": None, "val": val_size, "test": test_size}

    def size(self, split: str) -> int | None:
        """Returns the number of examples of a split; None for train, which is unlimited. Raises KeyError for a split
        other than "train", "val" and "test"."""
        return self.sizes[split]

    def example(self, split: str, index: int) -> Example:
        """Returns example `index` of a split, a pure function of (corpus_seed, split, index), made anew at each call.
        Neither `split` nor `index` is checked."""
        symbols, shifts, uniform = _drawn(self.corpus_seed, split, index, self.symbols, *self.lengths)
        right = self.solve(list(symbols))
        wrong = [chance < self.corruption for chance in uniform]
        shown = [(s + shift) % self.symbols if bad else s for s, shift, bad in zip(right, shifts, wrong, strict=True)]
        return Example(f"{split}-{index}", _text(symbols), [_text(right)], [_text(shown)], {})


@lru_cache(KEPT)
def _drawn(
    corpus_seed: int, split: str, index: int, symbols: int, shortest: int, longest: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    """Draws an example: the numbers of the source; for each place of the answer the shift of an error (never 0, so that
    the number differs); and a uniform number in [0, 1), which makes an error where it is below the corruption."""
    draws = streams.generator(corpus_seed, f"sequence_task/{split}", index)
    length = int(torch.randint(shortest, longest + 1, (), generator=draws))
    drawn = torch.randint(symbols, (length,), generator=draws).tolist()
    shifts = torch.randint(1, symbols, (length,), generator=draws).tolist()
    return tuple(drawn), tuple(shifts), tuple(torch.rand(length, generator=draws).tolist())


def _text(symbols: Iterable[int]) -> str:
    return " ".join(map(str, symbols))
