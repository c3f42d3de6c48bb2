"""What a policy gradient maximises for each token: functions of the log-probability now and when it was sampled.

Each gives (objective [B, T], stopped [B, T] bool): `stopped` is True where clipping leaves no gradient. With one update
a rollout the ratio is 1 and all of them have the gradient A grad log pi.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Weight


def score_function(logprobs: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """A log pi (Williams 1992): no ratio, so an old sample is taken for a new one."""
    return advantages * logprobs, torch.zeros_like(logprobs, dtype=torch.bool)


def clipped_ratio(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, clip_low: Weight, clip_high: Weight
) -> tuple[Tensor, Tensor]:
    """min(rho A, clip(rho, 1 - low, 1 + high) A), rho = pi / pi_sampled of the token.

    PPO, Schulman et al. 2017 (arXiv:1707.06347), equation 7; two bounds: DAPO (arXiv:2503.14476), equation 10.
    """
    return _clipped((logprobs - sampled_logprobs).exp(), advantages, clip_low, clip_high)


def sequence_ratio(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_low: Weight, clip_high: Weight
) -> tuple[Tensor, Tensor]:
    """As `clipped_ratio`, with rho = exp(mean_t log(pi / pi_sampled)) of the whole episode at each of its tokens.

    GSPO-token, Zheng et al. 2025 (arXiv:2507.18071), equation 14: the sequence's value, the token's gradient.
    """
    difference = (logprobs - sampled_logprobs).masked_fill(~mask, 0.0)
    mean = difference.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    ratio = (mean.detach() + logprobs - logprobs.detach()).exp()
    return _clipped(ratio, advantages, clip_low, clip_high)


def per_decision(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, mask: Tensor, limit: Weight
) -> tuple[Tensor, Tensor]:
    """log pi(a_u) sum_{t >= u} rho_1 ... rho_t (A_t - A_{t+1}): what each token was paid, weighted by how much likelier
    the episode up to it is now, at most `limit` (0: none).

    Per-decision importance sampling, Precup, Sutton & Singh 2000: without a limit, with returns to go and without a
    baseline or scale the expected gradient is exact for episodes of any policy that could have said them. Weights of
    the token alone, as in `clipped_ratio`, are not, and these vary the more the longer an episode is.
    """
    ratios = (logprobs - sampled_logprobs).masked_fill(~mask, 0.0).cumsum(-1).exp().detach()
    bounded = ratios.clamp(max=limit) if limit > 0 else ratios
    following = torch.cat([advantages[:, 1:], torch.zeros_like(advantages[:, :1])], 1)
    paid = (bounded * (advantages - following)).masked_fill(~mask, 0.0)
    return paid.flip(-1).cumsum(-1).flip(-1) * logprobs, torch.zeros_like(mask)


def detached_clip(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, clip_low: Weight, clip_high: Weight
) -> tuple[Tensor, Tensor]:
    """sg(clip(rho, 1 - low, 1 + high)) A log pi: a weight is bounded, no token loses its gradient.

    CISPO, MiniMax 2025 (arXiv:2506.13585), equation 4. As published there is no lower bound (low 1); others bound both.
    """
    weight = (logprobs - sampled_logprobs).exp().clamp(1 - clip_low, 1 + clip_high).detach()
    return weight * advantages * logprobs, torch.zeros_like(logprobs, dtype=torch.bool)


def _clipped(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    stopped = ((advantages > 0) & (ratio > 1 + clip_high)) | ((advantages < 0) & (ratio < 1 - clip_low))
    return torch.minimum(ratio * advantages, bounded * advantages), stopped
