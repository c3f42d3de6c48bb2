"""Token-level deep Q-learning with hard maxima: targets of n steps or of the whole return; head, backup and data by
choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.algorithm.facts import Backup, call_with_facts, needs
from tokenrl_cli.algorithm.networks import Composed, one_more_column, read_states
from tokenrl_cli.algorithm.parts.acting import Greedy, Tilted
from tokenrl_cli.algorithm.parts.data import Experience, Minibatch
from tokenrl_cli.algorithm.parts.exploration import Exploration, NoExploration
from tokenrl_cli.algorithm.parts.head import Project, QHead, refuse_logits
from tokenrl_cli.algorithm.value_based import Collector, LossOutput, ValueBased, ValueNetwork
from tokenrl_cli.config.ranges import Count, Size, Weight
from tokenrl_cli.functional.chunks import in_pieces
from tokenrl_cli.functional.value import conservative, n_step_targets, taken
from tokenrl_cli.interfaces import ModelModule, ModelOutput, Rollout, SettingError, Tokenizer
from tokenrl_cli.optim import Learning, Optimizer


class Dqn(ValueBased):
    """loss = mean_t sum_h (y_t - Q_h(s_t, a_t))^2 / 2 + conservatism (log sum_a exp Q_h(s_t, a) - Q_h(s_t, a_t))

    y_t = r_t + ... + r_{t+n-1} + V(s_{t+n}), n = `horizon`, V by `backup` of the target network; gamma = 1. What is
    learned is Q of the best policy (maximum, double), or of the policy that acts (expected). V after the last token of
    an episode is 0. With `bootstrap_truncated` it is the estimate where an episode was cut at the limit; then use
    credit=delta, so that V has to predict only the rest of the score. Without a horizon y_t is the return itself, that
    of the policies that acted, and there is no bootstrapping and no target network.

    Differs from Mnih et al. 2015 (Nature 518, doi:10.1038/nature14236) where text does: the head is a new one that
    starts at zero, because the logits of a likelihood model are no values. So at the switch from the warm start a
    greedy policy generates nothing but token 0; with `acting` tilted the policy of the warm start is multiplied by
    exp(beta Q) instead.

    The constructor raises UserError for a `Logits` head; for a `horizon` above 1, unless the policy that acts is valued
    and episodes are its own (`expected`, no exploration, on-policy data with one update a step); for
    `bootstrap_truncated` without a horizon; and for greedy acting that learns from its own samples alone, without
    exploration or demonstrations.
    """

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        head: QHead,
        acting: Greedy | Tilted,
        backup: Backup,
        horizon: Count | None,
        conservatism: Weight,
        target: Callable[[int], float],
        data: Experience,
        exploration: Exploration,
        bootstrap_truncated: bool,
        train_trunk: bool,
        micro_batches: Size,
        optimizer: Callable[[Learning], Optimizer],
    ) -> None:
        refuse_logits(head)
        explores = not isinstance(exploration, NoExploration)
        values_who_acts = data.on_policy and not explores and "policy" in needs(backup)
        _check_horizon(horizon, values_who_acts, bootstrap_truncated)
        _check_that_other_tokens_are_tried(acting, data, explores)
        self.acting, self.backup, self.conservatism = acting, backup, conservatism
        self.horizon = math.inf if horizon is None else horizon
        network = ValueNetwork(model, {"q": head}, train_trunk)
        collector = Collector(data, exploration, tokenizer, samples_per_source, max_length, seed)
        target_update = None if horizon is None else target
        super().__init__(network, target_update, collector, data, 1, bootstrap_truncated, micro_batches, optimizer)

    def compute_loss(self, minibatch: Minibatch) -> LossOutput:
        """Returns the loss of B rewarded episodes of T tokens as a `LossOutput`: the sum over the tokens of these rows,
        each row times its weight, of sum_h (y_t - Q_h(s_t, a_t))^2 / 2 plus `conservatism` times the conservative term,
        divided by the number of tokens of the whole minibatch.

        Gradients flow into the learned Q-head and, with `train_trunk`, into the model. The targets y_t [B, T] are
        constants, as they come from the target network or from the rewards alone. The td errors [B, T] are y_t - min_h
        Q_h(s_t, a_t), arbitrary at padding. Metrics, not weighted, are sums over the tokens of these rows, divided by
        the same number: loss/td, td_error (absolute), q/mean (of the tokens taken, the minimum of the heads) and, with
        a target network Q', v/mean and target_gap, |min_h Q_h(s_t, a_t) - min_h Q'_h(s_t, a_t)|; with `conservatism`
        above 0 loss/conservative, before that factor. `ranges` holds q and, with a target network, v at these tokens,
        of which the least and the greatest are logged. Changes no parameter.
        """
        episodes = minibatch.episodes
        output = self.network.read(episodes)
        values, target_q = self._target_values(episodes, output)  # [B, T + 1], [B, T]
        rewards, terminated = self.rewards(episodes), self.terminated(episodes)
        targets = n_step_targets(rewards, values, terminated, episodes.mask, self.horizon)
        terms = partial(self._loss_terms, output.project)
        columns = (output.hidden[:, :-1], episodes.actions, targets.to(values.dtype))
        td_loss, conservative_loss, q = in_pieces(terms, self.size, *columns)  # [B, T] each; never [B, T, V] at once
        td_error = (targets - q).detach()
        logged, ranges = {"loss/td": td_loss, "td_error": td_error.abs(), "q/mean": q}, {"q": q}
        if self.target is not None:
            logged |= {"v/mean": values[:, :-1], "target_gap": (q.detach() - target_q).abs()}
            ranges["v"] = values[:, :-1]
        if self.conservatism > 0:
            logged["loss/conservative"] = conservative_loss
        return self.mean_loss(minibatch, td_loss + self.conservatism * conservative_loss, td_error, logged, ranges)

    def _loss_terms(self, project: Project, hidden: Tensor, actions: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Of M tokens: squared TD error and conservative term, both sums over the H heads, and min_h Q_h(s_t, a_t).

        hidden [M, D], actions and targets [M] -> [M] each.
        """
        q = self.network.q(hidden, project)  # [H, M, V]
        q_taken = taken(q, actions)  # [H, M]
        td_loss = (targets - q_taken).square().sum(0) / 2
        conservative_loss = torch.zeros_like(td_loss)
        if self.conservatism > 0:
            conservative_loss = conservative(q, q_taken).sum(0)
        return td_loss, conservative_loss, q_taken.amin(0)

    @torch.no_grad()
    def _target_values(self, episodes: Rollout, output: ModelOutput) -> tuple[Tensor, Tensor]:
        """V [B, T + 1] of every state, by `backup`, and min_h of the target network's Q_h(s_t, a_t) [B, T]; zeros
        where there is no target network. `output` is the learned network's."""
        actions = one_more_column(episodes.actions)
        if self.target is None:
            zeros = torch.zeros(actions.shape, dtype=episodes.logprobs.dtype, device=actions.device)
            return zeros, zeros[:, :-1]
        target, delayed, prior = self.target, self.target.read(episodes), None
        if "policy" in needs(self.backup) and self.acting.model is not None:
            prior = read_states(self.acting.model, episodes)

        def of_states(target_hidden: Tensor, hidden: Tensor, prior_hidden: Tensor, acts: Tensor) -> tuple[Tensor, ...]:
            """Of M states: V and the target network's Q of the token taken. [M, D] three times, [M] -> [M] each."""
            facts = {"target": target.q(target_hidden, delayed.project)}  # what a backup may read
            if needs(self.backup) & {"online", "policy"}:
                facts["online"] = self.network.q(hidden, output.project)
            if "policy" in needs(self.backup):
                acts_with = prior and ModelOutput(prior_hidden, prior.project)
                facts["policy"] = self.acting.logits(facts["online"].amin(0), acts_with).softmax(-1)
            return call_with_facts(self.backup, **facts), taken(facts["target"], acts).amin(0)

        hidden = (delayed.hidden, output.hidden.detach(), (prior or output).hidden.detach())
        values, target_q = in_pieces(of_states, self.size, *hidden, actions)
        return values, target_q[:, :-1]

    def policy(self) -> Composed:
        """Returns the policy that `acting` computes from min_h Q_h, as a new Model with logits [B, T, V],
        log-probabilities up to a constant.

        It shares the learned network, so later updates change it, and a gradient may flow into it. Its `start_value`
        and `action_values` are those of min_h Q_h.
        """

        def values(output: ModelOutput, _prior: ModelOutput | None) -> Tensor:
            return self.network.q(output.hidden, output.project).amin(0)

        def logits(output: ModelOutput, prior: ModelOutput | None) -> Tensor:
            return self.acting.logits(values(output, prior), prior)

        return Composed(self.model, self.acting.model, logits, values)

    def _saved_parts(self) -> dict[str, Any]:
        prior = {} if self.acting.model is None else {"policy.acting": self.acting.model}
        return super()._saved_parts() | prior


