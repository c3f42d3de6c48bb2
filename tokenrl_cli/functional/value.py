"""Targets and errors of learned values. gamma = 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def maximum(target: Tensor) -> Tensor:
    """V(s) = max_a min_h Q_h(s, a) of the target network. [H, ..., V] -> [...].

    One head: Q-learning's maximum (Mnih et al. 2015). Of two, the lower counts: the clipped double estimate of
    Fujimoto et al. 2018 (arXiv:1802.09477, equation 10), for a maximum over noise is too high.
    """
    return target.amin(0).amax(-1)


def double(target: Tensor, online: Tensor) -> Tensor:
    """V(s) = Q_target(s, argmax_a Q_online(s, a)): one network chooses the token, another one values it.

    van Hasselt et al. 2016 (arXiv:1509.06461, equation 4). Of several heads the lowest counts, in both.
    [H, ..., V], [H, ..., V] -> [...].
    """
    chosen = online.amin(0).argmax(-1, keepdim=True)
    return target.amin(0).gather(-1, chosen).squeeze(-1)


def expected(target: Tensor, policy: Tensor) -> Tensor:
    """V(s) = sum_a pi(a | s) Q_target(s, a): what a policy expects of its own next token, `policy` [..., V].

    Expected SARSA, van Seijen et al. 2009. Of several heads the lowest counts. [H, ..., V], [..., V] -> [...].
    """
    return (policy * target.amin(0)).sum(-1)


def soft_value(q: Tensor, prior: Tensor, temperature: float) -> Tensor:
    """V(s) = tau log sum_a prior(a) exp(Q(s, a) / tau), where `prior` [..., V] holds logarithms; 0 counts every token
    once, so that V has the entropy in it. [..., V] -> [...]. Haarnoja et al. 2017 (arXiv:1702.08165, equation 3).
    """
    return temperature * (q / temperature + prior).logsumexp(-1)


def n_step_targets(rewards: Tensor, values: Tensor, ended: Tensor, mask: Tensor, horizon: float) -> Tensor:
    """y_t = r_t + ... + r_{t+n-1} + V(s_{t+n}), n = `horizon`, or to the state after the last real token if that is
    sooner. Sutton & Barto 2018, section 7.1; one step is Watkins 1989.

    values [B, T + 1] of every state and of the one after the last column; that after an episode's last token counts
    only where it was not `ended` [B]. rewards, mask [B, T] -> [B, T] without gradient. An infinite horizon gives
    Monte-Carlo returns.
    """
    lengths = mask.sum(-1, keepdim=True)
    open_end = (torch.arange(values.shape[1], device=mask.device) < lengths) | ~ended.unsqueeze(-1)
    values = values.masked_fill(~open_end, 0.0)
    earned = torch.nn.functional.pad(rewards.masked_fill(~mask, 0.0).cumsum(-1), (1, 0))  # before each state
    start = torch.arange(mask.shape[1], device=mask.device)
    stop = torch.minimum(start + min(horizon, mask.shape[1]), lengths)
    target = earned.gather(1, stop) - earned[:, :-1] + values.gather(1, stop)
    return target.masked_fill(~mask, 0.0).detach()


def taken(q: Tensor, actions: Tensor) -> Tensor:
    """Q_h(s, a_t) of the tokens that were taken. q [H, M, V], actions [M] -> [H, M]."""
    return q.gather(-1, actions.expand(len(q), -1).unsqueeze(-1)).squeeze(-1)


def conservative(q: Tensor, q_taken: Tensor) -> Tensor:
    """log sum_a exp Q(s, a) - Q(s, a_t), which pushes down what the data did not do. [..., V], [...] -> [...].

    CQL(H), Kumar et al. 2020 (arXiv:2006.04779, equation 4).
    """
    return q.logsumexp(-1) - q_taken


def expectile_error(values: Tensor, targets: Tensor, expectile: float) -> Tensor:
    """|e - 1[y < V]| (y - V)^2: at e = 1/2 half a squared error, towards 1 the best that was seen. [B, T] -> [B, T].

    Kostrikov et al. 2022 (arXiv:2110.06169, equation 5), ILQL (arXiv:2206.11871, section 4.2).
    """
    above = targets.detach() - values
    return torch.where(above < 0, (1 - expectile) * above.square(), expectile * above.square())


def advantage_weights(advantages: Tensor, beta: float, largest: float) -> tuple[Tensor, Tensor]:
    """-> exp(beta A), at most `largest`, and where it was clipped to that. Any shape; finite for any finite A.

    Peng et al. 2019 (arXiv:1910.00177, section 3), with their clip.
    """
    exponent = beta * advantages
    highest = math.log(largest)
    return exponent.clamp(max=highest).exp(), exponent > highest


def td_targets(rewards: Tensor, next_values: Tensor, terminal: Tensor) -> Tensor:
    """y_t = r_t + V(s_{t+1}), without V where the episode is over. All [B, T]; the result has no gradient."""
    return (rewards + next_values.masked_fill(terminal, 0.0)).detach()


def last_steps(mask: Tensor) -> Tensor:
    """True at the last real token of each row of mask [B, T]."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return mask & ~following


def value_error(values: Tensor, before: Tensor, targets: Tensor, clip: float) -> Tensor:
    """(V - G)^2 / 2 [B, T], or the same of V clipped to within `clip` of what it was when the episode was sampled,
    where that is the larger (PPO's reference code; 0: off)."""
    before, targets = before.detach(), targets.detach()
    error = (values - targets).square()
    if clip > 0:
        clipped = before + (values - before).clamp(-clip, clip)
        error = torch.maximum(error, (clipped - targets).square())
    return error / 2


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(G - V) / Var(G) over real tokens: 1 is perfect, 0 no better than their mean, below 0 worse."""
    known = returns[mask].double()
    spread = float(known.var(correction=0)) if len(known) else 0.0
    return 1 - float((known - values[mask].double()).var(correction=0)) / spread if spread > 1e-12 else 0.0
