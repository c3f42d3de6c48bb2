"""The data of an algorithm that learns values: on-policy, replayed and demonstrated episodes, in shares that are
configured."""

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
class Minibatch:
    """The B episodes that one optimiser step learns from, or some rows of them (a micro-batch).

    The totals are those of the whole minibatch in each of its micro-batches: losses divided by them add up.
    """

    episodes: Rollout
    weights: Tensor  # [B], what each episode's loss is multiplied by, at most 1; see `Experience`
    replay_numbers: Tensor  # [B] int64, number of each episode in the replay; -1 for those that are not from there
    total_tokens: Tensor  # [], real tokens of the whole minibatch
    total_episodes: int  # of the whole minibatch
    source_values: Tensor | None = None  # [B], V(s_0) by all samples of the source; for state_value=group_mean alone

    @classmethod
    def of(cls, episodes: Rollout, weights: Tensor, replay_numbers: Tensor) -> Minibatch:
        """Returns a whole minibatch of B episodes, with weights [B] and replay numbers [B] int64, -1 for episodes that
        are not from the replay; counts their real tokens and the episodes as the totals. The replay numbers lie on the
        CPU, wherever the episodes are. `source_values` is None."""
        return cls(episodes, weights, replay_numbers, episodes.mask.sum(), len(episodes))

    def __len__(self) -> int:
        return len(self.episodes)

    def rows(self, index: Any) -> Minibatch:
        """Returns the micro-batch of the episodes at `index`, a slice or a tensor ([M] int64 of rows, or [B] bool),
        with their rows of weights, replay numbers and source values; its totals remain those of the whole minibatch."""
        values = None if self.source_values is None else self.source_values[index]
        return replace(
            self, episodes=self.episodes.rows(index), weights=self.weights[index],
            replay_numbers=self.replay_numbers[index], source_values=values,
        )  # fmt: skip


