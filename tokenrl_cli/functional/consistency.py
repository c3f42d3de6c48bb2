"""Path consistency: what holds between a soft policy and its values along every stretch of an episode. gamma = 1.

Of the policy that maximises E[sum r - tau KL(pi || prior)], V(s_i) - V(s_j) = sum_{i <= t < j} r_t - tau l_t for every
stretch, on- and off-policy, where l_t = log pi(a_t | s_t) - log prior(a_t | s_t). Nachum et al. 2017
(arXiv:1702.08892), with a prior 2018 (arXiv:1707.01891).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Count


def closed(values: Tensor, mask: Tensor, over: Tensor) -> Tensor:
    """Values [B, T + 1] of the states of episodes, 0 after the last token of those that are `over` [B]."""
    lengths = mask.sum(-1, keepdim=True)
    before = torch.arange(values.shape[1], device=mask.device) < lengths
    return values.masked_fill(~(before | ~over.unsqueeze(-1)), 0.0)


def path(
    values: Tensor, rewards: Tensor, divergences: Tensor, mask: Tensor, temperature: float, span: Count | None
) -> tuple[Tensor, Tensor]:
    """C^2 / 2 and C_t = -V(s_t) + V(s_u) + sum_{t <= k < u} r_k - tau l_k, where u = t + `span` (None: no limit) or the
    end of the episode if that is sooner. PCL's full gradient: through V at both ends and through every l.

    values [B, T + 1] are `closed`; rewards, divergences l, mask [B, T] -> [B, T] each, 0 where masked.
    """
    paid = (rewards - temperature * divergences).masked_fill(~mask, 0.0)
    before = torch.nn.functional.pad(paid.cumsum(-1), (1, 0))
    lengths = mask.sum(-1, keepdim=True)
    start = torch.arange(mask.shape[1], device=mask.device)
    stop = torch.minimum(start + (mask.shape[1] if span is None else span), lengths)
    along = before.gather(1, stop) - before[:, :-1]
    residual = (values.gather(1, stop) - values[:, :-1] + along).masked_fill(~mask, 0.0)
    return residual.square() / 2, residual


def one_token(
    values: Tensor, rewards: Tensor, divergences: Tensor, mask: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The same to the end of the episode, where the policy learns by its own token alone and V beside it: what follows
    is held in the one half, the policy in the other. OREO, Wang et al. 2024 (arXiv:2412.16145, equations 8 and 9).
    """
    of_values, residual = path(values, rewards, divergences.detach(), mask, temperature, None)
    own = temperature * (divergences - divergences.detach())  # 0, with a gradient
    of_policy = (residual.detach() - own).masked_fill(~mask, 0.0).square() / 2
    return of_values + of_policy, residual


def log_partition(scores: Tensor, divergences: Tensor, group: Tensor, temperature: float) -> Tensor:
    """tau log Z of the source of each episode, as the episodes of that source estimate it: their mean R - tau log(pi /
    prior), without gradient. [B] each, `group` any number that tells sources apart -> [B].

    Trajectory balance with the VarGrad estimate: TBA, Bartoldson et al. 2025 (arXiv:2503.18929, equation 4).
    """
    found = (scores - temperature * divergences).detach()
    groups, of = group.unique(return_inverse=True)
    total = found.new_zeros(len(groups)).index_add(0, of, found)
    return (total / torch.bincount(of))[of]
