"""Rewards of demonstrations, token by token, that need no reward function (GOLD, Pang & He 2021, arXiv:2009.07839), and
the share of tokens that RAML replaces in a demonstration (Norouzi et al. 2016, arXiv:1609.00150)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def equal(logprobs: Tensor) -> Tensor:
    """Constant reward r_t = 1: every demonstration is as good as any other. GOLD-delta (arXiv:2009.07839).

    logprobs [B, T] of the demonstration's tokens under the warm-started policy, read for their shape and dtype alone
    -> [B, T], 1 at padding, too.
    """
    return torch.ones_like(logprobs)


def log_probability(logprobs: Tensor) -> Tensor:
    """Reward r_t = log p(y_t | s_t) under the warm-started policy, which prefers likely demonstrations. GOLD-p
    (arXiv:2009.07839). `logprobs` [B, T] holds these, in nats -> [B, T], the same tensor."""
    return logprobs


def probability(logprobs: Tensor) -> Tensor:
    """Reward r_t = p(y_t | s_t), 0 to 1, under the warm-started policy. GOLD-s (arXiv:2009.07839). logprobs [B, T], log
    p(y_t | s_t) in nats -> [B, T]."""
    return logprobs.exp()


def truncated_returns(rewards: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Truncated return Q_t = r_t + ... + r_{t + steps}: steps + 1 columns, of which masked ones add 0. `steps`, at
    least 0, gives r_t alone at 0. rewards [B, T], mask [B, T] bool -> [B, T], 0 where masked.

    GOLD (arXiv:2009.07839) estimates Q(s_t, y_t) of a demonstration this way.
    """
    real = rewards.masked_fill(~mask, 0.0)
    # The sum over a window is a difference of two cumulative sums; the window ends at the last column at the latest.
    total = real.cumsum(-1)
    width = total.shape[1]
    last = torch.arange(width, device=total.device).add(steps).clamp(max=width - 1).expand_as(total)
    return (total.gather(1, last) - total + real).masked_fill(~mask, 0.0)


def replaced_share(alternatives: int, tau: float) -> float:
    """Probability that a token of a demonstration is replaced by another one, in RAML with Hamming distance: a number
    in (0, 1).

    The target distribution is q(y) proportional to exp(R(y) / tau) over texts of the demonstration's length, with R(y)
    = -(1 + log n) * (number of replaced tokens), where n = `alternatives`, at least 1, is the number of other tokens
    that can replace one, and 1 + log n the scale of the authors' sampler. Tokens are independent under q, and the odds
    of a replacement are n exp(-(1 + log n) / tau) to 1. Norouzi et al. 2016 (arXiv:1609.00150).
    """
    odds = alternatives * math.exp(-(math.log(alternatives) + 1) / tau)
    return odds / (1 + odds)
