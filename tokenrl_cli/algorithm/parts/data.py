"""What an algorithm that learns values learns from: fresh, kept and demonstrated episodes, in stated shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli import streams
from tokenrl_cli.config.ranges import Count, Probability, Size, Weight
from tokenrl_cli.episodes.replay import Replay
from tokenrl_cli.episodes.sampling import concatenate
from tokenrl_cli.interfaces import DEMONSTRATION, SAMPLED, Rollout, SettingError


@dataclass(frozen=True)
class Drawn:
    """Episodes to learn from, and what each weighs for having been drawn more often than others."""

    episodes: Rollout
    weights: Tensor  # [B], at most 1
    numbers: Tensor  # [B], in the replay; -1 where it did not come from there

    def __len__(self) -> int:
        return len(self.episodes)

    def rows(self, index: Any) -> Drawn:
        return Drawn(self.episodes.rows(index), self.weights[index], self.numbers[index])


class Experience:
    """Minibatches of `minibatch_size` episodes, `updates` of them a step.

    The share `fresh` is what the policy has just said, the share `demonstrated` the demonstrations of this step's
    sources, the rest comes from a replay of `capacity` tokens. With `demonstrated` = 1 nothing is ever sampled: offline
    learning. Replayed episodes are drawn by |error| ** `priority` (0: uniformly) and weigh (N P) ** -`correction`, over
    the largest of the minibatch (Schaul et al. 2016, arXiv:1511.05952, section 3.4).
    """

    def __init__(
        self,
        minibatch_size: Size,
        updates: Size,
        fresh: Probability,
        demonstrated: Probability,
        capacity: Count,
        priority: Weight,
        correction: Probability,
    ) -> None:
        if fresh + demonstrated > 1 + 1e-9:
            problem = f"must with {{here}}.fresh be at most 1, got {demonstrated} and {fresh}"
            raise SettingError("demonstrated", problem)
        if priority > 0 and fresh + demonstrated > 1 - 1e-9:
            problem = f"must be 0 where nothing is drawn from the replay, got {priority}"
            raise SettingError("priority", problem)
        self.minibatch_size, self.updates = minibatch_size, updates
        shares = [fresh, demonstrated, max(0.0, 1 - fresh - demonstrated)]
        self.fresh, self.demonstrated, self.replayed = (share if share > 1e-9 else 0.0 for share in shares)
        ends = [round(minibatch_size * share) for share in accumulate(shares)]
        self.counts = [end - before for before, end in pairwise([0, *ends])]  # of fresh, demonstrated, replayed
        for share, count in zip(shares, self.counts, strict=True):
            if share > 1e-9 and count == 0:
                problem = f"leaves no episode to a share of {share:g}, got {minibatch_size}"
                raise SettingError("minibatch_size", problem, "make it larger, or the share 0")
        self.priority, self.correction = priority, correction
        self.replay = Replay(capacity)

    @property
    def samples(self) -> bool:
        """Whether the policy must act at all."""
        return self.fresh > 0 or self.replayed > 0

    @property
    def on_policy(self) -> bool:
        """Whether the policy that acted is the one that learns: after an update it is not."""
        return self.fresh == 1 and self.updates == 1

    def minibatches(self, rollout: Rollout, seed: int, mates: int) -> Iterator[Drawn]:
        """Of a judged rollout and what is kept. With `mates` above 1 that many samples of a source come together, and
        demonstrations only with fresh samples of their source: alone they could be compared with nothing."""
        sampled, shown = (_usable(rollout, role) for role in (SAMPLED, DEMONSTRATION))
        if self.replayed and len(sampled):
            self.replay.add(sampled)
        of_fresh, of_shown, of_kept = self.counts
        for number in range(self.updates):
            draws = streams.generator(seed, f"minibatch/{number}", rollout.step)
            fresh = self._some(sampled, of_fresh, draws, mates)
            beside = shown if mates == 1 else _of_same_sources(shown, fresh)
            parts = [
                fresh,
                self._some(beside, of_shown, draws, mates),
                self._again(of_kept, draws, mates, rollout),
            ]
            kept = [part for part in parts if part is not None]
            if kept:
                yield _together(kept)

    def _some(self, rows: Rollout, count: int, draws: torch.Generator, mates: int) -> Drawn | None:
        """`count` rows, or all where there are no more, in random order."""
        if count == 0 or len(rows) == 0:
            return None
        if count < len(rows):
            key = rows.group if mates > 1 else torch.arange(len(rows), device=rows.group.device)
            named, of = key.unique(return_inverse=True)
            place = torch.randperm(len(named), generator=draws).to(of.device)[of]
            order = place.argsort(stable=True)
            end = count if mates == 1 else int((place[order] <= place[order][count - 1]).sum())
            rows = rows.rows(order[:end])
        return Drawn(rows, torch.ones(len(rows), device=rows.group.device), torch.full((len(rows),), -1))

    def _again(self, count: int, draws: torch.Generator, mates: int, like: Rollout) -> Drawn | None:
        if count == 0 or len(self.replay) == 0:
            return None
        if mates > 1:
            numbers = self.replay.mates(self.replay.draw(max(1, count // mates), draws)[0])
            weights = torch.ones(len(numbers))
        else:
            numbers, share = self.replay.draw(count, draws, self.priority)
            weights = (len(self.replay) * share) ** -self.correction
            weights = (weights / weights.max()).float()
        return Drawn(self.replay.episodes(numbers, like), weights.to(like.actions.device), numbers)

    def observe(self, drawn: Drawn, errors: Tensor) -> None:
        """How wrong the episodes of a minibatch were, [B]: what was more so is drawn more often."""
        known = drawn.numbers >= 0
        if self.priority > 0 and bool(known.any()):
            self.replay.prioritise(drawn.numbers[known], errors.cpu()[known])

    def metrics(self, step: int) -> dict[str, float]:
        if not self.replayed:
            return {}
        kept = self.replay
        return {"replay/size": len(kept), "replay/age": kept.age(step), "replay/tokens": kept.tokens,
                "replay/mb": kept.bytes / 2**20}  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return self.replay.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.replay.load_state_dict(state)


def _usable(rollout: Rollout, role: int) -> Rollout:
    return rollout.rows(((rollout.role == role) & rollout.valid).nonzero().squeeze(-1))


def _of_same_sources(rows: Rollout, drawn: Drawn | None) -> Rollout:
    groups = rows.group[:0] if drawn is None else drawn.episodes.group
    return rows.rows(torch.isin(rows.group, groups).nonzero().squeeze(-1))


def _together(parts: list[Drawn]) -> Drawn:
    if len(parts) == 1:
        return parts[0]
    episodes = concatenate([replace(part.episodes, support=None) for part in parts])
    return Drawn(episodes, torch.cat([part.weights for part in parts]), torch.cat([part.numbers for part in parts]))
