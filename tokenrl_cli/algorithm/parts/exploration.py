"""How a policy explores while its values are learned."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from tokenrl_cli.algorithm.networks import Composed, frozen_copy
from tokenrl_cli.config.ranges import Count, Positive, Probability
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import Model, ModelModule, ModelOutput


class Exploration(Protocol):
    """The policy that samples the episodes from which values are learned."""

    model: ModelModule | None  # a frozen network that it samples with, saved beside the algorithm's

    def acting(self, policy: ModelModule, step: int) -> Any:
        """Returns the Model to sample with at `step` of the stage, counted from 0; `policy`, a Model, is the one that
        has been learned so far. Networks are shared with it, not copied, and modes are not changed."""

    def metrics(self, step: int) -> dict[str, float]:
        """Returns metrics to log, such as the epsilon of `step`, name to value; {} for none. `step` is that of the
        stage, counted from 0."""


def mixed(first: Model, second: Model, share: float) -> Composed:
    """Returns the policy (1 - share) first(a | s) + share second(a | s) as a Model that shares both networks: at every
    token `second` acts with probability `share` (0 to 1). Its logits [B, T, V] are normalised log-probabilities, in
    float32 or float64, -inf where both policies give 0; its hidden states are those of `first`. It has no Q-values."""

    def join(first_output: ModelOutput, second_output: ModelOutput) -> Tensor:
        probabilities = [precise(output.logits).softmax(-1) for output in (first_output, second_output)]
        return ((1 - share) * probabilities[0] + share * probabilities[1]).log()

    return Composed(first, second, join)


class WarmStart:
    """Epsilon-greedy exploration, but with the policy of the warm start in place of uniform tokens: of thousands of
    tokens nearly all are wrong everywhere, and episodes of uniform tokens would hardly ever be rewarded.

    At every token the warm start (a frozen copy of `model`, made by the constructor) acts with probability epsilon,
    which goes in a straight line from `start` to `end` over the first `steps` steps of the stage, and stays there.
    """

    def __init__(self, model: ModelModule, start: Probability, end: Probability, steps: Count) -> None:
        self.start, self.end, self.steps = start, end, steps
        self.model = frozen_copy(model)

    def epsilon(self, step: int) -> float:
        """Returns the probability, 0 to 1, that the warm start acts, at a step of the stage counted from 0."""
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)

    def acting(self, policy: Composed, step: int) -> Any:
        """Returns the mixture (1 - epsilon) policy(a | s) + epsilon warm_start(a | s) as a new Model, with the epsilon
        of `step`, counted from 0. `policy` may be any Model; its networks are shared, not copied."""
        return mixed(policy, self.model, self.epsilon(step))

    def metrics(self, step: int) -> dict[str, float]:
        """Returns {"epsilon": the epsilon of `step`}."""
        return {"epsilon": self.epsilon(step)}


class Boltzmann:
    """pi(a | s) ~ exp(Q(s, a) / temperature), however the learned policy itself is computed from Q."""

    model = None

    def __init__(self, temperature: Positive) -> None:
        self.temperature = temperature

    def acting(self, policy: Composed, step: int) -> Any:
        """Returns a new Model with logits Q(s, a) / temperature, [B, T, V], of the Q-values of `policy`, the same at
        every step. `policy` must be a `Composed`, whose networks are shared, not copied; AssertionError where it has no
        Q-values."""
        values = policy.values
        assert values is not None
        return Composed(policy.first, policy.second, lambda one, other: values(one, other) / self.temperature)

    def metrics(self, step: int) -> dict[str, float]:
        """Returns {}: the temperature is the same at every step."""
        return {}


class NoExploration:
    """The learned policy samples as it is."""

    model = None

    def acting(self, policy: ModelModule, step: int) -> Any:
        """Returns `policy` itself, at every step."""
        return policy

    def metrics(self, step: int) -> dict[str, float]:
        """Returns {}."""
        return {}
