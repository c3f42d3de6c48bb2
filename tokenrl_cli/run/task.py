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
    Tokenizer,
)


@dataclass(frozen=True)
class Task:
    """What a run learns and how it is scored: data, tokenizers, reward, credit, metrics and decoding."""

    dataset: Dataset
    source_tokenizer: Tokenizer
    tokenizer: Tokenizer
    reward: Reward
    credit: Credit | None  # None in an evaluation, which learns nothing
    metrics: dict[str, Reward]
    decoding: Decoding  # of evaluation; its max_length also limits the texts of training
    device: torch.device
    precision: torch.dtype
    seed: int

    def numerics(self) -> contextlib.AbstractContextManager[Any]:
        """The context to run the model in: mixed precision if the precision is bf16. Weights stay float32."""
        return numerics(self.device, self.precision)


def numerics(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """A context in which forward passes run in a precision: autocast for bf16, nothing special for fp32."""
    reduced = precision != torch.float32
    return torch.autocast(device.type, precision) if reduced else contextlib.nullcontext()


@dataclass(frozen=True)
class GenerationTask:
    """The part of a Task that a saved policy needs to generate: no data, no reward, no metrics."""

    source_tokenizer: Tokenizer
    tokenizer: Tokenizer
    decoding: Decoding
    device: torch.device
    precision: torch.dtype
    seed: int
    max_source_length: int  # tokens; longer sources are cut

    def numerics(self) -> contextlib.AbstractContextManager[Any]:
        """The context to run the model in, as for a Task."""
        return numerics(self.device, self.precision)
