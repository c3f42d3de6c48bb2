"""Baselines that remember earlier rollouts; those that do not are functions of `functional/advantages.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Fraction


class MovingAverage:
    """b = sum_i decay^i R_i / sum_i decay^i, with R_0 the mean score of the last rollout, R_1 of the one before it, ...

    The reinforcement baseline of Williams 1992. The denominator is the bias correction of Kingma & Ba 2015
    (arXiv:1412.6980, section 3): without it b would start near 0. It is read before it is updated, so that a rollout
    never enters its own baseline, which would bias the gradient. Before the first rollout with a valid sample b is 0.
    """

    def __init__(self, decay: Fraction) -> None:
        self.decay = decay
        self.average = self.weight = 0.0  # (1 - decay) times the two sums

    def __call__(self, returns: Tensor) -> Tensor:
        """Returns b, a scalar []; of returns [N, K, T] only dtype and device are read."""
        return returns.new_tensor(self.average / self.weight if self.weight else 0.0)

    def observe(self, returns: Tensor, valid: Tensor) -> None:
        """Updates b with a rollout: with the mean of returns [N, K, T] at t = 0, those of whole episodes, over the
        valid samples [N, K] bool. Others are not read. A rollout without a valid sample changes nothing. Call it after
        b was read for that rollout."""
        if bool(valid.any()):
            mean = float(returns[:, :, 0][valid].mean(dtype=torch.float64))
            self.average = self.decay * self.average + (1 - self.decay) * mean
            self.weight = self.decay * self.weight + (1 - self.decay)

    def state_dict(self) -> dict[str, Any]:
        """Returns {"average": ..., "weight": ...}, two floats; b is average / weight, 0 where weight is 0."""
        return {"average": self.average, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned. KeyError where one of the two is missing."""
        self.average, self.weight = state["average"], state["weight"]
