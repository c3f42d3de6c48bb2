"""Soft Q-learning: values of the policy that maximises the expected reward less tau KL(policy || prior)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.algorithm.networks import Composed, one_more_column
from tokenrl_cli.algorithm.parts.data import Experience, Minibatch
from tokenrl_cli.algorithm.parts.exploration import Exploration
from tokenrl_cli.algorithm.parts.head import Logits, QHead
from tokenrl_cli.algorithm.parts.prior import Reference, Uniform
from tokenrl_cli.algorithm.value_based import Collector, LossOutput, ValueBased, ValueNetwork
from tokenrl_cli.config.ranges import Positive, Size
from tokenrl_cli.functional.chunks import in_pieces
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.value import n_step_targets, soft_value, taken
from tokenrl_cli.interfaces import ModelModule, ModelOutput, Rollout, SettingError, Tokenizer
from tokenrl_cli.optim import Learning, Optimizer


class SoftQ(ValueBased):
    """loss = mean_t sum_h (r_t + V(s_{t+1}) - Q_h(s_t, a_t))^2 / 2
    V(s) = tau log sum_a prior(a | s) exp(Q'(s, a) / tau)

    tau is `temperature`, and Q' the minimum over the heads of the target network; Haarnoja et al. 2017
    (arXiv:1702.08165), for text Guo et al. 2022 (arXiv:2106.07704). The policy is
    pi(a | s) ~ prior(a | s) exp(min_h Q_h(s, a) / tau); at the fixed point that of whole texts is
    pi(y) ~ prior(y) exp(R(y) / tau).

    Every update trains the level of Q, too: the constant of each state that a softmax does not depend on. Losses that
    train advantages alone, with V from a target network (two of the three of Guo et al.), leave the level undetermined
    and do not reach that fixed point.

    The policy begins as the warm start with the reference as prior and a zero head, and with the policy's own logits as
    Q / tau and a uniform prior. The constructor raises UserError for the policy's own logits with another prior, or
    with `train_trunk` false.
    """

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        temperature: Positive,
        head: QHead,
        prior: Uniform | Reference,
        target: Callable[[int], float],
        data: Experience,
        exploration: Exploration,
        bootstrap_truncated: bool,
        train_trunk: bool,
        micro_batches: Size,
        optimizer: Callable[[Learning], Optimizer],
    ) -> None:
        if isinstance(head, Logits) and not (train_trunk and isinstance(prior, Uniform)):
            problem = (
                "makes a policy of the model's own logits: with a prior besides it would begin as a power of the warm "
                "start, and train_trunk=false would leave it as it is"
            )
            remedy = "{here}/prior=uniform {here}.train_trunk=true, or {here}/head=linear"
            raise SettingError("/head=logits", problem, remedy)
        self.temperature, self.prior = temperature, prior
        network = ValueNetwork(model, {"q": head}, train_trunk)
        collector = Collector(data, exploration, tokenizer, samples_per_source, max_length, seed)
        super().__init__(network, target, collector, data, 1, bootstrap_truncated, micro_batches, optimizer)

    def compute_loss(self, minibatch: Minibatch) -> LossOutput:
        """Returns the loss of B rewarded episodes of T tokens as a `LossOutput`: the sum over the tokens of these rows,
        each row times its weight, of sum_h (r_t + V(s_{t+1}) - Q_h(s_t, a_t))^2 / 2, divided by the number of tokens of
        the whole minibatch.

        Gradients flow into the learned Q-head and, with `train_trunk`, into the model; the targets r_t + V(s_{t+1})
        [B, T] are constants. The td errors [B, T] are these less min_h Q_h(s_t, a_t), arbitrary at padding. Metrics,
        not weighted, are sums over the tokens of these rows, divided by the same number: loss/td, td_error (absolute),
        q/mean, v/mean and target_gap, |min_h Q_h(s_t, a_t) - Q'(s_t, a_t)|. `ranges` holds q and v at these tokens, of
        which the least and the greatest are logged. Changes no parameter.
        """
        episodes = minibatch.episodes
        output = self.network.read(episodes)
        values, target_q = self._target_values(episodes)  # [B, T + 1], [B, T]
        rewards, terminated = self.rewards(episodes), self.terminated(episodes)
        targets = n_step_targets(rewards, values, terminated, episodes.mask, 1)
        columns = (output.hidden[:, :-1], episodes.actions, targets.to(values.dtype))
        # [B, T] each; in pieces, because [B, T, V] at once may not fit into memory
        td_loss, q = in_pieces(partial(self._loss_terms, output), self.size, *columns)
        td_error = (targets - q).detach()
        logged = {
            "loss/td": td_loss, "td_error": td_error.abs(), "q/mean": q, "v/mean": values[:, :-1],
            "target_gap": (q.detach() - target_q).abs(),
        }  # fmt: skip
        return self.mean_loss(minibatch, td_loss, td_error, logged, {"q": q, "v": values[:, :-1]})

    def _loss_terms(self, output: ModelOutput, hidden: Tensor, actions: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Of M tokens: the squared TD error, a sum over the H heads, and min_h Q_h(s_t, a_t).

        hidden [M, D], actions and targets [M] -> [M] each.
        """
        q_taken = taken(self._q(self.network, hidden, output), actions)  # [H, M]
        return (targets - q_taken).square().sum(0) / 2, q_taken.amin(0)

    def _q(self, network: ValueNetwork, hidden: Tensor, output: ModelOutput) -> Tensor:
        """Q by each of the H heads of `network`: hidden [..., D] -> [H, ..., V].

        A head that takes Q from the logits of the model that gave `output` gets temperature * logits.
        """
        return network.q(hidden, lambda of: self.temperature * precise(output.project(of)))

    @torch.no_grad()
    def _target_values(self, episodes: Rollout) -> tuple[Tensor, Tensor]:
        """V [B, T + 1] of every state, and the target network's Q(s_t, a_t) [B, T]."""
        assert self.target is not None
        actions = one_more_column(episodes.actions)
        target, delayed = self.target, self.target.read(episodes)
        prior = self.prior.read(episodes)

        def of_states(hidden: Tensor, prior_hidden: Tensor, acts: Tensor) -> tuple[Tensor, ...]:
            """Of M states: V and Q of the token taken. [M, D] twice, [M] -> [M] each."""
            q = self._q(target, hidden, delayed).amin(0)  # [M, V]
            log_prior = self.prior.logprobs(prior.project(prior_hidden))
            return soft_value(q, log_prior, self.temperature), taken(q.unsqueeze(0), acts).squeeze(0)

        values, target_q = in_pieces(of_states, self.size, delayed.hidden, prior.hidden, actions)
        return values, target_q[:, :-1]

    def policy(self) -> Composed:
        """Returns the policy pi(a | s) ~ prior(a | s) exp(min_h Q_h(s, a) / tau), as a Model with logits [B, T, V].

        The logits are log-probabilities up to a constant. It shares the learned network, so later updates change it;
        gradients flow into it. Its `start_value` and `action_values` are those of min_h Q_h.
        """

        def values(output: ModelOutput, _prior: ModelOutput | None) -> Tensor:
            return self._q(self.network, output.hidden, output).amin(0)

        def logits(output: ModelOutput, prior: ModelOutput | None) -> Tensor:
            scaled = values(output, prior) / self.temperature
            return scaled if prior is None else scaled + self.prior.logprobs(prior.logits)

        return Composed(self.model, self.prior.model, logits, values)

    def _saved_parts(self) -> dict[str, Any]:
        prior = {} if self.prior.model is None else {"policy.prior": self.prior.model}
        return super()._saved_parts() | prior
