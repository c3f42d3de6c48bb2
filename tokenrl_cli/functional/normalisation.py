"""Scales of advantages [N, K, T]. A part names what it needs: `advantages`, `scores` [N, K] (whole-episode returns),
`valid` [N, K], `mask` [N, K, T] (real tokens of valid episodes), `likelihoods` [N, K] (log-probability of each whole
episode when it was sampled). Padding never counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Positive

EPSILON = 1e-6  # a standard deviation below it is none


def unscaled(advantages: Tensor) -> Tensor:
    """As they are."""
    return advantages


def group_std(advantages: Tensor, scores: Tensor, valid: Tensor) -> Tensor:
    """Divided by the standard deviation of the scores of the source's valid samples (n - 1 degrees of freedom); 0 where
    all are the same. GRPO (arXiv:2402.03300): easy and hard sources weigh the same, which changes the direction."""
    return _divided(advantages, _deviation(scores, valid, (1,)).unsqueeze(-1))


def batch_std(advantages: Tensor, scores: Tensor, valid: Tensor) -> Tensor:
    """Divided by the standard deviation of all valid scores of the batch: a step size, no change of direction."""
    return _divided(advantages, _deviation(scores, valid, (0, 1)).unsqueeze(-1))


def whiten(advantages: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the real tokens of the batch (Schulman et al. 2017; REINFORCE++, arXiv:2501.03262)."""
    mean = advantages.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)
    centred = (advantages - mean).masked_fill(~mask, 0.0)
    return _divided(centred, (centred.square().sum() / mask.sum().clamp(min=1)).sqrt())


def self_normalised(advantages: Tensor, scores: Tensor, valid: Tensor, likelihoods: Tensor, alpha: Positive) -> Tensor:
    """A_k = K alpha Q_k (R_k - sum_j Q_j R_j), Q = softmax_k(alpha log p(y_k)) over the samples of the source.

    The gradient of minus the expected risk sum_k Q_k R_k of minimum risk training, Shen et al. 2016 (arXiv:1512.02433),
    equations 4 and 10, at the policy that was sampled from. It is its own baseline, and takes the whole score whatever
    `advantages` says of the tokens. Not a gradient of the expected reward: alpha of order 1 is biased, alpha towards 0
    becomes alpha times the group mean.
    """
    share = (alpha * likelihoods).masked_fill(~valid, -torch.inf).softmax(1).masked_fill(~valid, 0.0)
    known = scores.masked_fill(~valid, 0.0)
    gain = alpha * share * (known - (share * known).sum(1, keepdim=True))
    mean = valid.sum() / valid.any(1).sum().clamp(min=1)  # samples a source: every source weighs the same
    return (mean * gain).unsqueeze(-1).expand_as(advantages)


def _deviation(scores: Tensor, valid: Tensor, over: tuple[int, ...]) -> Tensor:
    count = valid.sum(over, keepdim=True)
    mean = scores.masked_fill(~valid, 0.0).sum(over, keepdim=True) / count.clamp(min=1)
    squares = (scores - mean).masked_fill(~valid, 0.0).square().sum(over, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def _divided(advantages: Tensor, deviation: Tensor) -> Tensor:
    known = deviation > EPSILON
    return (advantages / deviation.masked_fill(~known, 1.0)).masked_fill(~known, 0.0)
