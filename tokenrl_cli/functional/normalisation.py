"""Normalisations of advantages [N, K, T] of N sources (prompts) with K samples each.

A normalisation declares what it reads by the names of its parameters: `advantages` [N, K, T], `scores` [N, K] (returns
of whole episodes), `valid` [N, K] bool (True for a sample that has a reward and was not dropped, as a duplicate or
with a group of equal scores), `mask` [N, K, T] bool (the tokens of valid samples that are learned from), `likelihoods`
[N, K] (log-probability of each whole episode when it was sampled). It returns [N, K, T]. Padding never counts. Where a
standard deviation is EPSILON or less there is nothing to compare, and `group_std`, `batch_std` and `whiten` return 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Positive

EPSILON = 1e-6  # below it a standard deviation is rounding: dividing by it would turn noise into large advantages


def unscaled(advantages: Tensor) -> Tensor:
    """Advantages without any normalisation. [N, K, T] -> [N, K, T], the same tensor."""
    return advantages


def group_std(advantages: Tensor, scores: Tensor, valid: Tensor) -> Tensor:
    """Group-normalised advantages: A / std of the scores of the valid samples of the same source (n - 1 degrees of
    freedom); 0 where the standard deviation is 1e-6 or less, or fewer than two are valid. GRPO, Shao et al. 2024
    (arXiv:2402.03300).

    advantages [N, K, T], scores [N, K], valid [N, K] bool -> [N, K, T]. Padding and samples that are not valid are
    divided like the others: the caller masks them. Sources with a small and with a large spread of scores get the same
    weight, which changes the direction of the gradient (Liu et al. 2025, arXiv:2503.20783).
    """
    return _divided(advantages, _deviation(scores, valid, (1,)).unsqueeze(-1))


def batch_std(advantages: Tensor, scores: Tensor, valid: Tensor) -> Tensor:
    """Batch-normalised advantages: A / std of the scores of all valid samples of the batch (n - 1 degrees of freedom);
    0 where that is 1e-6 or less, or fewer than two are valid.

    advantages [N, K, T], scores [N, K], valid [N, K] bool -> [N, K, T]. Padding and samples that are not valid are
    divided like the others: the caller masks them. One factor for the whole batch: it changes the length of the
    gradient, not its direction.
    """
    return _divided(advantages, _deviation(scores, valid, (0, 1)).unsqueeze(-1))


def whiten(advantages: Tensor, mask: Tensor) -> Tensor:
    """Whitened advantages, (A - mean) / std with mean and std (n degrees of freedom) over the unmasked tokens of the
    batch; 0 where masked, and everywhere if the std is 1e-6 or less.

    advantages [N, K, T], mask [N, K, T] bool -> [N, K, T]. PPO's reference code (Schulman et al. 2017,
    arXiv:1707.06347) and REINFORCE++ (arXiv:2501.03262).
    """
    mean = advantages.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)
    centred = (advantages - mean).masked_fill(~mask, 0.0)  # masked again: padding is now -mean, and would be squared
    return _divided(centred, (centred.square().sum() / mask.sum().clamp(min=1)).sqrt())


def self_normalised(advantages: Tensor, scores: Tensor, valid: Tensor, likelihoods: Tensor, alpha: Positive) -> Tensor:
    """Advantages of minimum risk training: A_k = K alpha Q_k (R_k - sum_j Q_j R_j), where R = `scores` and Q =
    softmax_k(alpha log p(y_k)) over the valid samples k of the source, p the policy that they were sampled from. K is
    the mean number of valid samples of the sources that have any. 0 for samples that are not valid.

    advantages [N, K, T] (read for their shape alone), scores, valid bool and likelihoods log p(y_k) [N, K] each ->
    [N, K, T], the same at every token, padding included: an expanded view, not to be written into. With them the policy
    gradient is that of sum_k Q_k R_k, which is minus the expected risk: Shen et al. 2016 (arXiv:1512.02433), equations
    4 and 10. The sum over j is the baseline, so no other is needed. This is not the gradient of the expected reward:
    with alpha of order 1 it is biased; as alpha goes to 0, A_k becomes alpha times the advantage over the group mean.

    With alpha 1, N = K distinct hypotheses and R = -W it is minimum word error rate training, Prabhavalkar et al. 2018
    (arXiv:1712.01818): L = sum_i p_hat_i (W_i - W_bar) + lambda CE, with p_hat_i = p(y_i) / sum_j p(y_j) and W_bar the
    mean of the W_j, a constant, which adds nothing to the gradient as the p_hat_i sum to 1. W_i is the number of word
    errors there; the reward `wer` has them divided by the length of the reference, one factor for each source.
    """
    weights = (alpha * likelihoods).masked_fill(~valid, -torch.inf).softmax(1).masked_fill(~valid, 0.0)  # Q, [N, K]
    valid_scores = scores.masked_fill(~valid, 0.0)
    gain = alpha * weights * (valid_scores - (weights * valid_scores).sum(1, keepdim=True))
    # K: the mean number of valid samples, one number for the batch, so that every source has the same weight.
    samples = valid.sum() / valid.any(1).sum().clamp(min=1)
    return (samples * gain).unsqueeze(-1).expand_as(advantages)


def _deviation(scores: Tensor, valid: Tensor, over: tuple[int, ...]) -> Tensor:
    """Standard deviation of the valid scores [N, K] over the dimensions `over`, kept with size 1; 0 for one sample."""
    count = valid.sum(over, keepdim=True)
    mean = scores.masked_fill(~valid, 0.0).sum(over, keepdim=True) / count.clamp(min=1)
    squares = (scores - mean).masked_fill(~valid, 0.0).square().sum(over, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def _divided(advantages: Tensor, deviation: Tensor) -> Tensor:
    varies = deviation > EPSILON
    return (advantages / deviation.masked_fill(~varies, 1.0)).masked_fill(~varies, 0.0)
