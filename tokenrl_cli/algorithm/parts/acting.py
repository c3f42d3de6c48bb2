"""How values become a policy: `acting` of the algorithms that learn Q."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import frozen_copy
from tokenrl_cli.config.ranges import Weight
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import ModelOutput


def greedy(q: Tensor) -> Tensor:
    """Logits of the policy that always takes the best token: 0 for it, -inf for all others. [..., V] -> [..., V]."""
    return torch.full_like(q, -torch.inf).scatter(-1, q.argmax(-1, keepdim=True), 0.0)


class Greedy:
    """Takes the token with the highest Q. Where Q is 0 everywhere that is token 0: the warm start is forgotten."""

    model = None

    def logits(self, q: Tensor, before: ModelOutput | None) -> Tensor:
        return greedy(q)


class Tilted:
    """Acts by prior(a | s) exp(beta Q(s, a)). The prior is the policy at the switch; with Q = 0 it still is that."""

    def __init__(self, model: Any, beta: Weight) -> None:
        self.beta, self.model = beta, frozen_copy(model)

    def logits(self, q: Tensor, before: ModelOutput | None) -> Tensor:
        assert before is not None
        return precise(before.logits).log_softmax(-1) + self.beta * q
