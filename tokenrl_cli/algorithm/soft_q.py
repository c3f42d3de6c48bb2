"""Soft Q-learning: values of the policy that earns much and stays close to a prior."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.algorithm.networks import Composed
from tokenrl_cli.algorithm.parts.data import Drawn, Experience
from tokenrl_cli.algorithm.parts.exploration import Exploration
from tokenrl_cli.algorithm.parts.head import Logits
from tokenrl_cli.algorithm.parts.prior import Reference, Uniform
from tokenrl_cli.algorithm.value_based import Lesson, ValueBased, refuse
from tokenrl_cli.config.ranges import Positive, Size
from tokenrl_cli.functional.chunks import in_pieces
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.value import n_step_targets, soft_value
from tokenrl_cli.interfaces import ModelOutput, Rollout, Tokenizer
from tokenrl_cli.optim import Optimizer


class SoftQ(ValueBased):
    """loss = mean_t (r_t + V(s_{t+1}) - Q(s_t, a_t))^2 / 2, V(s) = tau log sum_a prior(a | s) exp(Q'(s, a) / tau)

    Q' is the target network's; pi(a | s) ~ prior(a | s) exp(Q(s, a) / tau), at the fixed point that of whole texts
    ~ prior(y) exp(R(y) / tau).
    Every update trains the level of Q, too. Losses that train advantages alone, with V from a target network (two of
    the three of Guo et al. 2022, arXiv:2106.07704), leave the level free and do not get there.

    With the reference as prior and a zero head, and with the policy's own logits as Q / tau and a uniform prior, the
    policy at the switch is the warm start.
    """

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        temperature: Positive,
        head: nn.Module,
        prior: Uniform | Reference,
        target: Callable[[int], float],
        data: Experience,
        exploration: Exploration,
        bootstrap_truncated: bool,
        train_trunk: bool,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        refuse(
            (isinstance(head, Logits) and not (train_trunk and isinstance(prior, Uniform)), "algorithm/head=logits",
             "makes a policy of the model's own logits: with a prior besides it would begin as a power of the warm "
             "start, and train_trunk=false would leave it as it is",
             "algorithm/prior=uniform algorithm.train_trunk=true, or algorithm/head=linear"),
        )  # fmt: skip
        self.temperature, self.prior, self.bootstrap_truncated = temperature, prior, bootstrap_truncated
        super().__init__(
            model, {"q": head}, tokenizer, max_length, seed, samples_per_source, data, exploration, target, train_trunk,
            micro_batches, optimizer,
        )  # fmt: skip

    def lesson(self, drawn: Drawn) -> Callable[[Drawn], Lesson]:
        tokens = drawn.episodes.mask.sum()

        def teach(rows: Drawn) -> Lesson:
            episodes, weights = rows.episodes, self.weights(rows)
            output = self.learned.read(episodes)
            values, delayed = self._values(episodes)
            assert episodes.rewards is not None
            ended = episodes.ended if self.bootstrap_truncated else torch.ones_like(episodes.ended)
            target = n_step_targets(episodes.rewards, values, ended, episodes.mask, 1)

            def told(hidden: Tensor, actions: Tensor, target: Tensor) -> tuple[Tensor, ...]:
                q = self._q(self.learned, hidden, output)
                chosen = q.gather(-1, actions.expand(len(q), -1).unsqueeze(-1)).squeeze(-1)
                return (target - chosen).square().sum(0) / 2, chosen.amin(0)

            td, chosen = in_pieces(told, self.size, output.hidden[:, :-1], episodes.actions, target.to(values.dtype))
            known = chosen.detach()
            error = target - known
            metrics = {
                "loss/td": masked_sum(td.detach(), episodes.mask) / tokens,
                "td_error": masked_sum(error.abs(), episodes.mask) / tokens,
                "q/mean": masked_sum(known, episodes.mask) / tokens,
                "v/mean": masked_sum(values[:, :-1], episodes.mask) / tokens,
                "target_gap": masked_sum((known - delayed).abs(), episodes.mask) / tokens,
            }
            ranges = {"q": known[episodes.mask], "v": values[:, :-1][episodes.mask]}
            return Lesson(masked_sum(weights * td, episodes.mask) / tokens, error, metrics, ranges)

        return teach

    def _q(self, learned: Any, hidden: Tensor, output: ModelOutput) -> Tensor:
        """[..., D] -> [H, ..., V]."""
        q: Tensor = learned.heads["q"](hidden, lambda read: self.temperature * precise(output.project(read)))
        return q

    @torch.no_grad()
    def _values(self, episodes: Rollout) -> tuple[Tensor, Tensor]:
        """V [B, T + 1] of every state, and the target network's Q [B, T] of what was chosen there."""
        assert self.target is not None
        actions = torch.cat([episodes.actions, torch.zeros_like(episodes.actions[:, :1])], 1)
        delayed = self.target.read(episodes)
        prior = self.prior.read(episodes.source, episodes.source_mask, actions, episodes.source_row)

        def valued(hidden: Tensor, before: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
            q = self._q(self.target, hidden, delayed).amin(0)
            chosen = q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
            return soft_value(q, self.prior.logprobs(prior.project(before)), self.temperature), chosen

        values, chosen = in_pieces(valued, self.size, delayed.hidden, prior.hidden, actions)
        return values, chosen[:, :-1]

    def policy(self) -> Composed:
        def values(output: ModelOutput, before: ModelOutput | None) -> Tensor:
            return self._q(self.learned, output.hidden, output).amin(0)

        def logits(output: ModelOutput, before: ModelOutput | None) -> Tensor:
            scaled = values(output, before) / self.temperature
            return scaled if before is None else scaled + self.prior.logprobs(before.logits)

        return Composed(self.model, self.prior.model, logits, values)

    def _parts(self) -> dict[str, Any]:
        kept = {} if self.prior.model is None else {"policy.prior": self.prior.model}
        return super()._parts() | kept
