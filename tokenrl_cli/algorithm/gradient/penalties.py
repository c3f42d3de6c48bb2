"""Penalties on KL and length, which are subtracted from the rewards of a rollout before its returns are computed."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tokenrl_cli.algorithm.gradient.episodes import learned_tokens
from tokenrl_cli.algorithm.gradient.reference import ReferencePolicy
from tokenrl_cli.algorithm.parts.kl_control import AdaptiveKl
from tokenrl_cli.functional.kl import k1
from tokenrl_cli.functional.masking import masked_mean, masked_sum
from tokenrl_cli.functional.returns import overlong_penalty
from tokenrl_cli.interfaces import GREEDY, SAMPLED, Rollout


class Penalties:
    """r_t <- r_t - beta (log pi(a_t | s_t) - log ref(a_t | s_t)), plus a penalty on length, 0 to -1, at the last token.

    beta is the coefficient of `kl`. The log-ratio is `functional.kl.k1` at the time of sampling, so the returns hold
    the KL of the rest of the episode (Ziegler et al. 2019, arXiv:1909.08593, section 2.2). The penalty on length is
    `functional.returns.overlong_penalty`, which goes from 0 to -1 over the last `overlong_share` of `max_length`.

    Both apply to samples, added demonstrations and continuations, for the value of a state includes the
    penalties that follow it; not to greedy episodes, which are the baseline of the reward alone. Forced tokens have no
    KL penalty, as the policy did not generate them.
    """

    def __init__(self, kl: AdaptiveKl, reference: ReferencePolicy, overlong_share: float, max_length: int) -> None:
        self.kl, self.reference, self.overlong_share, self.max_length = kl, reference, overlong_share, max_length

    @torch.no_grad()
    def __call__(self, rollout: Rollout) -> tuple[Rollout, dict[str, float]]:
        """Returns a new Rollout with other rewards [B, T], and metrics, of the sampled episodes alone, also those
        without a reward: `kl` (mean log-ratio, nats a token), `kl_coef` (beta before this update) and
        `overlong_penalty` (mean an episode, 0 to -1); the first two only with beta above 0, the last only with
        `overlong_share` above 0. AssertionError for a rollout without rewards.

        Afterwards beta, if it is above 0, is adapted to the KL of this rollout.
        """
        assert rollout.rewards is not None
        rewards, metrics = rollout.rewards, dict[str, float]()
        pays, sampled = rollout.role != GREEDY, rollout.role == SAMPLED
        if self.kl.coefficient > 0:
            log_ratio = self._log_ratio(rollout).masked_fill(~pays.unsqueeze(-1), 0.0)
            rewards = rewards - self.kl.coefficient * log_ratio
            chosen = rollout.mask & rollout.chosen & sampled.unsqueeze(-1)
            metrics |= {"kl": float(masked_mean(log_ratio, chosen)), "kl_coef": self.kl.coefficient}
            self.kl.observe(float(masked_sum(log_ratio, chosen) / sampled.sum().clamp(min=1)))
        if self.overlong_share > 0:
            penalty = overlong_penalty(rollout.mask, self.max_length, self.overlong_share).to(rewards.dtype)
            last = (rollout.mask.sum(-1, keepdim=True) - 1).clamp(min=0)  # no token costs nothing, wherever it is paid
            rewards = rewards.scatter_add(1, last, (penalty * pays).unsqueeze(-1))
            metrics["overlong_penalty"] = float(masked_mean(penalty, sampled))
        return replace(rollout, rewards=rewards), metrics

    def _log_ratio(self, rollout: Rollout) -> Tensor:
        """k1 of every token that is learned from, 0 elsewhere: [B, T]."""
        return k1(rollout.logprobs, self.reference.logprobs(rollout)).masked_fill(~learned_tokens(rollout), 0.0)
