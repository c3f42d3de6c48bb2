"""The reference policy, to which a KL divergence keeps the policy of a policy gradient close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import move, moving_copy
from tokenrl_cli.functional.likelihood import output_nll
from tokenrl_cli.interfaces import ModelModule, ModelOutput, Rollout, UserError


class ReferencePolicy:
    """ref(a | s): the plain softmax of a copy of the policy, made when RL begins.

    After each rollout the copy moves `schedule(number of rollouts before)` of the way to the policy: 0 leaves it as it
    is, 1 makes it the policy. With `model` None, as where no coefficient of a KL is above 0, there is no copy, and
    `output` and `logprobs` must not be called. `size` = V.
    """

    def __init__(self, model: ModelModule | None, schedule: Callable[[int], float], size: int) -> None:
        self.model: Any = None if model is None else moving_copy(model, schedule(0))
        self.schedule, self.size = schedule, size

    @torch.no_grad()
    def output(self, episodes: Rollout) -> ModelOutput:
        """Returns the output of the copy in every state of the episodes, hidden [B, T, D] and logits [B, T, V], without
        gradient; column t for the state before token t. `model` must not be None."""
        output: ModelOutput = self.model(episodes.source, episodes.source_mask, episodes.actions, episodes.source_row)
        return output

    @torch.no_grad()
    def logprobs(self, episodes: Rollout) -> Tensor:
        """Returns log ref(a_t | s_t) of the tokens of the episodes, [B, T], in nats, without gradient; values at
        padding are arbitrary. `model` must not be None."""
        return -output_nll(self.output(episodes), episodes.actions, episodes.mask, 0.0, self.size)

    def follow(self, policy: ModelModule, rollouts: int) -> None:
        """Moves the copy, in place, `schedule(rollouts)` (0 to 1) of the way to `policy`, a model of the same shapes;
        `rollouts` is the number of rollouts that were learned from before this one. Does nothing without a copy."""
        if self.model is not None:
            move(self.model, policy, self.schedule(rollouts))

    def state_dict(self) -> dict[str, Any]:
        """Returns the weights of the copy, the live tensors; {} without a copy."""
        return {} if self.model is None else dict(self.model.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the weights of the copy. Raises UserError where there is a copy and `state` is empty: the saved run
        had none, and the policy that it began with is gone. Raises RuntimeError where names or shapes differ. Without a
        copy `state` is ignored."""
        if self.model is None:
            return
        if not state:
            problem = "cannot be switched on by a resume: the run has kept no reference, and the policy has moved since"
            raise UserError("algorithm.kl_coef, algorithm.kl_loss_coef", problem, "start a new run with init_from=RUN")
        self.model.load_state_dict(state)
