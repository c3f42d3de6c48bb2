"""How a policy explores while it learns values."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from tokenrl_cli.algorithm.networks import Composed, frozen_copy
from tokenrl_cli.config.ranges import Count, Positive, Probability
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import Model, ModelOutput


class Exploration(Protocol):
    model: Any  # what it keeps, or None

    def acting(self, policy: Any, step: int) -> Any: ...

    def metrics(self, step: int) -> dict[str, float]: ...


def mixed(first: Model, second: Model, share: float) -> Composed:
    """Acts by `second` with probability `share` at every token, else by `first`."""

    def join(one: ModelOutput, other: ModelOutput) -> Tensor:
        mine, others = precise(one.logits).softmax(-1), precise(other.logits).softmax(-1)
        return ((1 - share) * mine + share * others).log()

    return Composed(first, second, join)


class WarmStart:
    """With probability epsilon at every token the warm start, as it was, acts instead; epsilon falls in a straight line
    over the first `steps` steps of the stage. Uniform tokens out of thousands would find nothing."""

    def __init__(self, model: Any, start: Probability, end: Probability, steps: Count) -> None:
        self.first, self.last, self.steps = start, end, steps
        self.model = frozen_copy(model)

    def epsilon(self, step: int) -> float:
        return self.first + (self.last - self.first) * min(1.0, step / self.steps)

    def acting(self, policy: Composed, step: int) -> Any:
        return mixed(policy, self.model, self.epsilon(step))

    def metrics(self, step: int) -> dict[str, float]:
        return {"epsilon": self.epsilon(step)}


class Boltzmann:
    """Acts by softmax(Q / temperature), whatever the policy makes of Q."""

    model = None

    def __init__(self, temperature: Positive) -> None:
        self.temperature = temperature

    def acting(self, policy: Composed, step: int) -> Any:
        values = policy.values
        assert values is not None
        return Composed(policy.first, policy.second, lambda one, other: values(one, other) / self.temperature)

    def metrics(self, step: int) -> dict[str, float]:
        return {}


class Itself:
    """The policy acts as it is."""

    model = None

    def acting(self, policy: Any, step: int) -> Any:
        return policy

    def metrics(self, step: int) -> dict[str, float]:
        return {}
