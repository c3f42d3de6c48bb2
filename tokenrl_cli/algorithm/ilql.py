"""Implicit language Q-learning: offline values that never ask for a token the data does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from tokenrl_cli.algorithm.networks import Composed
from tokenrl_cli.algorithm.parts.data import Drawn, Experience
from tokenrl_cli.algorithm.parts.exploration import Exploration
from tokenrl_cli.algorithm.parts.head import Level, own_values
from tokenrl_cli.algorithm.value_based import Lesson, ValueBased, refuse
from tokenrl_cli.config.ranges import Ge, Gt, Lt, Positive, Size, Weight
from tokenrl_cli.functional.chunks import in_pieces
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.value import advantage_weights, conservative, expectile_error, n_step_targets
from tokenrl_cli.interfaces import ModelOutput, Tokenizer
from tokenrl_cli.optim import Optimizer


class Ilql(ValueBased):
    """loss = mean_t sum_h (r_t + V(s_{t+1}) - Q_h(s_t, a_t))^2 / 2  +  L_e(V(s_t), min_h Q'_h(s_t, a_t))
              + conservatism sum_h (log sum_a exp Q_h - Q_h(s_t, a_t))  -  behaviour_coef w_t log pi_b(a_t | s_t)

    Snell et al. 2023 (arXiv:2206.11871): Q' a delayed copy, L_e the expectile error, w_t = exp(advantage_beta (Q' -
    V)), at most `advantage_limit` (beta 0: plain cloning). It acts by pi_b(a | s) exp(beta (min_h Q_h(s, a) - V(s))),
    where pi_b is the model's own softmax: beta is for decoding alone, and no two expectiles want the same. At the
    switch Q is 0, and the policy is the warm start.

    Differs: gamma is 1, for .99 is a penalty of length; one trunk, three kinds of heads (the paper had three models).
    """

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        beta: Weight,
        head: nn.Module,
        expectile: Annotated[float, Gt(0), Lt(1)],
        value_scale: Positive,
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
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        own_values(head)
        refuse(
            (behaviour_coef > 0 and not train_trunk, f"behaviour_coef={behaviour_coef}",
             "the behaviour is the model itself, which train_trunk=false leaves as it is",
             "{here}.behaviour_coef=0"),
        )  # fmt: skip
        self.beta, self.expectile, self.conservatism = beta, expectile, conservatism
        self.behaviour_coef, self.advantage_beta, self.limit = behaviour_coef, advantage_beta, advantage_limit
        self.bootstrap_truncated = bootstrap_truncated
        heads = {"q": head, "v": Level(model, value_scale)}
        super().__init__(
            model, heads, tokenizer, max_length, seed, samples_per_source, data, exploration, target, train_trunk,
            micro_batches, optimizer,
        )  # fmt: skip

    def lesson(self, drawn: Drawn) -> Callable[[Drawn], Lesson]:
        tokens = drawn.episodes.mask.sum()

        def teach(rows: Drawn) -> Lesson:
            episodes, mask, weights = rows.episodes, rows.episodes.mask, self.weights(rows)
            assert episodes.rewards is not None
            output = self.learned.read(episodes)
            values: Tensor = self.learned.heads["v"](output.hidden)
            ended = episodes.ended if self.bootstrap_truncated else torch.ones_like(episodes.ended)
            target = n_step_targets(episodes.rewards, values.detach(), ended, mask, 1)
            best = self._delayed(drawn=rows)
            advantages = (best - values[:, :-1]).detach()
            cloned, held = advantage_weights(advantages, self.advantage_beta, self.limit)
            td, chosen, pushed, nll = in_pieces(
                self._told(output), self.size, output.hidden[:, :-1], episodes.actions, target.to(values.dtype)
            )
            spread = expectile_error(values[:, :-1], best, self.expectile)
            each = td + spread + self.conservatism * pushed + self.behaviour_coef * cloned * nll
            known, error = chosen.detach(), (target - chosen).detach()
            logged = {
                "loss/td": td, "loss/value": spread, "loss/conservative": pushed, "loss/nll": nll,
                "td_error": error.abs(), "q/mean": known, "v/mean": values[:, :-1],
                "target_gap": (known - best).abs(), "adv/mean": advantages, "adv/clipped": held.to(values.dtype),
            }  # fmt: skip
            metrics = {name: masked_sum(value.detach(), mask) / tokens for name, value in logged.items()}
            ranges = {"q": known[mask], "v": values.detach()[:, :-1][mask]}
            return Lesson(masked_sum(weights * each, mask) / tokens, error, metrics, ranges)

        return teach

    def _told(self, output: ModelOutput) -> Callable[..., tuple[Tensor, ...]]:
        """Of rows: squared error and conservative term over the heads, the lowest Q, -log of the behaviour."""

        def told(hidden: Tensor, actions: Tensor, target: Tensor) -> tuple[Tensor, ...]:
            q = self.learned.heads["q"](hidden, output.project)
            chosen = q.gather(-1, actions.expand(len(q), -1).unsqueeze(-1)).squeeze(-1)
            pushed, nll = torch.zeros_like(target), torch.zeros_like(target)
            if self.conservatism > 0:
                pushed = conservative(q, chosen).sum(0)
            if self.behaviour_coef > 0:
                logits = precise(output.project(hidden))
                nll = logits.logsumexp(-1) - logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
            return (target - chosen).square().sum(0) / 2, chosen.amin(0), pushed, nll

        return told

    @torch.no_grad()
    def _delayed(self, drawn: Drawn) -> Tensor:
        """min_h Q'_h(s_t, a_t) [B, T]."""
        assert self.target is not None
        target, output = self.target, self.target.read(drawn.episodes)

        def valued(hidden: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
            q = target.heads["q"](hidden, output.project).amin(0)
            return (q.gather(-1, actions.unsqueeze(-1)).squeeze(-1),)

        return in_pieces(valued, self.size, output.hidden[:, :-1], drawn.episodes.actions)[0]

    def policy(self) -> Composed:
        def values(output: ModelOutput, other: None) -> Tensor:
            q: Tensor = self.learned.heads["q"](output.hidden, output.project)
            return q.amin(0)

        def logits(output: ModelOutput, other: None) -> Tensor:
            advantages = values(output, other) - self.learned.heads["v"](output.hidden).unsqueeze(-1)
            return precise(output.logits).log_softmax(-1) + self.beta * advantages

        return Composed(self.model, None, logits, values)
