"""What path consistency takes the value of a state from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.algorithm.parts.head import Level
from tokenrl_cli.config.ranges import Positive


class Head:
    """V(s) is a head's own, on hidden states that it does not train."""

    mates = False

    def __init__(self, model: Any, scale: Positive) -> None:
        self.head: nn.Module | None = Level(model, scale)

    def __call__(self, hidden: Tensor, tied: Tensor, worth: Tensor) -> Tensor:
        assert self.head is not None
        values: Tensor = self.head(hidden.detach())
        return values


class Tied:
    """V(s) = tau (log sum exp logits - that of the prior) + a level: logits, less the prior's, are Q / tau.

    With the reference as prior V is 0 at the switch: ShiQ, Clavier et al. 2025 (arXiv:2505.11081). With the uniform one
    it is unified PCL (Nachum et al. 2017, section 4.3). The level, a head, has far to go and learns `scale` times as
    fast as a logit.
    """

    mates = False

    def __init__(self, model: Any, scale: Positive) -> None:
        self.head: nn.Module | None = Level(model, scale)

    def __call__(self, hidden: Tensor, tied: Tensor, worth: Tensor) -> Tensor:
        assert self.head is not None
        values: Tensor = tied + self.head(hidden)
        return values


class GroupMean:
    """V(s_0) is what the samples of the source say of it; of later states nothing is known."""

    mates = True
    head: nn.Module | None = None

    def __call__(self, hidden: Tensor, tied: Tensor, worth: Tensor) -> Tensor:
        return torch.nn.functional.pad(worth.unsqueeze(-1), (0, tied.shape[1] - 1))
