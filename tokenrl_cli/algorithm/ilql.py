"""Implicit language Q-learning: values learned offline, with targets that read Q only of tokens in the data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import Composed
from tokenrl_cli.algorithm.parts.data import Experience, Minibatch
from tokenrl_cli.algorithm.parts.exploration import Exploration
from tokenrl_cli.algorithm.parts.head import Project, QHead, ScalarHead, refuse_logits
from tokenrl_cli.algorithm.value_based import Collector, LossOutput, ValueBased, ValueNetwork
from tokenrl_cli.config.ranges import Ge, Gt, Lt, Positive, Size, Weight
from tokenrl_cli.functional.chunks import in_pieces
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.value import advantage_weights, conservative, expectile_error, n_step_targets, taken
from tokenrl_cli.interfaces import ModelModule, ModelOutput, Rollout, SettingError, Tokenizer
from tokenrl_cli.optim import Learning, Optimizer


class Ilql(ValueBased):
    """loss = mean_t sum_h (r_t + V(s_{t+1}) - Q_h(s_t, a_t))^2 / 2  +  L_e(V(s_t), min_h Q'_h(s_t, a_t))
              + conservatism sum_h (log sum_a exp Q_h - Q_h(s_t, a_t))  -  behaviour_coef w_t log pi_b(a_t | s_t)

    Snell et al. 2023 (arXiv:2206.11871): Q' is a delayed copy, L_e the expectile error, and
    w_t = exp(advantage_beta (min_h Q'_h(s_t, a_t) - V(s_t))), at most `advantage_limit` (advantage_beta 0: plain
    cloning). It acts by pi_b(a | s) exp(beta (min_h Q_h(s, a) - V(s))), where pi_b is the model's own softmax; beta is
    read in decoding alone, and its best value depends on the expectile. At the switch from the warm start Q and V are
    0, and the policy is the warm start.

    Differs: gamma is 1, as 0.99 would be a penalty of length; one trunk with three kinds of heads (the paper had three
    models). The constructor raises UserError for a `Logits` head, and for a `behaviour_coef` above 0 without
    `train_trunk`.
    """

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        beta: Weight,
        head: QHead,
        expectile: Annotated[float, Gt(0), Lt(1)],
        value_lr_factor: Positive,
        conservatism: Weight,
        behaviour_coef: Weight,
        advantage_beta: Weight,
        advantage_limit: Annotated[float, Ge(1)],
        target: Callable[[int], float],
        data: Experience,
        exploration: Exploration,
        bootstrap_truncated: bool,
        train_trunk: bool,
        micro_batches: Size,
        optimizer: Callable[[Learning], Optimizer],
    ) -> None:
        refuse_logits(head)
        if behaviour_coef > 0 and not train_trunk:
            problem = "the behaviour is the model itself, which train_trunk=false leaves as it is"
            raise SettingError(f"behaviour_coef={behaviour_coef}", problem, "{here}.behaviour_coef=0")
        self.beta, self.expectile, self.conservatism = beta, expectile, conservatism
        self.behaviour_coef = behaviour_coef
        self.advantage_beta, self.advantage_limit = advantage_beta, advantage_limit
        network = ValueNetwork(model, {"q": head, "v": ScalarHead(model, value_lr_factor)}, train_trunk)
        collector = Collector(data, exploration, tokenizer, samples_per_source, max_length, seed)
        super().__init__(network, target, collector, data, 1, bootstrap_truncated, micro_batches, optimizer)

    def compute_loss(self, minibatch: Minibatch) -> LossOutput:
        """Returns the loss of B rewarded episodes of T tokens as a `LossOutput`: the sum over the tokens of these rows,
        each row times its weight, of the four terms of the class's docstring, divided by the number of tokens of the
        whole minibatch.

        Gradients flow into both heads and, with `train_trunk`, into the model: into V from the expectile error alone,
        as V in the targets of Q and in w_t is a constant, and so is Q'. The td errors [B, T] are r_t + V(s_{t+1}) -
        min_h Q_h(s_t, a_t), arbitrary at padding. Metrics, not weighted, are sums over the tokens of these rows,
        divided by the same number: of the four terms, each without its factors (loss/td, loss/value, loss/conservative,
        loss/nll; the last two are 0 where their coefficient is), of td_error (absolute), q/mean (of the tokens taken,
        the minimum of the heads), v/mean, target_gap (|min_h Q_h - min_h Q'_h| of the token taken), adv/mean, and
        adv/clipped, the share of weights w_t that the limit cut. `ranges` holds q and v at these tokens, of which the
        least and the greatest are logged. Changes no parameter.
        """
        episodes = minibatch.episodes
        output = self.network.read(episodes)
        values = self.network.v(output.hidden)  # [B, T + 1]
        target_q = self._target_q(episodes)
        # V trains by the expectile error alone: in the targets of Q and in the advantages it is a number
        rewards, terminated = self.rewards(episodes), self.terminated(episodes)
        targets = n_step_targets(rewards, values.detach(), terminated, episodes.mask, 1)
        advantages = (target_q - values[:, :-1]).detach()
        clone_weights, clipped = advantage_weights(advantages, self.advantage_beta, self.advantage_limit)
        terms = partial(self._loss_terms, output.project)
        columns = (output.hidden[:, :-1], episodes.actions, targets.to(values.dtype))
        td_loss, conservative_loss, nll, q = in_pieces(terms, self.size, *columns)
        value_loss = expectile_error(values[:, :-1], target_q, self.expectile)
        losses = td_loss + value_loss + self.conservatism * conservative_loss
        losses = losses + self.behaviour_coef * clone_weights * nll
        td_error = (targets - q).detach()
        logged = {
            "loss/td": td_loss, "loss/value": value_loss, "loss/conservative": conservative_loss, "loss/nll": nll,
            "td_error": td_error.abs(), "q/mean": q, "v/mean": values[:, :-1],
            "target_gap": (q.detach() - target_q).abs(), "adv/mean": advantages, "adv/clipped": clipped.to(q.dtype),
        }  # fmt: skip
        return self.mean_loss(minibatch, losses, td_error, logged, {"q": q, "v": values[:, :-1]})

    def _loss_terms(self, project: Project, hidden: Tensor, actions: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Of M tokens: squared TD error and conservative term, both sums over the H heads; -log pi_b(a_t | s_t); and
        min_h Q_h(s_t, a_t). Terms whose weight is 0 are 0.

        hidden [M, D], actions and targets [M] -> [M] each.
        """
        q = self.network.q(hidden, project)  # [H, M, V]
        q_taken = taken(q, actions)  # [H, M]
        conservative_loss, nll = torch.zeros_like(targets), torch.zeros_like(targets)
        if self.conservatism > 0:
            conservative_loss = conservative(q, q_taken).sum(0)
        if self.behaviour_coef > 0:
            logits = precise(project(hidden))
            nll = logits.logsumexp(-1) - logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        return (targets - q_taken).square().sum(0) / 2, conservative_loss, nll, q_taken.amin(0)

    @torch.no_grad()
    def _target_q(self, episodes: Rollout) -> Tensor:
        """min_h Q'_h(s_t, a_t) [B, T] of the target network."""
        assert self.target is not None
        target, output = self.target, self.target.read(episodes)

        def of_tokens(hidden: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
            """[M, D], [M] -> [M]."""
            return (taken(target.q(hidden, output.project), actions).amin(0),)

        return in_pieces(of_tokens, self.size, output.hidden[:, :-1], episodes.actions)[0]

    def policy(self) -> Composed:
        """Returns the policy pi(a | s) ~ pi_b(a | s) exp(beta (min_h Q_h(s, a) - V(s))), as a Model with logits
        [B, T, V].

        The logits are log-probabilities up to a constant. It shares the learned network, so later updates change it;
        gradients flow into it. Its `start_value` and `action_values` are those of min_h Q_h.
        """

        def values(output: ModelOutput, _other: None) -> Tensor:
            return self.network.q(output.hidden, output.project).amin(0)

        def logits(output: ModelOutput, other: None) -> Tensor:
            advantages = values(output, other) - self.network.v(output.hidden).unsqueeze(-1)
            return precise(output.logits).log_softmax(-1) + self.beta * advantages

        return Composed(self.model, None, logits, values)
