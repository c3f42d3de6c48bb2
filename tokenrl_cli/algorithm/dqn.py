"""Token-level deep Q-learning: hard maxima, one step or the whole return, with whatever head, backup and data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.algorithm.facts import asked, needs
from tokenrl_cli.algorithm.networks import Composed
from tokenrl_cli.algorithm.parts.acting import Greedy, Tilted
from tokenrl_cli.algorithm.parts.data import Drawn, Experience
from tokenrl_cli.algorithm.parts.exploration import Exploration, Itself
from tokenrl_cli.algorithm.parts.head import own_values
from tokenrl_cli.algorithm.value_based import Lesson, ValueBased, refuse
from tokenrl_cli.config.ranges import Count, Size, Weight
from tokenrl_cli.functional.chunks import in_pieces
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.functional.value import conservative, n_step_targets
from tokenrl_cli.interfaces import ModelOutput, Tokenizer
from tokenrl_cli.optim import Optimizer


class Dqn(ValueBased):
    """loss = mean_t sum_h (y_t - Q_h(s_t, a_t))^2 / 2 + conservatism (log sum_a exp Q_h(s_t, a) - Q_h(s_t, a_t))

    y_t = r_t + ... + r_{t+n-1} + V(s_{t+n}), n = `horizon`, V by `backup` of the target network; gamma = 1. What is
    learned is the best policy's Q (maximum, double), or that of the policy that acts (expected). The last token of an
    episode has no successor; with `bootstrap_truncated` one that was cut at the limit has (then use credit=delta: what
    is still owed is the rest of the score, not all of it again). Without a horizon y_t is the return itself, that of
    the policies that acted, and nothing is bootstrapped.

    Differs from Mnih et al. 2015 (Nature 518, doi:10.1038/nature14236) where text does: the head is a new one that
    starts at zero, because the logits of a likelihood model are no values. So what is greedy on it says token 0 for
    ever at the switch; `acting` may tilt the policy as it was by Q instead.
    """

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        head: nn.Module,
        acting: Greedy | Tilted,
        backup: Callable[..., Tensor],
        horizon: Count | None,
        conservatism: Weight,
        target: Callable[[int], float],
        data: Experience,
        exploration: Exploration,
        bootstrap_truncated: bool,
        train_trunk: bool,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        explores = not isinstance(exploration, Itself)
        own = data.on_policy and not explores and "policy" in needs(backup)
        refuse(
            (horizon is not None and horizon > 1 and not own, f"algorithm.horizon={horizon}",
             "sums the rewards of tokens that another policy than the valued one chose, and nothing corrects that",
             "use horizon=1 or null, algorithm=pcl (its longer paths are right off-policy), or value the policy that "
             "acts: algorithm/acting=tilted algorithm/backup=expected algorithm/exploration=none "
             "algorithm/data=on_policy"),
            (horizon is None and bootstrap_truncated, "algorithm.bootstrap_truncated=true",
             "needs the value of where a text was cut, and returns of whole texts ask no network for one",
             "algorithm.horizon=1"),
            (isinstance(acting, Greedy) and data.samples and not (explores or data.demonstrated),
             "algorithm/exploration=none",
             "the best token of a new head is always the same one, so nothing else would ever be tried",
             "warm_start or boltzmann, or algorithm/acting=tilted"),
        )  # fmt: skip
        own_values(head)
        self.acting = acting
        self.backup, self.horizon, self.conservatism = backup, math.inf if horizon is None else horizon, conservatism
        self.bootstrap_truncated = bootstrap_truncated
        super().__init__(
            model, {"q": head}, tokenizer, max_length, seed, samples_per_source, data, exploration,
            None if horizon is None else target, train_trunk, micro_batches, optimizer,
        )  # fmt: skip

    def lesson(self, drawn: Drawn) -> Callable[[Drawn], Lesson]:
        tokens = drawn.episodes.mask.sum()

        def teach(rows: Drawn) -> Lesson:
            episodes, weights = rows.episodes, self.weights(rows)
            output = self.learned.read(episodes)
            values, delayed = self._values(rows, output)
            assert episodes.rewards is not None
            ended = episodes.ended if self.bootstrap_truncated else torch.ones_like(episodes.ended)
            target = n_step_targets(episodes.rewards, values, ended, episodes.mask, self.horizon)
            td, chosen, pushed = in_pieces(
                self._told(output), self.size, output.hidden[:, :-1], episodes.actions, target.to(values.dtype)
            )
            total = masked_sum(weights * (td + self.conservatism * pushed), episodes.mask) / tokens
            known, error = chosen.detach(), (target - chosen).detach()
            metrics = {
                "loss/td": masked_sum(td.detach(), episodes.mask) / tokens,
                "td_error": masked_sum(error.abs(), episodes.mask) / tokens,
                "q/mean": masked_sum(known, episodes.mask) / tokens,
            }
            ranges = {"q": known[episodes.mask]}
            if self.target is not None:
                metrics["v/mean"] = masked_sum(values[:, :-1], episodes.mask) / tokens
                metrics["target_gap"] = masked_sum((known - delayed).abs(), episodes.mask) / tokens
                ranges["v"] = values[:, :-1][episodes.mask]
            if self.conservatism > 0:
                metrics["loss/conservative"] = masked_sum(pushed.detach(), episodes.mask) / tokens
            return Lesson(total, error, metrics, ranges)

        return teach

    def _told(self, output: ModelOutput) -> Callable[..., tuple[Tensor, ...]]:
        """Of rows: the squared error and the conservative term, over the heads, and the lowest Q(s_t, a_t)."""

        def told(hidden: Tensor, actions: Tensor, target: Tensor) -> tuple[Tensor, ...]:
            q = self.learned.heads["q"](hidden, output.project)
            chosen = q.gather(-1, actions.expand(len(q), -1).unsqueeze(-1)).squeeze(-1)
            td = (target - chosen).square().sum(0) / 2
            pushed = conservative(q, chosen).sum(0) if self.conservatism > 0 else torch.zeros_like(td)
            return td, chosen.amin(0), pushed

        return told

    @torch.no_grad()
    def _values(self, rows: Drawn, output: ModelOutput) -> tuple[Tensor, Tensor]:
        """V [B, T + 1] of every state, and the target network's Q [B, T] of what was chosen there."""
        actions = torch.cat([rows.episodes.actions, torch.zeros_like(rows.episodes.actions[:, :1])], 1)
        if self.target is None:
            nothing = torch.zeros(actions.shape, dtype=rows.episodes.logprobs.dtype, device=actions.device)
            return nothing, nothing[:, :-1]
        target, delayed, prior = self.target, self.target.read(rows.episodes), None
        if "policy" in needs(self.backup) and self.acting.model is not None:
            said = rows.episodes
            prior = self.acting.model(said.source, said.source_mask, actions, said.source_row)

        def valued(hidden: Tensor, now: Tensor, before: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
            q = target.heads["q"](hidden, delayed.project)
            known = {"target": q}
            if needs(self.backup) & {"online", "policy"}:
                known["online"] = self.learned.heads["q"](now, output.project)
            if "policy" in needs(self.backup):
                acted_by = prior and ModelOutput(before, prior.project)
                known["policy"] = self.acting.logits(known["online"].amin(0), acted_by).softmax(-1)
            return asked(self.backup, **known), q.amin(0).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

        read = (delayed.hidden, output.hidden.detach(), (prior or output).hidden.detach())
        values, chosen = in_pieces(valued, self.size, *read, actions)
        return values, chosen[:, :-1]

    def policy(self) -> Composed:
        def values(output: ModelOutput, before: ModelOutput | None) -> Tensor:
            q: Tensor = self.learned.heads["q"](output.hidden, output.project)
            return q.amin(0)

        def logits(output: ModelOutput, before: ModelOutput | None) -> Tensor:
            return self.acting.logits(values(output, before), before)

        return Composed(self.model, self.acting.model, logits, values)

    def _parts(self) -> dict[str, Any]:
        kept = {} if self.acting.model is None else {"policy.acting": self.acting.model}
        return super()._parts() | kept
