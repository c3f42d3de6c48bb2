"""How Q-values become a policy: `acting` of the Q-learning presets.

`model` of a part is the frozen network it acts with, or None. `logits(q, prior)` is called with Q [..., V] and the
output of that network for the same states (None without one), and returns log-probabilities up to a constant [..., V].
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import frozen_copy
from tokenrl_cli.config.ranges import Weight
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import ModelModule, ModelOutput


def greedy(q: Tensor) -> Tensor:
    """Returns the logits of the policy that always generates the best token, the first of several: 0 for it, -inf for
    all others. q holds Q [..., V] -> [..., V], without gradient."""
    return torch.full_like(q, -torch.inf).scatter(-1, q.argmax(-1, keepdim=True), 0.0)


class Greedy:
    """pi(s) = argmax_a Q(s, a). Where Q is 0 for all tokens, as at the switch from the warm start, that is token 0:
    what the warm start learned is lost."""

    model = None

    def logits(self, q: Tensor, prior: ModelOutput | None) -> Tensor:
        """Returns 0 for the token with the largest Q (the first of several), -inf for all others: Q [..., V] ->
        [..., V], without gradient. `prior` is not read."""
        return greedy(q)


class Tilted:
    """pi(a | s) ~ prior(a | s) exp(beta Q(s, a)), with beta an inverse temperature. The prior is a frozen copy of the
    model, made when RL begins; with Q = 0 or beta = 0 it is pi.

    It maximises E_pi[Q(s, a)] - KL(pi || prior) / beta; Peng et al. 2019 (arXiv:1910.00177, section 3).
    """

    def __init__(self, model: ModelModule, beta: Weight) -> None:
        self.beta, self.model = beta, frozen_copy(model)

    def logits(self, q: Tensor, prior: ModelOutput | None) -> Tensor:
        """Returns log prior(a | s) + beta Q(s, a), not normalised, in float32 or float64: Q [..., V] -> [..., V].
        `prior` is the output of `self.model` for the same states; AssertionError if it is None. Gradients flow into
        Q."""
        assert prior is not None
        return precise(prior.logits).log_softmax(-1) + self.beta * q
