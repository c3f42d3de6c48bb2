"""Parts of algorithms that remember something; their formulas stay in functional/."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.interfaces import UserError


class MovingAverage:
    """b = exponential moving average of whole-sequence returns, corrected for its start (Kingma & Ba 2015, section 3).

    It is read before it is updated, so a batch never enters its own baseline; it holds two numbers, whatever the
    length of the run.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UserError("algorithm.baseline.decay", f"must be in [0, 1), got {decay}")
        self.decay = decay
        self.average = 0.0  # of the returns so far, weighted to (1 - decay ** batches)
        self.batches = 0

    def __call__(self, returns: Tensor) -> Tensor:
        """returns [N, K, T] only tell dtype and device -> []."""
        weight = 1 - self.decay**self.batches
        return returns.new_tensor(self.average / weight if self.batches else 0.0)

    def observe(self, returns: Tensor, valid: Tensor) -> None:
        """Takes in the returns at t = 0 of the valid samples: [N, K, T], [N, K]."""
        if bool(valid.any()):
            mean = float(returns[:, :, 0][valid].mean(dtype=torch.float64))
            self.average = self.decay * self.average + (1 - self.decay) * mean
            self.batches += 1

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average, self.batches = state["average"], state["batches"]


def within(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The entries of a flat state whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
