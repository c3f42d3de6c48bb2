"""How the coefficient of the KL penalty follows a target."""

from __future__ import annotations

from typing import Any


class AdaptiveKl:
    """beta <- beta (1 + rate clip(KL / target - 1, -0.2, 0.2)) after every rollout, KL in nats an episode; target 0
    leaves it as it is, and so does a beta of 0. Ziegler et al. 2019 (arXiv:1909.08593), section 2.2."""

    def __init__(self, coefficient: float, target: float, rate: float) -> None:
        self.start = self.coefficient = coefficient
        self.target, self.rate = target, rate

    def observe(self, divergence: float) -> None:
        if self.target > 0:
            self.coefficient *= 1 + self.rate * min(max(divergence / self.target - 1, -0.2), 0.2)

    def state_dict(self) -> dict[str, Any]:
        return {"coefficient": self.coefficient, "start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Where the configured coefficient is another than it was, that counts: adaptation starts from it anew."""
        if state["start"] == self.start:
            self.coefficient = state["coefficient"]
