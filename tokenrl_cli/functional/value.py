"""Targets and errors of token-level Q-learning. gamma = 1."""

from __future__ import annotations

import torch
from torch import Tensor


def max_value(q: Tensor, chooser: Tensor) -> Tensor:
    """V(s) = Q(s, argmax_a chooser(s, a)). [..., V], [..., V] -> [...].

    chooser = q gives Q-learning's maximum (Mnih et al. 2015); the online network as chooser of the target network's
    values gives double Q-learning (van Hasselt et al. 2016, arXiv:1509.06461, equation 4).
    """
    return q.gather(-1, chooser.argmax(-1, keepdim=True)).squeeze(-1)


def td_targets(rewards: Tensor, next_values: Tensor, terminal: Tensor) -> Tensor:
    """y_t = r_t + V(s_{t+1}), without V where the episode is over. All [B, T]; the result has no gradient."""
    return (rewards + next_values.masked_fill(terminal, 0.0)).detach()


def last_steps(mask: Tensor) -> Tensor:
    """True at the last real token of each row of mask [B, T]."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return mask & ~following