def _check_horizon(horizon: int | None, values_who_acts: bool, bootstrap_truncated: bool) -> None:
    """Raises UserError where rewards of another policy's tokens would be summed, or a value is missing."""
    if horizon is not None and horizon > 1 and not values_who_acts:
        problem = "sums the rewards of tokens that another policy than the valued one chose, and nothing corrects that"
        remedy = (
            "use horizon=1 or null, algorithm=pcl (its longer paths are right off-policy), or value the policy that "
            "acts: {here}/acting=tilted {here}/backup=expected {here}/exploration=none "
            "{here}/data=on_policy"
        )
        raise SettingError(f"horizon={horizon}", problem, remedy)
    if horizon is None and bootstrap_truncated:
        problem = "needs the value of where a text was cut, and returns of whole texts ask no network for one"
        raise SettingError("bootstrap_truncated=true", problem, "{here}.horizon=1")


def _check_that_other_tokens_are_tried(acting: Greedy | Tilted, data: Experience, explores: bool) -> None:
    """Raises UserError where a greedy policy would learn from nothing but its own episodes."""
    if isinstance(acting, Greedy) and data.samples and not (explores or data.demonstrated):
        problem = "the best token of a new head is always the same one, so nothing else would ever be tried"
        raise SettingError("/exploration=none", problem, "warm_start or boltzmann, or {here}/acting=tilted")
