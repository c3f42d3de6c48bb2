"""Path consistency: an equation between the values of a soft policy at both ends of any stretch of an episode, for
gamma = 1.

For the policy that maximises E[sum r - tau KL(pi || prior)], V(s_i) - V(s_j) = sum_{i <= t < j} r_t - tau l_t for every
stretch, on- and off-policy, where l_t = log pi(a_t | s_t) - log prior(a_t | s_t) is the log-ratio. Nachum et al. 2017
(arXiv:1702.08892), with a prior 2018 (arXiv:1707.01891).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Count


def zero_after_end(values: Tensor, mask: Tensor, terminated: Tensor) -> Tensor:
    """Returns the state values with 0 in place of every state after the last token of an episode that is `terminated`;
    those of the other episodes are unchanged.

    values [B, T + 1], mask [B, T] bool that begins each row, terminated [B] bool -> [B, T + 1], a copy through which
    gradients flow. No reward follows the last token of a terminated episode. An episode cut at the length limit may go
    on, so V of its last state is an estimate like any other.
    """
    lengths = mask.sum(-1, keepdim=True)
    before_end = torch.arange(values.shape[1], device=mask.device) < lengths
    return values.masked_fill(~(before_end | ~terminated.unsqueeze(-1)), 0.0)


def path(
    values: Tensor, rewards: Tensor, log_ratios: Tensor, mask: Tensor, temperature: float, span: Count | None
) -> tuple[Tensor, Tensor]:
    """Path consistency loss: returns C_t^2 / 2 and the residual of the path from each token,
    C_t = -V(s_t) + V(s_u) + sum_{t <= k < u} (r_k - tau l_k); [B, T] each, 0 where masked. tau is `temperature`, l the
    log-ratios.

    u = t + `span` (None: no limit), or the end of the episode if that is sooner. The gradient is the full one of PCL
    (Nachum et al. 2017, arXiv:1702.08892), of loss and residual alike: through V at both ends and through every
    log-ratio, and into rewards, too, unless they are detached.

    values [B, T + 1] in units of the reward, after `zero_after_end`; rewards, log_ratios (nats), mask bool [B, T], True
    from the start of each row to its end.
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
    """Path consistency with separate losses for value and policy (OREO, Wang et al. 2024, arXiv:2412.16145, equations 8
    and 9). Returns their sum, which is C_t^2, and the residual of the path from each token to the end of its episode,
    C_t = -V(s_t) + V(s_u) + sum_{t <= k < u} (r_k - tau l_k), where u is the end of the episode; [B, T] each, 0 where
    masked.

    Each of the two losses has the value C_t^2 / 2. In the first the log-ratios are constants: it trains the values
    alone. In the second everything but the log-ratio l_t of the token at t is constant: it trains that alone. The
    residual has gradients into values and rewards, as the first loss has. tau is `temperature`.

    values [B, T + 1] in units of the reward, after `zero_after_end`; rewards, log_ratios (nats), mask bool [B, T], True
    from the start of each row to its end.
    """
    value_loss, residual = path(values, rewards, log_ratios.detach(), mask, temperature, None)
    own = temperature * (log_ratios - log_ratios.detach())  # 0, with a gradient
    policy_loss = (residual.detach() - own).masked_fill(~mask, 0.0).square() / 2
    return value_loss + policy_loss, residual


def log_partition(scores: Tensor, log_ratios: Tensor, group: Tensor, temperature: float) -> Tensor:
    """Estimates tau log Z of the source of each episode: the mean of R - tau log(pi(y) / prior(y)) over the episodes of
    the same source, without gradient. For the optimal policy that term is V(s_0) in every episode.

    scores R, log_ratios of whole episodes (summed over tokens) and group, an integer that is the same for the episodes
    of one source: [B] each -> [B], in units of the reward, equal for the episodes of a source. tau is `temperature`.
    Trajectory balance with the VarGrad estimate: TBA, Bartoldson et al. 2025 (arXiv:2503.18929, equation 4).
    """
    estimates = (scores - temperature * log_ratios).detach()
    groups, group_of_row = group.unique(return_inverse=True)
    totals = estimates.new_zeros(len(groups)).index_add(0, group_of_row, estimates)
    return (totals / torch.bincount(group_of_row))[group_of_row]
