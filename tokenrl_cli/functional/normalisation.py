"""Scales of advantages [N, K, T]. A part names what it needs: `advantages`, `scores` [N, K] (whole-episode returns),
`valid` [N, K], `mask` [N, K, T] (real tokens of valid episodes). Padding never counts.
"""

from __future__ import annotations

from torch import Tensor

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


def _deviation(scores: Tensor, valid: Tensor, over: tuple[int, ...]) -> Tensor:
    count = valid.sum(over, keepdim=True)
    mean = scores.masked_fill(~valid, 0.0).sum(over, keepdim=True) / count.clamp(min=1)
    squares = (scores - mean).masked_fill(~valid, 0.0).square().sum(over, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def _divided(advantages: Tensor, deviation: Tensor) -> Tensor:
    known = deviation > EPSILON
    return (advantages / deviation.masked_fill(~known, 1.0)).masked_fill(~known, 0.0)
