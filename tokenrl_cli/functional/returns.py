"""Returns of episodes from the rewards of their tokens, and a penalty on their length."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Probability


def reward_to_go(rewards: Tensor, mask: Tensor) -> Tensor:
    """Return-to-go G_t = sum_{u >= t} r_u over real tokens, gamma = 1. rewards [B, T], mask [B, T] bool -> [B, T], 0
    where masked.

    If only the last token has a reward, every token before it has that reward as its return.
    """
    real = rewards.masked_fill(~mask, 0.0)
    # A cumulative sum from the right; torch has only the one from the left.
    return real.flip(-1).cumsum(-1).flip(-1).masked_fill(~mask, 0.0)


def padded_reward_to_go(rewards: Tensor, mask: Tensor) -> Tensor:
    """Return-to-go G_t = sum_{u >= t} r_u, gamma = 1; past the end of an episode the return of its last token is
    repeated (0 where it has no token). rewards [B, T], mask [B, T] bool that begins each row -> [B, T].

    For baselines that compare episodes of different lengths at the same t. With 0 past the end, a token of a long
    episode would be compared with the 0 of shorter ones, and a terminal reward with a mean that depends on how many
    episodes are still running. With the last return, the terminal rewards of whole episodes are compared at every t, as
    the papers of the baselines do; with dense rewards it is the reward of the last token.
    """
    returns = reward_to_go(rewards, mask)
    last = returns.gather(1, (mask.sum(-1, keepdim=True) - 1).clamp(min=0))  # [B, 1], of each last real token
    return torch.where(mask, returns, last)


def lambda_returns(rewards: Tensor, values: Tensor, fresh: Tensor, mask: Tensor, gae_lambda: Probability) -> Tensor:
    """Lambda-return G_t = r_t + (1 - lambda) V(s_{t+1}) + lambda G_{t+1}, lambda = `gae_lambda`, gamma = 1; after the
    last token V = G = 0, also for an episode that was cut at the length limit.

    rewards, values V(s_t), fresh bool, mask bool that begins each row: [B, T] each -> [B, T], 0 where masked. Gradients
    flow into `values`: the caller stops them. Less V(s_t) it is the generalised advantage estimate, Schulman et al.
    2016 (arXiv:1506.02438), equation 16: lambda = 1 gives the return-to-go, lambda = 0 with `fresh` True everywhere the
    one-step temporal difference target.

    `fresh` is True where values[:, t] was estimated for the state s_t itself, and False where it is repeated from an
    earlier state. Such a repeated V(s_{t+1}) already contains rewards that were received since, so there G_t = r_t +
    G_{t+1} without lambda.
    """
    real, known = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    returns = torch.zeros_like(real)
    later, value = real.new_zeros(len(real)), real.new_zeros(len(real))  # G_{t+1} and V(s_{t+1}), [B]
    estimated = torch.ones_like(mask[:, 0])  # V(s_{t+1}) is fresh, or t is the last token
    for t in range(real.shape[1] - 1, -1, -1):
        ahead = torch.where(estimated, (1 - gae_lambda) * value + gae_lambda * later, later)
        later = (real[:, t] + ahead).masked_fill(~mask[:, t], 0.0)
        value, estimated = known[:, t], fresh[:, t] | ~mask[:, t]
        returns[:, t] = later
    return returns


def overlong_penalty(mask: Tensor, max_length: int, share: float) -> Tensor:
    """Soft length penalty: 0 for lengths up to (1 - share) * max_length, then linear down to -1 at max_length, and -1
    beyond. `share` is above 0 and at most 1.

    The length of a row is the number of its real tokens. mask [B, T] bool -> [B] float64. DAPO (arXiv:2503.14476),
    equation 13, whose buffer of 4,096 tokens before a limit of 20,480 is a share of 0.2.
    """
    buffer = share * max_length
    return ((max_length - buffer - mask.sum(-1).double()) / buffer).clamp(-1.0, 0.0)
