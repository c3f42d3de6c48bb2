"""The prior that a soft policy pays for leaving: all tokens alike, or the policy at the switch.

Objective: E[sum_t r_t - tau log(pi(a_t | s_t) / prior(a_t | s_t))]. `model` is the frozen network, or None.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import frozen_copy, read_states
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import ModelOutput, Rollout


class Uniform:
    """prior(a | s) = 1 for every token, which is not normalised: the objective is sum r + tau H(pi)."""

    model = None

    def read(self, episodes: Rollout) -> ModelOutput:
        """Hidden states [B, T + 1, 1] that are all 0 and their own logits: one logit, the same for every token."""
        rows, columns = episodes.actions.shape
        zeros = torch.zeros(rows, columns + 1, 1, device=episodes.actions.device)
        return ModelOutput(zeros, lambda hidden: hidden)

    def log_normaliser(self, logits: Tensor) -> Tensor:
        """0: nothing is divided by. [..., 1] -> [...]."""
        return torch.zeros_like(logits[..., 0])

    def logprobs(self, logits: Tensor) -> Tensor:
        """log prior(a | s) = 0, broadcast over the tokens. [..., 1] -> [..., 1]."""
        return logits


class Reference:
    """prior = the policy at the switch, frozen: the objective is sum r - tau KL(pi || prior)."""

    def __init__(self, model: Any) -> None:
        self.model = frozen_copy(model)

    @torch.no_grad()
    def read(self, episodes: Rollout) -> ModelOutput:
        """The network's output for every state of the episodes: hidden [B, T + 1, D], logits [B, T + 1, V]."""
        return read_states(self.model, episodes)

    def log_normaliser(self, logits: Tensor) -> Tensor:
        """log sum_a exp z(s, a). [..., V] -> [...]."""
        return precise(logits).logsumexp(-1)

    def logprobs(self, logits: Tensor) -> Tensor:
        """log prior(a | s). [..., V] -> [..., V]."""
        return precise(logits).log_softmax(-1)
