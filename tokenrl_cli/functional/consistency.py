"""Path consistency: what holds between a soft policy and its values along every stretch of an episode. gamma = 1.

Of the policy that maximises E[sum r - tau KL(pi || prior)], V(s_i) - V(s_j) = sum_{i <= t < j} r_t - tau l_t for every
stretch, on- and off-policy, where l_t = log pi(a_t | s_t) - log prior(a_t | s_t). Nachum et al. 2017 (arXiv:1702.08892),
with a prior 2018 (arXiv:1707.01891).
"""

from __future__ import annotations

import torch
from torch import Tensor


def closed(values: Tensor, mask: Tensor, over: Tensor) -> Tensor:
    """Values [B, T + 1] of the states of episodes, 0 after the last token of those that are `over` [B]."""
    lengths = mask.sum(-1, keepdim=True)
    before = torch.arange(values.shape[1], device=mask.device) < lengths
    return values.masked_fill(~(before | ~over.unsqueeze(-1)), 0.0)


def residuals(
    values: Tensor, rewards: Tensor, divergences: Tensor, mask: Tensor, span: float, temperature: float
) -> Tensor:
    """C_t = -V(s_t) + V(s_u) + sum_{t <= k < u} r_k - tau l_k, u = t + `span` or the end of the episode if that is
    sooner. values [B, T + 1] are `closed`; rewards, divergences l, mask [B, T] -> [B, T], 0 where masked.
    """
    paid = (rewards - temperature * divergences).masked_fill(~mask, 0.0)
    before = torch.nn.functional.pad(paid.cumsum(-1), (1, 0))
    lengths = mask.sum(-1, keepdim=True)
    start = torch.arange(mask.shape[1], device=mask.device)
    stop = torch.minimum(start + min(span, mask.shape[1]), lengths)
    along = before.gather(1, stop) - before[:, :-1]
    return (values.gather(1, stop) - values[:, :-1] + along).masked_fill(~mask, 0.0)


def one_token_residuals(
    values: Tensor, rewards: Tensor, divergences: Tensor, mask: Tensor, temperature: float
) -> Tensor:
    """The `residuals` up to the end of the episode, of which the policy learns by its own token alone: what follows,
    and the values, are held. OREO, Wang et al. 2024 (arXiv:2412.16145, equation 9). [B, T]."""
    whole = residuals(values.detach(), rewards, divergences.detach(), mask, float("inf"), temperature)
    own = temperature * (divergences - divergences.detach()).masked_fill(~mask, 0.0)
    return whole - own


def log_partition(scores: Tensor, divergences: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """tau log Z of each source as its samples estimate it, without gradient: the mean of R - tau log(pi / prior).

    Trajectory balance with the VarGrad estimate, TBA, Bartoldson et al. 2025 (arXiv:2503.18929, equation 4).
    scores, divergences of whole texts, valid [N, K] -> [N, 1].
    """
    found = (scores - temperature * divergences).masked_fill(~valid, 0.0)
    return (found.sum(-1, keepdim=True) / valid.sum(-1, keepdim=True).clamp(min=1)).detach()
