"""The reference policy, from which a policy gradient is kept close by a KL divergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import frozen_copy, move
from tokenrl_cli.functional.likelihood import negative_log_likelihood
from tokenrl_cli.interfaces import Rollout, UserError


class ReferencePolicy:
    """ref(a | s): the plain softmax of a copy of the policy, made when RL begins.

    After each rollout the copy goes `schedule(number of rollouts before)` of the way to the policy: 0 leaves it as it
    is, 1 makes it the policy. Without a `model`, as where no coefficient of a KL is above 0, no copy is made, and
    `logits` and `logprobs` must not be called.
    """

    def __init__(self, model: Any | None, schedule: Callable[[int], float]) -> None:
        self.model: Any = None if model is None else frozen_copy(model)
        self.schedule = schedule

    @torch.no_grad()
    def logits(self, episodes: Rollout) -> Tensor:
        """Of every token in every state of the episodes: [B, T, V]."""
        logits: Tensor = self.model(episodes.source, episodes.source_mask, episodes.actions, episodes.source_row).logits
        return logits

    @torch.no_grad()
    def logprobs(self, episodes: Rollout) -> Tensor:
        """log ref(a_t | s_t) of the tokens of the episodes, padding included: [B, T]."""
        return -negative_log_likelihood(self.logits(episodes), episodes.actions, 0.0)

    def follow(self, policy: Any, rollouts: int) -> None:
        """Moves the copy towards `policy`, after `rollouts` rollouts before this one."""
        if self.model is not None:
            move(self.model, policy, self.schedule(rollouts))

    def state_dict(self) -> dict[str, Any]:
        """The weights of the copy; {} without one."""
        return {} if self.model is None else dict(self.model.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError where a reference is needed and the run had none: the policy it began with is gone."""
        if self.model is None:
            return
        if not state:
            problem = "cannot be switched on by a resume: the run has kept no reference, and the policy has moved since"
            raise UserError("algorithm.kl_coef, algorithm.kl_loss_coef", problem, "start a new run with init_from=RUN")
        self.model.load_state_dict(state)
