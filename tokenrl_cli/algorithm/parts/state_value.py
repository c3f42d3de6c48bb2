"""The estimates of V(s), the value of a state, among which path consistency can choose.

Each part is called with `hidden` [B, T + 1, D], the policy's hidden states; `logit_values` [B, T + 1], V as the logits
of the policy give it (see `Tied`); and `source_values` [B], V(s_0) of its source as all samples of that source estimate
it (see `GroupMean`). It returns V [B, T + 1] of every state, that after the last column included, in units of the
reward. `head` is the ScalarHead that it learns, or None. `compares_samples` is True where it reads `source_values`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.algorithm.parts.head import ScalarHead
from tokenrl_cli.config.ranges import Positive
from tokenrl_cli.interfaces import ModelModule


class Head:
    """V(s) = w x + b, a head of its own on hidden states x, into which no gradient flows; w and b start at 0 and are
    learned with `lr_factor` times the learning rate."""

    compares_samples = False

    def __init__(self, model: ModelModule, lr_factor: Positive) -> None:
        self.head: ScalarHead | None = ScalarHead(model, lr_factor)

    def __call__(self, hidden: Tensor, logit_values: Tensor, source_values: Tensor) -> Tensor:
        assert self.head is not None
        values: Tensor = self.head(hidden.detach())
        return values


class Tied:
    """V(s) = tau (log sum_a exp z(s, a) - log sum_a exp z_prior(s, a)) + level(s), with z the logits.

    So Q(s, a) = tau (z(s, a) - z_prior(s, a)) + level(s): policy and values are tied, and the level is the constant of
    each state that a softmax does not depend on. With the reference as prior V is 0 at the switch from the warm start:
    ShiQ, Clavier et al. 2025 (arXiv:2505.11081). With the uniform one, whose normaliser is left out, it is unified PCL
    (Nachum et al. 2017, section 4.3). The level is a head on hidden states, into which its gradient flows; its
    `lr_factor` is large because it has far to go.
    """

    compares_samples = False

    def __init__(self, model: ModelModule, lr_factor: Positive) -> None:
        self.head: ScalarHead | None = ScalarHead(model, lr_factor)

    def __call__(self, hidden: Tensor, logit_values: Tensor, source_values: Tensor) -> Tensor:
        assert self.head is not None
        values: Tensor = logit_values + self.head(hidden)
        return values


class GroupMean:
    """V(s_0) is the estimate that the samples of the source give; V of later states is 0, as nothing is known of them.

    Learns nothing. `functional.consistency.log_partition` has the formula.
    """

    compares_samples = True  # all samples of a source must be in one minibatch
    head: ScalarHead | None = None

    def __call__(self, hidden: Tensor, logit_values: Tensor, source_values: Tensor) -> Tensor:
        return torch.nn.functional.pad(source_values.unsqueeze(-1), (0, logit_values.shape[1] - 1))
