"""Baselines without memory: what is taken from the returns of N sources with K samples each.

A baseline names what it needs: `returns` [N, K, T] (0 after the end of an episode), `valid` [N, K] and `companion`
[N, T], the return-to-go of the greedy episode of each source; asking for `companion` is what makes an algorithm decode
one. It gives back something that broadcasts to [N, K, T]. None of these reads the actions of the episode it is taken
from, so none biases the gradient (Williams 1992; `leave_one_out` reads the other episodes alone).
"""

from __future__ import annotations

import torch
from torch import Tensor


def no_baseline(returns: Tensor) -> Tensor:
    """b = 0: REINFORCE (Williams 1992)."""
    return returns.new_zeros(())


def greedy(companion: Tensor) -> Tensor:
    """b_t = return-to-go of the greedy episode at the same t, 0 after its end. -> [N, 1, T].

    Self-critical sequence training, Rennie et al. 2017 (arXiv:1612.00563), equation 9; with dense rewards, per token.
    """
    return companion.unsqueeze(1)


def leave_one_out(returns: Tensor, valid: Tensor) -> Tensor:
    """b_{i,t} = mean over the other valid samples j of G_{j,t}, 0 after the end of j. -> [N, K, T].

    RLOO, Ahmadian et al. 2024 (arXiv:2402.14740), equation 6; with dense rewards, per token. A sample without a valid
    companion has nothing to compare with: its baseline is its own return, so it weighs nothing.
    """
    counted = returns * valid.unsqueeze(-1)
    others = valid.sum(1, keepdim=True) - valid.to(returns.dtype)  # [N, K]
    mean = (counted.sum(1, keepdim=True) - counted) / others.clamp(min=1).unsqueeze(-1)
    return torch.where(others.unsqueeze(-1) > 0, mean, returns)
