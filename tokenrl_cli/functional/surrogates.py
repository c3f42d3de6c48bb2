"""Surrogate objectives of policy gradients, per token; the loss is minus their weighted sum.

logprobs [B, T] are log pi(a_t | s_t) of the policy now, sampled_logprobs [B, T] those when the token was sampled,
advantages A [B, T]; the callers in this package pass the last two without gradient. Every function returns (objective
[B, T], clipped [B, T] bool), where `clipped` is True at tokens that clipping leaves without a gradient. Padding gets
values, too: the caller masks them. At the policy that was sampled from, the ratio rho = pi / pi_sampled is 1, and all
of them have the gradient A_t grad log pi(a_t | s_t), `per_decision` if its limit is 0 or at least 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Weight


def score_function(logprobs: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """Score-function objective A log pi, to be maximised: REINFORCE, Williams 1992. logprobs log pi, advantages A,
    [B, T] each -> (objective [B, T], clipped [B, T] bool, all False). Gradients flow into logprobs, and into advantages
    unless they are detached; padding is not masked.

    There is no importance ratio: a sample of an earlier policy has the weight of one of the current policy, which is
    biased.
    """
    return advantages * logprobs, torch.zeros_like(logprobs, dtype=torch.bool)


def clipped_ratio(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, clip_low: Weight, clip_high: Weight
) -> tuple[Tensor, Tensor]:
    """Clipped objective min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), to be maximised, rho = pi / pi_sampled
    of the token.

    logprobs log pi, sampled_logprobs log pi_sampled, advantages A, [B, T] each -> (objective [B, T], clipped [B, T]
    bool, True where clipping leaves the log-probabilities no gradient). Gradients flow into logprobs, and into
    sampled_logprobs and advantages unless they are detached; padding is not masked. PPO, Schulman et al. 2017
    (arXiv:1707.06347), equation 7; with two different bounds DAPO (arXiv:2503.14476), equation 10.
    """
    return _clipped((logprobs - sampled_logprobs).exp(), advantages, clip_low, clip_high)


def sequence_ratio(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_low: Weight, clip_high: Weight
) -> tuple[Tensor, Tensor]:
    """Clipped objective min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), to be maximised, with the
    length-normalised ratio of the whole episode, rho = exp(mean_t log(pi / pi_sampled)) over its real tokens, at each
    of them; the gradient of rho at a token is rho times that of the token's own log-probability.

    logprobs, sampled_logprobs, advantages [B, T], mask [B, T] bool -> (objective [B, T], clipped [B, T] bool, True
    where the token has no gradient because the ratio is clipped); padding gets values, too, for the caller to mask.
    Gradients flow into logprobs, and into advantages unless they are detached; none into sampled_logprobs. GSPO-token,
    Zheng et al. 2025 (arXiv:2507.18071), equation 14.
    """
    # A mean, not a sum: the ratio of a long sequence would leave any clipping range after a tiny change of the policy.
    difference = (logprobs - sampled_logprobs).masked_fill(~mask, 0.0)
    mean = difference.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    # The value is the ratio of the sequence, the gradient that of the token's own log-probability (times the ratio).
    ratio = (mean.detach() + logprobs - logprobs.detach()).exp()
    return _clipped(ratio, advantages, clip_low, clip_high)


def per_decision(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, mask: Tensor, limit: Weight
) -> tuple[Tensor, Tensor]:
    """Per-decision importance sampling, an objective to be maximised: log pi(a_u) sum_{t >= u} w_t (A_t - A_{t+1}),
    with w_t = rho_1 ... rho_t, at most `limit` (0: no limit), as a constant, and A = 0 after the last column. If A is
    the return-to-go, A_t - A_{t+1} is the reward of token t.

    logprobs, sampled_logprobs, mask bool [B, T], and advantages [B, T], which must be 0 where masked -> (objective
    [B, T], clipped [B, T] bool, all False). Gradients flow into logprobs where it stands before the sum, and into
    advantages unless they are detached; the ratios are constants. Precup, Sutton & Singh 2000. Without a limit, a
    baseline or a normalisation the expected gradient is exact for episodes sampled from any policy that gives each of
    their tokens some probability. The ratio of one token alone, as in `clipped_ratio`, is biased there; the price is
    that the variance of w_t grows with the length of the episode.
    """
    ratios = (logprobs - sampled_logprobs).masked_fill(~mask, 0.0).cumsum(-1).exp().detach()
    bounded = ratios.clamp(max=limit) if limit > 0 else ratios
    # Beyond the last token the advantage is 0, so that its whole return is the reward of the last token.
    following = torch.cat([advantages[:, 1:], torch.zeros_like(advantages[:, :1])], 1)
    weighted = (bounded * (advantages - following)).masked_fill(~mask, 0.0)  # w_t (A_t - A_{t+1})
    return weighted.flip(-1).cumsum(-1).flip(-1) * logprobs, torch.zeros_like(mask)


def detached_clip(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, clip_low: Weight, clip_high: Weight
) -> tuple[Tensor, Tensor]:
    """Objective sg(clip(rho, 1 - clip_low, 1 + clip_high)) A log pi, to be maximised, with rho = pi / pi_sampled of the
    token and sg the stop-gradient (a constant): the importance weight is bounded, and no token loses its gradient.

    logprobs log pi, sampled_logprobs log pi_sampled, advantages A, [B, T] each -> (objective [B, T], clipped [B, T]
    bool, all False, for it marks tokens without a gradient). Gradients flow into logprobs where it stands after A, and
    into advantages unless they are detached, none into sampled_logprobs; padding is not masked. CISPO, MiniMax 2025
    (arXiv:2506.13585), equation 4; the paper has no lower bound: pass clip_low = 1.
    """
    weight = (logprobs - sampled_logprobs).exp().clamp(1 - clip_low, 1 + clip_high).detach()
    return weight * advantages * logprobs, torch.zeros_like(logprobs, dtype=torch.bool)


def _clipped(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    """min(ratio A, clip(ratio) A) [B, T], and where the second, which is constant, is the smaller [B, T] bool."""
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    clipped = ((advantages > 0) & (ratio > 1 + clip_high)) | ((advantages < 0) & (ratio < 1 - clip_low))
    return torch.minimum(ratio * advantages, bounded * advantages), clipped
