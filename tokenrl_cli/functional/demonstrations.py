"""What a demonstration is worth, token by token, without a reward: GOLD, Pang & He 2021 (arXiv:2009.07839)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def equal(logprobs: Tensor) -> Tensor:
    """r = 1: every demonstration is as good as any (GOLD-delta). logprobs [B, T] of its tokens -> [B, T]."""
    return torch.ones_like(logprobs)


def log_probability(logprobs: Tensor) -> Tensor:
    """r = log p: demonstrations that the warm start finds likely are better (GOLD-p)."""
    return logprobs


def probability(logprobs: Tensor) -> Tensor:
    """r = p (GOLD-s)."""
    return logprobs.exp()


def ahead(rewards: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Q_t = r_t + ... + r_{t + steps} over real tokens. [B, T] -> [B, T], 0 where masked."""
    real = rewards.masked_fill(~mask, 0.0)
    total = real.cumsum(-1)
    width = total.shape[1]
    last = torch.arange(width, device=total.device).add(steps).clamp(max=width - 1).expand_as(total)
    return (total.gather(1, last) - total + real).masked_fill(~mask, 0.0)


def replaced_share(alternatives: int, tau: float) -> float:
    """Probability that a token is another one under q(y) proportional to exp(R(y) / tau) over texts of one length, with
    R = -(1 + log n) times the number of replaced tokens, n the other tokens there are.

    RAML's Hamming distance with the scale of its authors' sampler: n / n^(1 / tau) e^(-1 / tau) to 1.
    """
    odds = alternatives * math.exp(-(math.log(alternatives) + 1) / tau)
    return odds / (1 + odds)
