"""Advantages: how much better than expected each token of a rollout turned out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tokenrl_cli.algorithm.facts import call_with_facts, needs
from tokenrl_cli.algorithm.gradient.episodes import EpisodesWithAdvantages, learned_tokens
from tokenrl_cli.functional.advantages import equal_groups
from tokenrl_cli.functional.masking import first_occurrences, masked_rows
from tokenrl_cli.functional.returns import padded_reward_to_go, reward_to_go
from tokenrl_cli.functional.value import explained_variance
from tokenrl_cli.interfaces import (
    DEMONSTRATION,
    GREEDY,
    SAMPLED,
    Critic,
    LearnsFromReturns,
    ModelModule,
    Rollout,
    SettingError,
    UserError,
)


class AdvantageEstimator:
    """A_t = scale(G_t - b_t), computed on a whole rollout before it is split into minibatches. No gradient flows.

    G_t, the returns:  `returns(rewards, mask, values, fresh)`, each [B, T]; values are V(s_t) of the `critic`
    b_t, the baseline: `baseline(...)` -> what broadcasts to [N, K, T]
    scale:             `normalisation(...)` -> [N, K, T]

    Each is called with the arguments that it names as parameters. A baseline and a normalisation may name these, of N
    sources with K samples each, an added demonstration among them:
    returns     [N, K, T]  G_t
    values      [N, K, T]  V(s_t)
    valid       [N, K]     bool, True for a sample that has a reward and is left out by neither rule below
    mask        [N, K, T]  bool, the tokens of valid samples that are learned from
    scores      [N, K]     the sum of the rewards of the episode, penalties included
    likelihoods [N, K]     log-probability of the whole episode when it was sampled
    companion   [N, T]     returns-to-go of the greedy episode of each source; past its end that of its last token
    advantages  [N, K, T]  G_t - b_t; a normalisation alone

    With `deduplicate` all but the first of several equal texts of a source are left out. `drop_equal_groups` leaves out
    sources whose valid samples all have the same score (DAPO, arXiv:2503.14476, section 3.2, but without new samples in
    their place).

    The constructor raises UserError where a part needs values that the critic does not estimate, or where the baseline
    reads `valid`, and so compares the samples of a source, and `samples_per_source` is 1, even if a demonstration is
    added.
    """

    def __init__(
        self,
        samples_per_source: int,
        add_reference: bool,
        returns: Callable[..., Tensor],
        critic: Critic,
        baseline: Callable[..., Tensor],
        normalisation: Callable[..., Tensor],
        deduplicate: bool,
        drop_equal_groups: bool,
    ) -> None:
        self.needs = needs(baseline)
        if "valid" in self.needs and samples_per_source < 2:  # who reads that compares the samples of a source
            problem = f"must be at least 2 with this baseline, got {samples_per_source}"
            raise SettingError("samples_per_source", problem)
        if not critic.estimates and "values" in self.needs | needs(returns):
            raise SettingError("critic", "none, but the baseline or the returns ask it", "{here}/critic=value_head")
        self.group_size = samples_per_source + add_reference
        self.returns, self.critic, self.baseline, self.normalisation = returns, critic, baseline, normalisation
        self.deduplicate, self.drop_equal_groups = deduplicate, drop_equal_groups

    @torch.no_grad()
    def __call__(self, rollout: Rollout, model: ModelModule) -> tuple[EpisodesWithAdvantages, dict[str, float]]:
        """Returns, for a rollout with rewards (penalties subtracted) that has `samples_per_source` samples of each
        source, and with `add_reference` its demonstration, as a `Sampler` of the same settings returns it, the episodes
        that are learned from, samples and added demonstrations, those of a source together, with advantages [B, T]; and
        the metrics "baseline/variance_reduction" and, if the critic estimates, "value/explained_variance", shares of a
        variance: 1 all of it, 0 none. The episodes' `valid` is False also where a rule of the class leaves them out,
        their `weights` are 0 still, and their `likelihood_mask` holds all tokens of the demonstrations. `model` is the
        policy, for the critic.

        Afterwards a baseline with a memory is updated with the returns of this rollout. Raises UserError where the
        critic returns another shape than [B, T].
        """
        index = _samples_by_source(rollout)
        episodes = rollout.rows(index)
        values, fresh = (each[index] for each in self._values(rollout, model))
        rewards, mask = episodes.rewards, episodes.mask
        returns = call_with_facts(self.returns, rewards=rewards, mask=mask, values=values, fresh=fresh)
        known = self._by_group(episodes, returns, values)
        if "companion" in self.needs:
            known["companion"] = _greedy_returns(rollout)
        known["advantages"] = known["returns"] - call_with_facts(self.baseline, **known)
        metrics = self._quality(known, episodes)
        if isinstance(self.baseline, LearnsFromReturns):
            self.baseline.observe(known["returns"], known["valid"])
        known["advantages"] = known["advantages"].masked_fill(~known["mask"], 0.0)
        scaled = call_with_facts(self.normalisation, **known).masked_fill(~known["mask"], 0.0).flatten(0, 1)
        row = torch.arange(len(episodes), device=scaled.device)
        learned = EpisodesWithAdvantages(
            episodes=replace(episodes, valid=known["valid"].flatten()),
            advantages=scaled,
            weights=torch.zeros_like(scaled),
            values=values,
            returns=returns,
            first=row % self.group_size == 0,
            likelihood_mask=episodes.target_mask[episodes.source_row],
        )
        return learned, metrics

    def _values(self, rollout: Rollout, model: ModelModule) -> tuple[Tensor, Tensor]:
        """V(s_t) [B, T] of every state, and where [B, T] bool the critic estimated it anew. Raises UserError where a
        critic gives another shape."""
        values, fresh = self.critic.measure(rollout, model)
        for found in (values, fresh):
            if found.shape != rollout.mask.shape:
                name, shapes = type(self.critic).__name__, f"{list(found.shape)}, must be {list(rollout.mask.shape)}"
                raise UserError("algorithm.critic", f"{name}.measure gave a tensor of shape {shapes}")
        return values.to(rollout.logprobs.dtype), fresh.bool()

    def _by_group(self, episodes: Rollout, returns: Tensor, values: Tensor) -> dict[str, Tensor]:
        """What baselines and normalisations may name, but for `companion` and `advantages`; see the class."""
        assert episodes.rewards is not None
        by_group = (-1, self.group_size, returns.shape[1])  # [N, K, T]
        scores = reward_to_go(episodes.rewards, episodes.mask).view(by_group)[..., 0]
        valid = episodes.valid.view(-1, self.group_size)
        if self.deduplicate:
            valid = valid & first_occurrences(episodes.actions.view(by_group), episodes.mask.view(by_group), valid)
        if self.drop_equal_groups:
            valid = valid & ~equal_groups(scores, valid).unsqueeze(-1)
        return {
            "returns": returns.view(by_group),
            "values": values.view(by_group),
            "valid": valid,
            "scores": scores,
            "mask": learned_tokens(episodes).view(by_group) & valid.unsqueeze(-1),
            "likelihoods": masked_rows(episodes.logprobs, episodes.mask).view(valid.shape),
        }

    def _quality(self, known: dict[str, Tensor], episodes: Rollout) -> dict[str, float]:
        """Returns the shares of the variance of the returns that the baseline removes, and of the variance of the
        returns-to-go of rewards that the critic explains: 1 all of it, 0 none."""
        assert episodes.rewards is not None
        returns, mask = known["returns"], known["mask"]
        metrics = {"baseline/variance_reduction": explained_variance(returns - known["advantages"], returns, mask)}
        if self.critic.estimates:
            rewards_to_go = reward_to_go(episodes.rewards, episodes.mask).view(returns.shape)
            metrics["value/explained_variance"] = explained_variance(known["values"], rewards_to_go, mask)
        return metrics


def _samples_by_source(rollout: Rollout) -> Tensor:
    """Indices [N K] of the samples: those of a source together, then its demonstration where that is added."""
    index = ((rollout.role == SAMPLED) | (rollout.role == DEMONSTRATION)).nonzero().squeeze(-1)
    return index[rollout.group[index].argsort(stable=True)]


def _greedy_returns(rollout: Rollout) -> Tensor:
    """Returns to go of the greedy episode of each source, [N, T]; past its end that of its last token."""
    greedy = rollout.rows((rollout.role == GREEDY).nonzero().squeeze(-1))
    assert greedy.rewards is not None
    return padded_reward_to_go(greedy.rewards, greedy.mask)
