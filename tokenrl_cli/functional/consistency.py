"""Path consistency: what holds between a soft policy and its values along every stretch of an episode. gamma = 1.

Of the policy that maximises E[sum r - tau KL(pi || prior)], V(s_i) - V(s_j) = sum_{i <= t < j} r_t - tau l_t for every
stretch, on- and off-policy, where l_t = log pi(a_t | s_t) - log prior(a_t | s_t), the log-ratio. Nachum et al. 2017
(arXiv:1702.08892), with a prior 2018 (arXiv:1707.01891).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Count


def zero_after_end(values: Tensor, mask: Tensor, terminated: Tensor) -> Tensor:
    """Returns V of the states of episodes, with 0 after the last token of those that are `terminated`.

    values [B, T + 1], mask [B, T], terminated [B] bool -> [B, T + 1]. No reward follows the last token of an episode;
    only one that was truncated may go on, and then V there is an estimate like any other.
    """
    lengths = mask.sum(-1, keepdim=True)
    before_end = torch.arange(values.shape[1], device=mask.device) < lengths
    return values.masked_fill(~(before_end | ~terminated.unsqueeze(-1)), 0.0)


def path(
    values: Tensor, rewards: Tensor, log_ratios: Tensor, mask: Tensor, temperature: float, span: Count | None
) -> tuple[Tensor, Tensor]:
    """Returns C_t^2 / 2 and C_t = -V(s_t) + V(s_u) + sum_{t <= k < u} (r_k - tau l_k), [B, T] each, 0 where masked.

    u = t + `span` (None: no limit), or the end of the episode if that is sooner. The gradient is the full one of PCL:
    through V at both ends and through every log-ratio.

    values [B, T + 1] with `zero_after_end`; rewards, log_ratios l, mask [B, T].
    """
    earned = (rewards - temperature * log_ratios).masked_fill(~mask, 0.0)
    earned_before = torch.nn.functional.pad(earned.cumsum(-1), (1, 0))  # before each state, [B, T + 1]
    lengths = mask.sum(-1, keepdim=True)
    start = torch.arange(mask.shape[1], device=mask.device)
    stop = torch.minimum(start + (mask.shape[1] if span is None else span), lengths)
    along = earned_before.gather(1, stop) - earned_before[:, :-1]
    residual = (values.gather(1, stop) - values[:, :-1] + along).masked_fill(~mask, 0.0)
    return residual.square() / 2, residual


def one_token(
    values: Tensor, rewards: Tensor, log_ratios: Tensor, mask: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """-> the sum of two losses with the same value C_t^2 / 2, and C_t of paths to the end of the episode; [B, T] each.

    The first trains V(s_t) alone: all log-ratios are numbers. The second trains the log-ratio l_t of the token at t
    alone: V and the later log-ratios are numbers. OREO, Wang et al. 2024 (arXiv:2412.16145, equations 8 and 9).
    Arguments as of `path`.
    """
    value_loss, residual = path(values, rewards, log_ratios.detach(), mask, temperature, None)
    own = temperature * (log_ratios - log_ratios.detach())  # 0, with a gradient
    policy_loss = (residual.detach() - own).masked_fill(~mask, 0.0).square() / 2
    return value_loss + policy_loss, residual


def log_partition(scores: Tensor, log_ratios: Tensor, group: Tensor, temperature: float) -> Tensor:
    """tau log Z of the source of each episode: the mean of R - tau log(pi(y) / prior(y)) over the episodes of that
    source, without gradient. scores R, log-ratios of whole episodes and `group`, one number for each source: [B] each
    -> [B]. At the optimum every episode has the same, V(s_0).

    Trajectory balance with the VarGrad estimate: TBA, Bartoldson et al. 2025 (arXiv:2503.18929, equation 4).
    """
    estimates = (scores - temperature * log_ratios).detach()
    groups, group_of_row = group.unique(return_inverse=True)
    totals = estimates.new_zeros(len(groups)).index_add(0, group_of_row, estimates)
    return (totals / torch.bincount(group_of_row))[group_of_row]