class Experience:
    """Minibatches of `minibatch_size` episodes, `updates` of them a step.

    The share `fresh` of a minibatch are the on-policy samples of this step, the share `demonstrated` the demonstrations
    of this step's sources, and all others come from a replay of `capacity` tokens. With `demonstrated` = 1 nothing is
    ever sampled: offline learning.

    Replayed episodes are drawn with P(i) ~ |mean td error of i| ** `priority` (0: uniformly), and their loss is
    multiplied by (N P(i)) ** -`correction`, over the largest such factor of the minibatch, N episodes being in the
    replay (Schaul et al. 2016, arXiv:1511.05952, section 3.4). The loss of all other episodes has the weight 1.

    The constructor raises UserError where the shares add up to more than 1, where a share above 0 is less than one
    episode of a minibatch, or for a `priority` without a replay.
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
        """Whether episodes must be sampled from the policy at all: False where the data are demonstrations alone."""
        return self.fresh > 0 or self.replayed > 0

    @property
    def on_policy(self) -> bool:
        """Whether all episodes are samples of the step that learns from them (no replay, no demonstrations), and there
        is one update a step: then the policy that learns is the one that acted, unless it explored."""
        return self.fresh == 1 and self.updates == 1

    def minibatches(self, rollout: Rollout, seed: int, samples_together: int) -> Iterator[Minibatch]:
        """Adds the samples of a rewarded rollout to the replay, if there is one, then yields the minibatches of this
        step.

        With `samples_together` above 1 the algorithm compares that many samples of a source: they are drawn together,
        and demonstrations only beside on-policy samples of their source; a minibatch may then be larger. Episodes
        without a reward or without a token are left out. A minibatch is smaller where there are too few on-policy
        samples or demonstrations, which are drawn without replacement, unlike the replay's; without any episode, none
        is yielded. Each is drawn only when the iterator gets to it, so the priorities that `observe` sets for one count
        for the next; nothing is added to the replay before the first. `seed` and the step of the rollout determine the
        draws. Raises UserError where not even the last sample fits into the replay.
        """
        sampled, demonstrations = (_usable(rollout, role) for role in (SAMPLED, DEMONSTRATION))
        if self.replayed and len(sampled):
            self.replay.add(sampled)
        fresh_count, demonstrated_count, replayed_count = self.counts
        for number in range(self.updates):
            draws = streams.generator(seed, f"minibatch/{number}", rollout.step)
            fresh = self._draw_rows(sampled, fresh_count, draws, samples_together)
            allowed = demonstrations if samples_together == 1 else _of_same_sources(demonstrations, fresh)
            parts = [
                fresh,
                self._draw_rows(allowed, demonstrated_count, draws, samples_together),
                self._draw_replayed(replayed_count, draws, samples_together, rollout),
            ]
            present = [part for part in parts if part is not None]
            if present:
                yield _concatenated(present)

    def _draw_rows(self, rows: Rollout, count: int, draws: torch.Generator, samples_together: int) -> Minibatch | None:
        """`count` rows without replacement, or all where there are no more, in random order; None for no row. With
        `samples_together` above 1 the last group is completed."""
        if count == 0 or len(rows) == 0:
            return None
        if count < len(rows):
            key = rows.group if samples_together > 1 else torch.arange(len(rows), device=rows.group.device)
            keys, key_of_row = key.unique(return_inverse=True)
            place = torch.randperm(len(keys), generator=draws).to(key_of_row.device)[key_of_row]
            order = place.argsort(stable=True)
            end = count if samples_together == 1 else int((place[order] <= place[order][count - 1]).sum())
            rows = rows.rows(order[:end])
        return Minibatch.of(rows, torch.ones(len(rows), device=rows.group.device), torch.full((len(rows),), -1))

    def _draw_replayed(
        self, count: int, draws: torch.Generator, samples_together: int, like: Rollout
    ) -> Minibatch | None:
        """Draws `count` episodes of the replay, with replacement, onto the device of `like`; None for none. With
        `samples_together` above 1 it draws sources, about as many as have that many samples, and returns all their
        samples in the replay."""
        if count == 0 or len(self.replay) == 0:
            return None
        if samples_together > 1:
            numbers = self.replay.same_group(self.replay.draw(max(1, count // samples_together), draws)[0])
            weights = torch.ones(len(numbers))
        else:
            numbers, probability = self.replay.draw(count, draws, self.priority)
            weights = (len(self.replay) * probability) ** -self.correction
            weights = (weights / weights.max()).float()
        return Minibatch.of(self.replay.episodes(numbers, like), weights.to(like.actions.device), numbers)

    def observe(self, minibatch: Minibatch, errors: Tensor) -> None:
        """Sets the priorities of the replayed episodes of a minibatch to their `errors`: [B], one for each of its
        episodes, at least 0; those of other episodes are ignored. Does nothing where `priority` is 0."""
        known = minibatch.replay_numbers >= 0
        if self.priority > 0 and bool(known.any()):
            self.replay.prioritise(minibatch.replay_numbers[known], errors.cpu()[known])

    def metrics(self, step: int) -> dict[str, float]:
        """Returns the metrics of the replay at a step of the run: replay/size in episodes, replay/tokens (of the
        texts), replay/age, the mean in steps, and replay/mb, its memory in MiB; {} without a replay."""
        if not self.replayed:
            return {}
        replay = self.replay
        return {"replay/size": len(replay), "replay/age": replay.age(step), "replay/tokens": replay.tokens,
                "replay/mb": replay.bytes / 2**20}  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the replay, its episodes and priorities included, as a flat dictionary of tensors (not
        copied) and numbers; see `Replay.state_dict`."""
        return self.replay.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replaces the contents of the replay by those that `state_dict` returned; their tensors are shared, and later
        steps write into them. The `capacity` must be the same, which is not checked. KeyError where `state` is that of
        another kind of object."""
        self.replay.load_state_dict(state)


def _usable(rollout: Rollout, role: int) -> Rollout:
    """The rows of a role that have a reward and a token: a source may have no demonstration."""
    usable = (rollout.role == role) & rollout.valid & rollout.mask.any(-1)
    return rollout.rows(usable.nonzero().squeeze(-1))


def _of_same_sources(rows: Rollout, fresh: Minibatch | None) -> Rollout:
    """Those of `rows` whose source a fresh episode has, too."""
    groups = rows.group[:0] if fresh is None else fresh.episodes.group
    return rows.rows(torch.isin(rows.group, groups).nonzero().squeeze(-1))


def _concatenated(parts: list[Minibatch]) -> Minibatch:
    if len(parts) == 1:
        return parts[0]
    # losses of values do not read `support`, and the replay does not keep it
    episodes = concatenate([replace(part.episodes, support=None) for part in parts])
    weights, numbers = [part.weights for part in parts], [part.replay_numbers for part in parts]
    return Minibatch.of(episodes, torch.cat(weights), torch.cat(numbers))
