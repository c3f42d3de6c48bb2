"""Targets and losses of learned values, Q(s, a) and V(s). gamma = 1 everywhere.

H is the number of Q-heads; [..., V] has any leading dimensions, usually [B, T, V]. A function that backs up values
declares what it reads by the names of its parameters: `target`, `online`, `policy` (see `algorithm.facts.Backup`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def maximum(target: Tensor) -> Tensor:
    """V(s) = max_a min_h Q_h(s, a), where `target` holds Q of the target network. [H, ..., V] -> [...].

    With one head it is the maximum of Q-learning (Mnih et al. 2015). With two, the lower one is used, for the maximum
    of a noisy estimate is too high on average: clipped double Q-learning, Fujimoto et al. 2018 (arXiv:1802.09477,
    equation 10). Gradients flow into `target` unless it is detached.
    """
    return target.amin(0).amax(-1)


def double(target: Tensor, online: Tensor) -> Tensor:
    """Double Q-learning: V(s) = Q_target(s, argmax_a Q_online(s, a)). The online network selects the token, the target
    network evaluates it. van Hasselt et al. 2016 (arXiv:1509.06461, equation 4).

    target, online [H, ..., V] -> [...]. Of both the minimum over the heads is taken first, for each token. Gradients
    flow into `target` unless it is detached, none into `online`.
    """
    best = online.amin(0).argmax(-1, keepdim=True)
    return target.amin(0).gather(-1, best).squeeze(-1)


def expected(target: Tensor, policy: Tensor) -> Tensor:
    """Expected value V(s) = sum_a pi(a | s) Q_target(s, a): Expected SARSA, van Seijen et al. 2009.

    target [H, ..., V] holds Q of the target network, policy [..., V] the probabilities pi, not their logarithms, which
    sum to 1 -> [...]. Of Q_target the minimum over the heads is taken first, for each token. Gradients flow into both
    unless they are detached.
    """
    return (policy * target.amin(0)).sum(-1)


def soft_value(q: Tensor, prior: Tensor, temperature: float) -> Tensor:
    """Soft value V(s) = tau log sum_a prior(a | s) exp(Q(s, a) / tau), tau = `temperature` > 0: the value of the policy
    that maximises E[Q] - tau KL(pi || prior). Haarnoja et al. 2017 (arXiv:1702.08165, equation 3).

    q [..., V] in units of the reward, and `prior` [..., V] or [..., 1], *log*-probabilities log prior(a | s) -> [...],
    in units of the reward. Where these are all 0, it is tau log sum_a exp(Q / tau), the value with an entropy bonus.
    Gradients flow into both unless they are detached.
    """
    return temperature * (q / temperature + prior).logsumexp(-1)


def n_step_targets(rewards: Tensor, values: Tensor, terminated: Tensor, mask: Tensor, horizon: float) -> Tensor:
    """n-step targets y_t = r_t + ... + r_{t+n-1} + V(s_{t+n}), n = `horizon`, at least 1; fewer rewards where the
    episode ends.

    rewards, mask bool [B, T] that begins each row; values [B, T + 1], of each state and of the state after the last
    column; terminated [B] bool -> [B, T] without gradient, 0 where masked. V of the state after an episode's last token
    is taken as 0 where `terminated` is True, and is used where it is False, for an episode that was cut at the length
    limit. An infinite horizon gives Monte Carlo returns (and V at such a cut). Sutton & Barto 2018, section 7.1; n = 1
    is the target of Watkins 1989.
    """
    lengths = mask.sum(-1, keepdim=True)
    not_over = (torch.arange(values.shape[1], device=mask.device) < lengths) | ~terminated.unsqueeze(-1)
    values = values.masked_fill(~not_over, 0.0)
    # A sum of rewards between two states is a difference of cumulative sums: one gather, whatever the horizon.
    cumulative = torch.nn.functional.pad(rewards.masked_fill(~mask, 0.0).cumsum(-1), (1, 0))  # [B, T + 1]
    start = torch.arange(mask.shape[1], device=mask.device)
    stop = torch.minimum(start + min(horizon, mask.shape[1]), lengths)
    target = cumulative.gather(1, stop) - cumulative[:, :-1] + values.gather(1, stop)
    return target.masked_fill(~mask, 0.0).detach()


def taken(q: Tensor, actions: Tensor) -> Tensor:
    """Values Q_h(s, a_t) of the tokens that were taken, by each of H heads. q [H, M, V], actions [M] int64 -> [H, M].
    Gradients flow into q."""
    return q.gather(-1, actions.expand(len(q), -1).unsqueeze(-1)).squeeze(-1)


def conservative(q: Tensor, q_taken: Tensor) -> Tensor:
    """Conservative penalty log sum_a exp Q(s, a) - Q(s, a_t): minimising it lowers the values of tokens that the data
    does not have. q [..., V], q_taken [...] = Q(s, a_t) -> [...]. Gradients flow into both.

    CQL(H), Kumar et al. 2020 (arXiv:2006.04779, equation 4).
    """
    return q.logsumexp(-1) - q_taken


def expectile_error(values: Tensor, targets: Tensor, expectile: float) -> Tensor:
    """Expectile loss |e - 1[y < V]| (y - V)^2 of values V and targets y, e = `expectile`. [B, T], [B, T] -> [B, T];
    padding is not masked.

    e = 1/2 is half the squared error, whose minimum is the mean of the targets; as e goes to 1 the minimum becomes the
    largest target in the data. Gradients flow into `values`, none into `targets`. Kostrikov et al. 2022
    (arXiv:2110.06169, equation 5), ILQL (arXiv:2206.11871, section 4.2).
    """
    above = targets.detach() - values
    return torch.where(above < 0, (1 - expectile) * above.square(), expectile * above.square())


def advantage_weights(advantages: Tensor, beta: float, largest: float) -> tuple[Tensor, Tensor]:
    """Advantage weights min(exp(beta A), largest), and a mask that is True where exp(beta A) is above `largest`, a
    number above 0. [...] -> ([...], [...] bool). Gradients flow into the advantages where the weight is not bounded;
    detach it where it is to be a constant.

    Advantage-weighted regression, Peng et al. 2019 (arXiv:1910.00177, section 3), with their bound. The exponent is
    bounded before exp, so the weights are finite for every finite A.
    """
    # exp(beta * A) of a large A is infinite in float32, and inf * 0 in the backward pass is NaN.
    exponent = beta * advantages
    highest = math.log(largest)
    return exponent.clamp(max=highest).exp(), exponent > highest


def td_targets(rewards: Tensor, next_values: Tensor, terminal: Tensor) -> Tensor:
    """One-step targets y_t = r_t + V(s_{t+1}), with V = 0 where `terminal` is True (bool), at the last token. Column t
    of `next_values` is V(s_{t+1}), already shifted. [B, T] each -> [B, T] without gradient (Sutton 1988); padding is
    not masked."""
    return (rewards + next_values.masked_fill(terminal, 0.0)).detach()


def last_steps(mask: Tensor) -> Tensor:
    """True at the last real token of each row, for masks that begin each row. [B, T] bool -> [B, T] bool; all False in
    a row without tokens."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return mask & ~following


