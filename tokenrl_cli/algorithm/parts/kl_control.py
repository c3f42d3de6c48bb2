"""The coefficient of the KL penalty in the reward, and how it is adapted."""

from __future__ import annotations

from typing import Any


class AdaptiveKl:
    """beta <- beta (1 + rate clip(KL / target - 1, -0.2, 0.2)) after every rollout; beta is `coefficient`.

    Ziegler et al. 2019 (arXiv:1909.08593), section 2.2. KL and target in nats an episode. A target of 0 leaves beta as
    it is, and so does a beta of 0, which no factor makes larger. Without the clip one odd rollout would change beta by
    an order of magnitude.
    """

    def __init__(self, coefficient: float, target: float, rate: float) -> None:
        self.start = self.coefficient = coefficient
        self.target, self.rate = target, rate

    def observe(self, divergence: float) -> None:
        """Multiplies `coefficient` by 1 + rate clip(divergence / target - 1, -0.2, 0.2): a KL above the target makes it
        larger. `divergence` is the KL of a rollout, of whole episodes, in nats, as a mean over them. Changes nothing
        where the target is 0."""
        if self.target > 0:
            self.coefficient *= 1 + self.rate * min(max(divergence / self.target - 1, -0.2), 0.2)

    def state_dict(self) -> dict[str, Any]:
        """Returns the coefficient as it is now, "coefficient", and as it was configured, "start"."""
        return {"coefficient": self.coefficient, "start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the saved coefficient, unless another one is configured now than in the saved run: then that of the
        config stays. KeyError where a name is missing."""
        if state["start"] == self.start:
            self.coefficient = state["coefficient"]
