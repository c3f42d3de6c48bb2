"""How a policy explores while it learns values."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from tokenrl_cli.algorithm.networks import Composed, frozen_copy
from tokenrl_cli.config.ranges import Count, Positive, Probability
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import Model, ModelOutput


class Exploration(Protocol):
    """Which policy samples the episodes that values are learned from."""

    model: Any  # a frozen network that it samples with, saved beside the algorithm's; or None

    def acting(self, policy: Any, step: int) -> Any:
        """The Model to sample with at `step` of the stage, counted from 0; `policy` is what has been learned so far."""

    def metrics(self, step: int) -> dict[str, float]:
        """What is logged of that step."""


def mixed(first: Model, second: Model, share: float) -> Composed:
    """The policy (1 - share) first(a | s) + share second(a | s): `second` acts with probability `share` at every
    token."""

    def join(first_output: ModelOutput, second_output: ModelOutput) -> Tensor:
        probabilities = [precise(output.logits).softmax(-1) for output in (first_output, second_output)]
        return ((1 - share) * probabilities[0] + share * probabilities[1]).log()

    return Composed(first, second, join)


class WarmStart:
    """Epsilon-greedy, but with the warm-started policy in place of uniform tokens: of thousands of tokens nearly all
    are wrong everywhere, and episodes of uniform tokens would hardly ever be rewarded.

    At every token the frozen warm start acts with probability epsilon, which falls in a straight line from `start` to
    `end` over the first `steps` steps of the stage, and stays there.
    """

    def __init__(self, model: Any, start: Probability, end: Probability, steps: Count) -> None:
        self.start, self.end, self.steps = start, end, steps
        self.model = frozen_copy(model)

    def epsilon(self, step: int) -> float:
        """The probability that the warm start acts, at a step of the stage."""
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)

    def acting(self, policy: Composed, step: int) -> Any:
        """The mixture (1 - epsilon) policy(a | s) + epsilon warm_start(a | s), with the epsilon of `step`."""
        return mixed(policy, self.model, self.epsilon(step))

    def metrics(self, step: int) -> dict[str, float]:
        """The epsilon of `step`, under that name."""
        return {"epsilon": self.epsilon(step)}


class Boltzmann:
    """pi(a | s) ~ exp(Q(s, a) / temperature), whatever policy is made of Q otherwise."""

    model = None

    def __init__(self, temperature: Positive) -> None:
        self.temperature = temperature

    def acting(self, policy: Composed, step: int) -> Any:
        """A Model with logits Q(s, a) / temperature, [B, T, V], of the Q-values of `policy`, at every step.

        Raises AssertionError where `policy` has no Q-values.
        """
        values = policy.values
        assert values is not None
        return Composed(policy.first, policy.second, lambda one, other: values(one, other) / self.temperature)

    def metrics(self, step: int) -> dict[str, float]:
        """{}: the temperature is the same at every step, and nothing is logged."""
        return {}


class NoExploration:
    """The policy samples as it is."""

    model = None

    def acting(self, policy: Any, step: int) -> Any:
        """`policy` itself, at every step."""
        return policy

    def metrics(self, step: int) -> dict[str, float]:
        """{}: nothing is logged."""
        return {}
