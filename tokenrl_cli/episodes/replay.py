"""Replay buffer: the episodes of earlier steps, for learning from them again."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.functional.masking import first_of_each
from tokenrl_cli.interfaces import PER_SOURCE, Rollout, UserError

RINGS = {  # what has one value a token, by the mask that says how many tokens there are
    "target_mask": ["targets"],
    "reference_mask": ["reference_ids"],
    "mask": ["actions", "chosen", "logprobs", "rewards"],
}
FACTS = ["group", "role", "ended", "example"]  # what has one value an episode


class Replay:
    """Keeps the newest valid episodes with rewards, as many as fit: `capacity` is the most episodes, and the most
    tokens that the texts, the targets and the references of all kept episodes may each have. Episodes of one source
    that come together share one copy of its targets. Of a source only the index of its example is kept: it is read
    again when an episode is drawn.

    Memory is allocated once, when the first episodes come: ring buffers of `capacity` tokens, on the CPU, in which the
    episodes follow one another without padding and new ones overwrite the oldest; `bytes` is its size. Episodes are
    numbered in the order they came, from 0, and keep their number.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rings: dict[str, Tensor] = {}  # by field of Rollout: [capacity, ...], on the CPU
        self.written = torch.zeros(len(RINGS), dtype=torch.int64)  # tokens ever, by ring
        self.table: dict[str, Tensor] = {}  # start, length [capacity, rings], facts and priority [capacity]
        self.first = self.added = 0  # number of the oldest episode still whole; episodes ever

    def __len__(self) -> int:
        return self.added - self.first

    @property
    def tokens(self) -> int:
        """The number of tokens of the texts of the kept episodes, without sources and references."""
        return int(self.table["length"][self._live(), -1].sum()) if len(self) else 0

    @property
    def bytes(self) -> int:
        """The size in bytes of all ring buffers and tables; 0 before the first episodes."""
        return sum(each.nbytes for each in (*self.rings.values(), *self.table.values()))

    def age(self, step: int) -> float:
        """Returns the mean number of steps from the sampling of the kept episodes to `step`, a step of the run; 0 where
        none is kept."""
        return step - float((self.table["group"][self._live()] >> 32).double().mean()) if len(self) else 0.0

    def add(self, rollout: Rollout) -> None:
        """Copies the rows of a rollout [B, T] where `valid` is True, whose `rewards` must be there, to the CPU, over
        the oldest episodes, each with the highest priority that any kept episode has (1 without one). `support` and
        `parent` are dropped: Q-learning does not need the probability of an action. Of a rollout larger than the buffer
        only the last rows are kept; without valid rows nothing happens. Raises UserError where not even the last row
        fits."""
        rows = rollout.rows(rollout.valid.nonzero().squeeze(-1)).to("cpu")
        lost = 0
        if not self._fits(rows):  # a rollout may be larger than the replay: then it takes as many of the last as it can
            lost = bisect_left(range(len(rows)), True, key=lambda first: self._fits(rows.rows(slice(first, None))))
            rows = rows.rows(slice(lost, None))
        if len(rows) == 0:
            if lost:
                needed = f"must hold the longest episode and its targets, got {self.capacity}"
                raise UserError("algorithm.data.capacity", needed)
            return
        if not self.rings:
            self._allocate(rows)
        starts, lengths = (torch.zeros(len(rows), len(RINGS), dtype=torch.int64) for _ in range(2))
        for ring, (mask, names) in enumerate(RINGS.items()):
            real = getattr(rows, mask)
            length = real.sum(-1)  # [B], or [N]: episodes of one source point to the same place
            owner = rows.source_row if mask in PER_SOURCE else slice(None)
            starts[:, ring] = (self.written[ring] + length.cumsum(0) - length)[owner]
            lengths[:, ring] = length[owner]
            place = (self.written[ring] + torch.arange(int(length.sum()))) % self.capacity
            for name in names:
                self.rings[name][place] = getattr(rows, name)[real].to(self.rings[name].dtype)
            self.written[ring] += length.sum()
        self._forget(len(rows))
        slots = (self.added + torch.arange(len(rows))) % self.capacity
        known = {"start": starts, "length": lengths} | {name: _of_episodes(rows, name) for name in FACTS}
        known["priority"] = self._highest().expand(len(rows))  # tried at least once
        for name, values in known.items():
            self.table[name][slots] = values
        self.added += len(rows)

    def _forget(self, coming: int) -> None:
        """Drops the oldest episodes: those whose slot `coming` new ones take, or whose tokens were written over."""
        self.first = max(self.first, self.added + coming - self.capacity)
        damaged = (self.table["start"][self._live()] < self.written - self.capacity).any(-1).nonzero()
        self.first += int(damaged.max()) + 1 if len(damaged) else 0  # the newest of them, and all before it

    def _fits(self, rows: Rollout) -> bool:
        """Whether the rings have room for all of the rows and their sources."""
        return all(int(getattr(rows, mask).sum()) <= self.capacity for mask in RINGS)

    def _highest(self) -> Tensor:
        """The highest priority of any episode that is still kept; 1 where there is none."""
        return self.table["priority"][self._live()].amax() if len(self) else torch.ones((), dtype=torch.float64)

    def _allocate(self, rows: Rollout) -> None:
        for name in (name for names in RINGS.values() for name in names):
            values = getattr(rows, name)
            self.rings[name] = values.new_zeros(self.capacity, *values.shape[2:])
        shape = (self.capacity, len(RINGS))
        self.table = {name: torch.zeros(shape, dtype=torch.int64) for name in ("start", "length")}
        self.table |= {name: _of_episodes(rows, name).new_zeros(self.capacity) for name in FACTS}
        self.table["priority"] = torch.zeros(self.capacity, dtype=torch.float64)

    def _live(self) -> Tensor:
        """Slots of the episodes that are kept, oldest first."""
        return torch.arange(self.first, self.added) % self.capacity

    def draw(self, count: int, generator: torch.Generator, exponent: float = 0.0) -> tuple[Tensor, Tensor]:
        """Draws `count` episodes with replacement, with probability p_i = priority_i ** exponent / sum_k priority_k **
        exponent (0: uniformly; Schaul et al. 2016, arXiv:1511.05952, equation 1). Returns their numbers [count] int64,
        as `episodes` and `prioritise` take them, and the probabilities p_i [count] float64, both on the CPU;
        `generator` is one of the CPU. The buffer must not be empty."""
        if exponent == 0:
            index = torch.randint(len(self), (count,), generator=generator)
            return self.first + index, torch.full((count,), 1 / len(self), dtype=torch.float64)
        weights = self.table["priority"][self._live()] ** exponent
        share = weights / weights.sum()
        cumulated = share.cumsum(0)
        points = torch.rand(count, generator=generator, dtype=torch.float64) * cumulated[-1]
        index = torch.searchsorted(cumulated, points, right=True).clamp(max=len(self) - 1)
        return self.first + index, share[index]

    def prioritise(self, numbers: Tensor, priorities: Tensor) -> None:
        """Sets the priorities [M] of the episodes with the numbers [M], as `draw` returned them; a priority below 1e-12
        becomes 1e-12. Numbers of episodes that have been overwritten since are ignored."""
        kept = numbers >= self.first
        self.table["priority"][numbers[kept] % self.capacity] = priorities[kept].double().cpu().clamp(min=1e-12)

    def same_group(self, numbers: Tensor) -> Tensor:
        """Returns the numbers [M] int64 of all kept episodes in the groups of the episodes with the numbers [G], G at
        least 1, which must be kept themselves. A group holds the episodes sampled from one source in one step. The
        groups come one after another in the order of `numbers`; a group that two of these belong to comes twice."""
        live = self._live()
        groups = self.table["group"][live]
        found = [(groups == group).nonzero().squeeze(-1) for group in self.table["group"][numbers % self.capacity]]
        return self.first + torch.cat(found)

    def episodes(self, numbers: Tensor, like: Rollout) -> Rollout:
        """Returns the episodes with the numbers [B], repeats allowed, which must be kept, in that order, on the device
        of `like`: actions, rewards [B, T] with T the length of the longest (at least 1), 0 where masked, and each
        source once, source [N, S(, F)], which `like.read_sources` reads. All are valid and their own parent; `support`
        is None, and `step` is that of `like`. Raises UserError where the data of a source cannot be read again."""
        slots = numbers % self.capacity
        found: dict[str, Any] = {name: self.table[name][slots] for name in FACTS}
        first, found["source_row"] = first_of_each(found["group"])
        found["example"] = found["example"][first]
        found["source"], found["source_mask"] = like.read_sources(found["example"])
        for ring, (mask, names) in enumerate(RINGS.items()):
            own = slots[first] if mask in PER_SOURCE else slots
            start, length = self.table["start"][own, ring], self.table["length"][own, ring]
            column = torch.arange(max(1, int(length.max())))
            real = column < length.unsqueeze(-1)
            place = (start.unsqueeze(-1) + column) % self.capacity
            found[mask] = real
            for name in names:
                values = self.rings[name][place]
                found[name] = values.masked_fill(~real.view(*real.shape, *[1] * (values.dim() - 2)), 0)
        found["parent"], found["valid"] = torch.arange(len(slots)), torch.ones(len(slots), dtype=torch.bool)
        return replace(like, support=None, **found).to(like.actions.device)

    def state_dict(self) -> dict[str, Any]:
        """Returns the buffer as a flat dictionary: the counters "first", "added" and "written", ring buffers
        [capacity, ...] under names that begin with "rings.", and tables [capacity], or [capacity, 3] with one column
        for each kind of text, under names that begin with "table.". The tensors are not copied: later calls of `add`
        change them."""
        state: dict[str, Any] = {"first": self.first, "added": self.added, "written": self.written}
        state |= {f"rings.{name}": value for name, value in self.rings.items()}
        return state | {f"table.{name}": value for name, value in self.table.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, of a buffer with the same `capacity`, which is not checked. Ring buffers
        and tables are shared with `state`, not copied: later calls of `add` write into them. Raises KeyError where
        `state` is that of another kind of object."""
        self.first, self.added, self.written = state["first"], state["added"], state["written"].clone()
        for kind, kept in (("rings", self.rings), ("table", self.table)):
            prefix = f"{kind}."
            kept.clear()
            kept |= {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}


def _of_episodes(rows: Rollout, name: str) -> Tensor:
    """A field of the rows with one value an episode [B], those of the source repeated."""
    value: Tensor = getattr(rows, name)
    return value[rows.source_row] if name in PER_SOURCE else value
