"""What is to be learned, and how it is measured: the objects of a run besides its model and its algorithms."""

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
    """What is to be learned and how it is measured: everything but the model and the algorithm."""

    dataset: Dataset
    source_tokenizer: Tokenizer
    tokenizer: Tokenizer
    reward: Reward
    credit: Credit | None  # None where nothing is learned
    metrics: dict[str, Reward]
    decoding: Decoding  # its max_length is the limit of training, too
    device: torch.device
    precision: torch.dtype
    seed: int

    def numerics(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision where it was asked for; weights stay float32."""
        return numerics(self.device, self.precision)


def numerics(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """The precision of a forward pass."""
    reduced = precision != torch.float32
    return torch.autocast(device.type, precision) if reduced else contextlib.nullcontext()


@dataclass(frozen=True)
class GenerationTask:
    """As much of a Task as a saved policy needs to generate: no data, no reward, no metric."""

    source_tokenizer: Tokenizer
    tokenizer: Tokenizer
    decoding: Decoding
    device: torch.device
    precision: torch.dtype
    seed: int
    max_source_length: int  # tokens; longer sources are cut

    def numerics(self) -> contextlib.AbstractContextManager[Any]:
        """As of a Task."""
        return numerics(self.device, self.precision)
