"""The prior, to which a KL term keeps a soft policy close: all tokens alike, or the policy at the switch from the warm
start.

Objective: E[sum_t r_t - tau log(pi(a_t | s_t) / prior(a_t | s_t))]. `model` is the frozen network, or None.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import frozen_copy, read_states
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import ModelModule, ModelOutput, Rollout


class Uniform:
    """prior(a | s) = 1 for every token, which is not normalised: the objective is sum r + tau H(pi)."""

    model = None

    def read(self, episodes: Rollout) -> ModelOutput:
        """Returns hidden states [B, T + 1, 1], float32 on the device of the episodes, that are all 0 and are their own
        logits: one logit, which stands for every token (broadcast)."""
        rows, columns = episodes.actions.shape
        zeros = torch.zeros(rows, columns + 1, 1, device=episodes.actions.device)
        return ModelOutput(zeros, lambda hidden: hidden)

    def log_normaliser(self, logits: Tensor) -> Tensor:
        """Returns the log of the sum by which this prior's logits are normalised: zeros, because prior(a | s) = 1 is
        not normalised. logits of any width, as `read` returns them or broadcast over the tokens, [..., 1 or V] ->
        [...]."""
        return torch.zeros_like(logits[..., 0])

    def logprobs(self, logits: Tensor) -> Tensor:
        """Returns the logits of `read` as they are, the same tensor: log prior(a | s) = 0, one for all tokens
        (broadcast). [..., 1] -> [..., 1]."""
        return logits


class Reference:
    """prior = a frozen copy of the policy, made at the switch from the warm start: the objective is sum r - tau KL(pi
    || prior)."""

    def __init__(self, model: ModelModule) -> None:
        self.model = frozen_copy(model)

    @torch.no_grad()
    def read(self, episodes: Rollout) -> ModelOutput:
        """Returns the frozen network's output, in evaluation mode, for every state of the episodes and for the one
        after the last column, without gradient: hidden [B, T + 1, D], column t for s_t, logits [B, T + 1, V]."""
        return read_states(self.model, episodes)

    def log_normaliser(self, logits: Tensor) -> Tensor:
        """Returns the log-sum-exp of the prior's logits z over V, log sum_a exp z(s, a), in float32 or float64.
        [..., V] -> [...]."""
        return precise(logits).logsumexp(-1)

    def logprobs(self, logits: Tensor) -> Tensor:
        """Returns log prior(a | s) in nats, the log-softmax of the prior's logits, as `read` returns them, in float32
        or float64. [..., V] -> [..., V]."""
        return precise(logits).log_softmax(-1)
