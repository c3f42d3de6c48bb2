"""Baselines with a memory; those without one are functions of `functional/advantages.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Fraction


class MovingAverage:
    """b = exponential moving average of whole-sequence returns, corrected for its start (Kingma & Ba 2015, section 3).

    It is read before it is updated, so a batch never enters its own baseline; it holds two numbers, whatever the
    length of the run.
    """

    def __init__(self, decay: Fraction) -> None:
        self.decay = decay
        self.average = self.weight = 0.0  # sum of decay ** age times a batch's mean return, and of decay ** age

    def __call__(self, returns: Tensor) -> Tensor:
        """returns [N, K, T] only tell dtype and device -> []."""
        return returns.new_tensor(self.average / self.weight if self.weight else 0.0)

    def observe(self, returns: Tensor, valid: Tensor) -> None:
        """Takes in the returns at t = 0 of the valid samples: [N, K, T], [N, K]."""
        if bool(valid.any()):
            mean = float(returns[:, :, 0][valid].mean(dtype=torch.float64))
            self.average = self.decay * self.average + (1 - self.decay) * mean
            self.weight = self.decay * self.weight + (1 - self.decay)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average, self.weight = state["average"], state["weight"]
