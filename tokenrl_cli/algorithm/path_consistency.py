"""Path consistency learning and its relatives: a policy and its values, held to each other along what was said."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.algorithm.facts import asked
from tokenrl_cli.algorithm.parts.data import Drawn, Experience
from tokenrl_cli.algorithm.parts.exploration import Boltzmann, Exploration
from tokenrl_cli.algorithm.parts.prior import Reference, Uniform
from tokenrl_cli.algorithm.parts.state_value import GroupMean, Head, Tied
from tokenrl_cli.algorithm.value_based import Lesson, ValueBased, refuse
from tokenrl_cli.config.ranges import Positive, Size
from tokenrl_cli.functional.chunks import in_pieces
from tokenrl_cli.functional.consistency import closed, log_partition, one_token
from tokenrl_cli.functional.masking import masked_rows, masked_sum
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import Model, Rollout, Tokenizer
from tokenrl_cli.optim import Optimizer


class PathConsistency(ValueBased):
    """loss = mean over starts t of `consistency`: C_t^2 / 2, C_t = V(s_u) - V(s_t) + sum_{t <= k < u} r_k - tau l_k,
    l_k = log pi(a_k | s_k) - log prior(a_k | s_k), right on- and off-policy for every stretch.

    Starts are all tokens, or with `every_state` false the first of each episode. V by `state_value`. The policy is the
    model itself, so it begins as the warm start. From s_0 to the end, on fresh samples, with any V, the gradient is
    -tau times that of E[R] - tau KL(pi || prior). With `bootstrap_truncated` V(s_u) counts where an episode was cut.
    """

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        temperature: Positive,
        consistency: Callable[..., tuple[Tensor, Tensor]],
        every_state: bool,
        state_value: Head | Tied | GroupMean,
        prior: Uniform | Reference,
        data: Experience,
        exploration: Exploration,
        bootstrap_truncated: bool,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        span = getattr(consistency, "keywords", {}).get("span")
        short = span is not None or getattr(consistency, "func", consistency) is one_token
        head = "algorithm/state_value=head"
        refuse(
            (not every_state and short, "algorithm.every_state=false",
             "leaves all tokens but the first to paths, and only whole ones go through them all",
             "algorithm.every_state=true, or algorithm/consistency=path algorithm.consistency.span=null"),
            (isinstance(exploration, Boltzmann), "algorithm/exploration=boltzmann",
             "acts by Q-values, and this algorithm has none", "algorithm/exploration=none"),
            (state_value.mates and every_state, "algorithm/state_value=group_mean",
             "tells what a source is worth, nothing of the states inside a text",
             f"algorithm.every_state=false, or {head}"),
            (state_value.mates and bootstrap_truncated, "algorithm.bootstrap_truncated=true",
             "asks what the state is worth where a text was cut, and group_mean does not tell", head),
            (state_value.mates and data.priority > 0, "algorithm.data.priority",
             "draws episodes one by one, and group_mean compares all samples of a source",
             f"algorithm.data.priority=0, or {head}"),
            (state_value.mates and data.demonstrated > 0 and data.fresh == 0, "algorithm.data.fresh=0",
             "leaves demonstrations alone, and group_mean compares them with fresh samples of their source",
             f"algorithm.data.fresh=0.5, say, or {head}"),
            (state_value.mates and samples_per_source < 2, "algorithm.samples_per_source",
             f"must be at least 2 to compare, got {samples_per_source}", head),
        )  # fmt: skip
        self.temperature, self.consistency, self.every_state = temperature, consistency, every_state
        self.state_value, self.prior, self.bootstrap_truncated = state_value, prior, bootstrap_truncated
        self.mates = samples_per_source if state_value.mates else 1
        heads = {} if state_value.head is None else {"v": state_value.head}
        super().__init__(
            model, heads, tokenizer, max_length, seed, samples_per_source, data, exploration, None, True, micro_batches,
            optimizer,
        )  # fmt: skip

    def lesson(self, drawn: Drawn) -> Callable[[Drawn], Lesson]:
        starts = self.starts(drawn.episodes).sum()
        worth = self._worth(drawn.episodes)
        done = 0  # rows of the parts before

        def teach(rows: Drawn) -> Lesson:
            nonlocal done
            episodes, mask, start = rows.episodes, rows.episodes.mask, self.starts(rows.episodes)
            divergences, tied, hidden = self._read(episodes)
            values = self.state_value(hidden, tied, worth[done : done + len(rows)])
            done += len(rows)
            over = episodes.ended if self.bootstrap_truncated else torch.ones_like(episodes.ended)
            values = closed(values, mask, over)
            error, residual = asked(
                self.consistency, values=values, rewards=episodes.rewards, divergences=divergences, mask=mask,
                temperature=self.temperature,
            )  # fmt: skip
            known = (values[:, :-1] + self.temperature * divergences).detach()  # Q(s_t, a_t)
            loss = masked_sum(self.weights(rows) * error, start) / starts
            logged = {
                "loss/consistency": error, "consistency_residual": residual.abs(), "v/mean": values[:, :-1],
                "q/mean": known,
            }  # fmt: skip
            metrics = {name: masked_sum(value.detach(), start) / starts for name, value in logged.items()}
            metrics["log_ratio"] = masked_sum(divergences.detach(), mask) / drawn.episodes.mask.sum()
            ranges = {"q": known[start], "v": values.detach()[:, :-1][start]}
            return Lesson(loss, residual.detach().masked_fill(~start, 0.0), metrics, ranges)

        return teach

    def starts(self, episodes: Rollout) -> Tensor:
        first = torch.zeros_like(episodes.mask)
        first[:, 0] = True
        return episodes.mask if self.every_state else first

    def _read(self, episodes: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """l [B, T], the tied V [B, T + 1] and hidden states [B, T + 1, D]."""
        actions = torch.cat([episodes.actions, torch.zeros_like(episodes.actions[:, :1])], 1)
        output = self.learned.read(episodes)
        prior = self.prior.read(episodes.source, episodes.source_mask, actions, episodes.source_row)

        def told(hidden: Tensor, before: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
            logits, others = precise(output.project(hidden)), precise(prior.project(before)).expand(-1, self.size)
            level, free, index = logits.logsumexp(-1), self.prior.mass(others), actions.unsqueeze(-1)
            apart = (logits.gather(-1, index) - others.gather(-1, index)).squeeze(-1) - (level - free)
            return apart, self.temperature * (level - free)

        divergences, tied = in_pieces(told, self.size, output.hidden, prior.hidden, actions)
        return divergences[:, :-1], tied, output.hidden

    @torch.no_grad()
    def _worth(self, episodes: Rollout) -> Tensor:
        """What the samples of each row's source say of the source, [B]; 0 where nobody asks."""
        if not self.state_value.mates:
            return torch.zeros(len(episodes), device=episodes.actions.device)
        assert episodes.rewards is not None
        divergences, _, _ = self._read(episodes)
        scores, apart = (masked_rows(each, episodes.mask) for each in (episodes.rewards, divergences))
        return log_partition(scores, apart.to(scores.dtype), episodes.group, self.temperature).to(apart.dtype)

    def policy(self) -> Model:
        policy: Model = self.model
        return policy

    def _parts(self) -> dict[str, Any]:
        """The policy is the model, and needs no head."""
        parts = super()._parts()
        parts["heads"] = parts.pop("policy.heads")
        if self.prior.model is not None:
            parts["prior"] = self.prior.model
        return parts