def value_error(values: Tensor, before: Tensor, targets: Tensor, clip: float) -> Tensor:
    """Value loss of each token, max((V - G)^2, (V_clipped - G)^2) / 2, where V_clipped is V limited to `before` +-
    `clip`, in units of V, and `before` is the value when the episode was sampled; (V - G)^2 / 2 where `clip` is 0.

    values V, before, targets G [B, T] -> [B, T]; padding is not masked. From PPO's reference code (Schulman et al.
    2017, arXiv:1707.06347): one rollout cannot move a value much further than `clip`. Gradients flow into `values`, but
    not where V_clipped has the larger error and V is beyond the clip; none into `before` and `targets`.
    """
    before, targets = before.detach(), targets.detach()
    error = (values - targets).square()
    if clip > 0:
        clipped = before + (values - before).clamp(-clip, clip)
        error = torch.maximum(error, (clipped - targets).square())
    return error / 2


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Explained variance 1 - Var(G - V) / Var(G) of the returns G by the values V, over real tokens: 1 is perfect, 0 as
    good as a constant, below 0 worse. A constant offset of the values does not lower it. values, returns, mask bool
    [B, T] -> a number; 0 where the returns do not vary, and without a real token."""
    real_returns = returns[mask].double()
    variance = float(real_returns.var(correction=0)) if len(real_returns) else 0.0
    return 1 - float((real_returns - values[mask].double()).var(correction=0)) / variance if variance > 1e-12 else 0.0
