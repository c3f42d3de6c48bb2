"""From rewards to returns."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Probability


def reward_to_go(rewards: Tensor, mask: Tensor) -> Tensor:
    """G_t = sum_{u >= t} r_u over real tokens, gamma = 1. [B, T] -> [B, T], 0 where masked.

    A terminal reward is thereby broadcast to every token before it.
    """
    real = rewards.masked_fill(~mask, 0.0)
    return real.flip(-1).cumsum(-1).flip(-1).masked_fill(~mask, 0.0)


def held_to_go(rewards: Tensor, mask: Tensor) -> Tensor:
    """`reward_to_go` as a baseline for other episodes: past its end an episode keeps the return of its last token.

    So a terminal reward is compared with terminal rewards at every t, whatever the lengths, as published; of a dense
    reward nothing is left to come but what the last token was paid. [B, T] -> [B, T].
    """
    returns = reward_to_go(rewards, mask)
    last = returns.gather(1, (mask.sum(-1, keepdim=True) - 1).clamp(min=0))
    return torch.where(mask, returns, last)


def lambda_returns(rewards: Tensor, values: Tensor, fresh: Tensor, mask: Tensor, gae_lambda: Probability) -> Tensor:
    """G_t = r_t + (1 - lambda) V(s_{t+1}) + lambda G_{t+1}, gamma = 1; after the last token there is nothing.

    Less V(s_t) it is the generalised advantage estimate, Schulman et al. 2016 (arXiv:1506.02438), equation 16: lambda 1
    is the return to go, lambda 0 the temporal difference. Where V(s_{t+1}) is not `fresh` (that of an earlier state)
    the sum goes on instead. All [B, T] -> [B, T]; 0 where masked, whatever values say there.
    """
    real, known = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    returns = torch.zeros_like(real)
    later, value = real.new_zeros(len(real)), real.new_zeros(len(real))
    measured = torch.ones_like(mask[:, 0])
    for t in range(real.shape[1] - 1, -1, -1):
        ahead = torch.where(measured, (1 - gae_lambda) * value + gae_lambda * later, later)
        later = (real[:, t] + ahead).masked_fill(~mask[:, t], 0.0)
        value, measured = known[:, t], fresh[:, t] | ~mask[:, t]
        returns[:, t] = later
    return returns


def overlong_penalty(mask: Tensor, max_length: int, share: float) -> Tensor:
    """0 up to (1 - share) of the limit, then falling in a straight line to -1 at it. mask [B, T] -> [B].

    DAPO (arXiv:2503.14476), equation 13, with its buffer as a share of the limit (there 4,096 of 20,480 tokens).
    """
    buffer = share * max_length
    return ((max_length - buffer - mask.sum(-1).double()) / buffer).clamp(-1.0, 0.0)
