"""From rewards to returns."""

from __future__ import annotations

from torch import Tensor


def reward_to_go(rewards: Tensor, mask: Tensor) -> Tensor:
    """G_t = sum_{u >= t} r_u over real tokens, gamma = 1. [B, T] -> [B, T], 0 where masked.

    A terminal reward is thereby broadcast to every token before it.
    """
    real = rewards.masked_fill(~mask, 0.0)
    return real.flip(-1).cumsum(-1).flip(-1).masked_fill(~mask, 0.0)
