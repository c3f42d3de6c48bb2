"""Policies that are plain functions of the source and of the text so far, for tests that compute everything twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from tokenrl_cli.interfaces import ModelOutput

Logits = Callable[[int, tuple[int, ...]], Sequence[float]]  # first token of the source, text so far -> [V]


@dataclass
class Spoken:
    """The first token of the source and the text so far, of every row."""

    rows: list[tuple[int, tuple[int, ...]]]

    def reorder(self, index: Tensor) -> Spoken:
        return Spoken([self.rows[i] for i in index.tolist()])

    def repeat(self, times: int) -> Spoken:
        return Spoken([row for row in self.rows for _ in range(times)])


class FunctionPolicy(nn.Module):
    """float64; hidden states are the logits themselves."""

    def __init__(self, logits: Logits, size: int) -> None:
        super().__init__()
        self.logits, self.width = logits, size

    def _output(self, rows: list[list[tuple[int, tuple[int, ...]]]]) -> ModelOutput:
        values = [[list(self.logits(*place)) for place in row] for row in rows]
        return ModelOutput(torch.tensor(values, dtype=torch.float64), lambda hidden: hidden)

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        first = (source if source_row is None else source[source_row])[:, 0].tolist()
        return self._output(
            [[(one, tuple(row[:t])) for t in range(len(row))] for one, row in zip(first, actions.tolist(), strict=True)]
        )

    def start(self, source: Tensor, source_mask: Tensor) -> Spoken:
        return Spoken([(one, ()) for one in source[:, 0].tolist()])

    def step(self, state: Spoken, previous: Tensor | None) -> tuple[ModelOutput, Spoken]:
        if previous is not None:
            state = Spoken([(s, (*y, a)) for (s, y), a in zip(state.rows, previous.tolist(), strict=True)])
        return self._output([[row] for row in state.rows]), state


def anything(size: int, seed: int, spread: float = 1.0) -> Logits:
    """Normal logits, drawn once for every source and text."""

    @cache
    def logits(source: int, said: tuple[int, ...]) -> tuple[float, ...]:
        draw = random.Random(f"{seed}/{source}/{said}")
        return tuple(spread * draw.gauss(0, 1) for _ in range(size))

    return logits


def chi_squared(counts: Sequence[float], chances: Sequence[float]) -> float:
    """p of Pearson's test; an outcome without a chance must not have come."""
    total = sum(counts)
    assert all(count == 0 for count, chance in zip(counts, chances, strict=True) if chance == 0)
    pairs = [(count, total * chance) for count, chance in zip(counts, chances, strict=True) if chance > 0]
    distance = sum((count - wanted) ** 2 / wanted for count, wanted in pairs)
    if len(pairs) == 1:
        return float(distance < 1e-9)
    half = torch.tensor([(len(pairs) - 1) / 2, distance / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
