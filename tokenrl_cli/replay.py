"""Where episodes are kept to be learned from again."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.interfaces import Rollout

WIDE = frozenset(
    ["source", "source_mask", "targets", "target_mask", "reference_ids", "reference_mask", "actions", "mask", "chosen"]
    + ["logprobs", "rewards"]
)  # fields with a second dimension that episodes differ in


class Replay:
    """The last `capacity` judged, valid episodes, oldest overwritten first; widths grow to the widest episode."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kept: dict[str, Tensor] = {}  # by field of Rollout, on the CPU, rows in order of their slot
        self.added = 0  # episodes ever

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, rollout: Rollout) -> None:
        """Takes in the valid rows. A stored support is dropped: Q-learning does not ask how likely an action was."""
        good = rollout.rows(rollout.valid.nonzero().squeeze(-1)).to("cpu")
        for row in range(0, len(good), self.capacity):
            self._put(good.rows(slice(row, row + self.capacity)))

    def _put(self, rollout: Rollout) -> None:
        slots = (self.added + torch.arange(len(rollout))) % self.capacity
        for name in (f.name for f in fields(Rollout) if f.name not in ("step", "support")):
            new = getattr(rollout, name)
            kept = self.kept.get(name, new[:0])
            width = max(kept.shape[1], new.shape[1]) if name in WIDE else None
            kept, new = _wide(kept, width), _wide(new, width)
            missing = int(slots.max()) + 1 - len(kept)
            if missing > 0:
                kept = torch.cat([kept, kept.new_zeros(missing, *kept.shape[1:])])
            kept[slots] = new
            self.kept[name] = kept
        self.added += len(rollout)

    def sample(self, count: int, generator: torch.Generator, like: Rollout) -> Rollout:
        """`count` episodes drawn with replacement, on the device of `like`, no wider than they need to be."""
        index = torch.randint(len(self), (count,), generator=generator)
        drawn: dict[str, Any] = {name: values[index] for name, values in self.kept.items()}
        for names in (("source", "source_mask"), ("targets", "target_mask"), ("reference_ids", "reference_mask"),
                      ("actions", "mask", "chosen", "logprobs", "rewards")):  # fmt: skip
            width = max(1, int(drawn[names[1]].sum(1).max()))
            drawn |= {name: drawn[name][:, :width] for name in names}
        return replace(like, support=None, **drawn).to(like.actions.device)

    def state_dict(self) -> dict[str, Any]:
        return {"added": self.added} | {f"kept.{name}": value for name, value in self.kept.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        self.kept = {name.removeprefix("kept."): v for name, v in state.items() if name.startswith("kept.")}


def _wide(value: Tensor, width: int | None) -> Tensor:
    """Zeros behind, up to `width` columns."""
    if width is None or value.shape[1] == width:
        return value
    return torch.cat([value, value.new_zeros(len(value), width - value.shape[1], *value.shape[2:])], 1)
