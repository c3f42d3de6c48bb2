"""The objects that a run is built from, besides its model and its algorithms."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch

from tokenrl_cli.episodes.sampling import Decoding
from tokenrl_cli.interfaces import (
    Credit,
    Dataset,
    Reward,
    SourceReader,
    Tokenizer,
)


@dataclass(frozen=True)
class Task:
    """What a run learns and how it is scored: data, tokenizers, reward, credit, metrics and decoding."""

    dataset: Dataset
    source_reader: SourceReader
    tokenizer: Tokenizer
    reward: Reward
    credit: Credit | None  # None in an evaluation, which learns nothing
    metrics: dict[str, Reward]
    decoding: Decoding  # of evaluation; its max_length also limits the texts of training
    device: torch.device
    precision: torch.dtype
    seed: int

    def numerics(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context to run the model in, for one with-statement: torch.autocast if the precision is bf16, one
        that does nothing if it is fp32. It changes no weights."""
        return numerics(self.device, self.precision)


def numerics(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Returns a context for forward passes in a precision, for one with-statement: torch.autocast to it on the device,
    or one that does nothing for float32."""
    reduced = precision != torch.float32
    return torch.autocast(device.type, precision) if reduced else contextlib.nullcontext()


@dataclass(frozen=True)
class GenerationTask:
    """The part of a Task that a saved policy needs to generate: no data, no reward, no metrics."""

    source_reader: SourceReader
    tokenizer: Tokenizer
    decoding: Decoding
    device: torch.device
    precision: torch.dtype
    seed: int
    max_source_length: int  # tokens, or frames; longer sources are cut

    def numerics(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context to run the model in, for one with-statement: torch.autocast if the precision is bf16, one
        that does nothing if it is fp32. It changes no weights."""
        return numerics(self.device, self.precision)
