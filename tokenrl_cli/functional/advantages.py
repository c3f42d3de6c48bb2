"""Baselines without memory: what is taken from the returns of N sources with K samples each.

A baseline names what it needs: `returns` [N, K, T] (returns to go; past the end of an episode that of its last token),
`valid` [N, K], `values` [N, K, T] of the critic and `companion` [N, T], the returns of the greedy episode of each
source; asking for `companion` is what makes an algorithm decode one. It gives back something that broadcasts to
[N, K, T]. `no_baseline`, `greedy`, `leave_one_out` and `state_value` do not read the token whose advantage they are
taken for, so they do not bias the gradient (Williams 1992).
"""

from __future__ import annotations

import torch
from torch import Tensor


def no_baseline(returns: Tensor) -> Tensor:
    """b = 0: REINFORCE (Williams 1992)."""
    return returns.new_zeros(())


def greedy(companion: Tensor) -> Tensor:
    """b_t = return-to-go of the greedy episode at the same t. -> [N, 1, T].

    Self-critical sequence training, Rennie et al. 2017 (arXiv:1612.00563), equation 9; with dense rewards, per token.
    """
    return companion.unsqueeze(1)


def leave_one_out(returns: Tensor, valid: Tensor) -> Tensor:
    """b_{i,t} = mean over the other valid samples j of G_{j,t}. -> [N, K, T].

    RLOO, Ahmadian et al. 2024 (arXiv:2402.14740), equation 6; with dense rewards, per token. A sample without a valid
    companion has nothing to compare with: its baseline is its own return, so it weighs nothing.
    """
    counted = returns * valid.unsqueeze(-1)
    others = valid.sum(1, keepdim=True) - valid.to(returns.dtype)  # [N, K]
    mean = (counted.sum(1, keepdim=True) - counted) / others.clamp(min=1).unsqueeze(-1)
    return torch.where(others.unsqueeze(-1) > 0, mean, returns)


def group_mean(returns: Tensor, valid: Tensor) -> Tensor:
    """b_t = mean over all valid samples of the source, itself among them. -> [N, 1, T].

    GRPO, Shao et al. 2024 (arXiv:2402.03300). Its own sample in it makes the expected gradient (K - 1) / K of the true.
    """
    counted = returns * valid.unsqueeze(-1)
    return counted.sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]


def batch_mean(returns: Tensor, valid: Tensor) -> Tensor:
    """b_t = mean over all valid samples of the batch, itself among them: (B - 1) / B of the gradient. -> [1, 1, T]."""
    counted = returns * valid.unsqueeze(-1)
    return counted.sum((0, 1), keepdim=True) / valid.sum().clamp(min=1)


def state_value(values: Tensor) -> Tensor:
    """b_t = V(s_t), of the critic. [N, K, T]. It knows the tokens before t only, so it does not bias the gradient."""
    return values


def equal_groups(scores: Tensor, valid: Tensor) -> Tensor:
    """Where all valid samples of a source have one score, so that nothing is to be learned from them. [N, K] -> [N]."""
    highest = scores.masked_fill(~valid, -torch.inf).amax(1)
    return highest <= scores.masked_fill(~valid, torch.inf).amin(1)
