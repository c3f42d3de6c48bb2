"""What a soft policy is held to: all tokens alike, or the policy as it was."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import frozen_copy
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import ModelOutput


class Uniform:
    """Every token counts once: the objective is sum r + tau H(pi)."""

    model = None

    def read(self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor) -> ModelOutput:
        """Zeros that are their own logits, [B, T, 1] for all tokens."""
        nothing = torch.zeros(*actions.shape, 1, device=actions.device)
        return ModelOutput(nothing, lambda hidden: hidden)

    def mass(self, logits: Tensor) -> Tensor:
        """log of what has to be divided by, [..., V] -> [...]: nothing."""
        return torch.zeros_like(logits[..., 0])

    def logprobs(self, logits: Tensor) -> Tensor:
        return logits


class Reference:
    """The policy at the switch, frozen: the objective is sum r - tau KL(pi || reference)."""

    def __init__(self, model: Any) -> None:
        self.model = frozen_copy(model)

    @torch.no_grad()
    def read(self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor) -> ModelOutput:
        output: ModelOutput = self.model(source, source_mask, actions, source_row)
        return output

    def mass(self, logits: Tensor) -> Tensor:
        return precise(logits).logsumexp(-1)

    def logprobs(self, logits: Tensor) -> Tensor:
        """[..., V] -> [..., V]."""
        return precise(logits).log_softmax(-1)
