"""From rewards to returns."""

from __future__ import annotations

import torch
from torch import Tensor


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
