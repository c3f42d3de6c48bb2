"""Targets and errors of learned values. gamma = 1."""

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


def value_error(values: Tensor, before: Tensor, targets: Tensor, clip: float) -> Tensor:
    """(V - G)^2 / 2 [B, T], or that of V held within `clip` of what it was when the episode was sampled, where that is
    the larger (PPO's reference code; 0: off)."""
    error = (values - targets).square()
    if clip > 0:
        held = before + (values - before).clamp(-clip, clip)
        error = torch.maximum(error, (held - targets).square())
    return error / 2


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(G - V) / Var(G) over real tokens: 1 is perfect, 0 no better than their mean, below 0 worse."""
    known = returns[mask].double()
    spread = float(known.var(correction=0)) if len(known) else 0.0
    return 1 - float((known - values[mask].double()).var(correction=0)) / spread if spread > 1e-12 else 0.0
