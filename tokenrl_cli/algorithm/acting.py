"""How values become a policy, and how a policy explores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.algorithm.parts import frozen_copy
from tokenrl_cli.config.ranges import Count, Positive, Probability, Weight
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import Model, ModelOutput, State

Join = Callable[[ModelOutput, Any], Tensor]  # outputs of the first model and of the second, or None -> [..., V]


@dataclass(frozen=True)
class Both:
    """The states of two models that read the same episodes, or of one and None."""

    first: State
    second: State | None

    def reorder(self, index: Tensor) -> Both:
        return Both(self.first.reorder(index), self.second and self.second.reorder(index))

    def repeat(self, times: int) -> Both:
        return Both(self.first.repeat(times), self.second and self.second.repeat(times))


class Composed(nn.Module):
    """A Model whose logits `join` makes of a model's output, and of that of another one where there is one.

    `values`, where given, makes Q [..., V] of the same: then `start_value` says what the policy expects of a source.
    Both models are submodules, so that evaluation mode reaches them.
    """

    def __init__(self, first: Any, second: Any, join: Join, values: Join | None = None) -> None:
        super().__init__()
        self.first, self.second, self.join, self.values, self.width = first, second, join, values, first.width

    def forward(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> ModelOutput:
        first = self.first(source, source_mask, actions)
        second = None if self.second is None else self.second(source, source_mask, actions)
        return ModelOutput(first.hidden, lambda _: self.join(first, second))

    def start(self, source: Tensor, source_mask: Tensor) -> Both:
        second = None if self.second is None else self.second.start(source, source_mask)
        return Both(self.first.start(source, source_mask), second)

    def step(self, state: Any, previous: Tensor | None) -> tuple[ModelOutput, State]:
        first, second, following = self._step(state, previous)
        return ModelOutput(first.hidden, lambda _: self.join(first, second)), following

    def _step(self, state: Any, previous: Tensor | None) -> tuple[ModelOutput, Any, Both]:
        first, left = self.first.step(state.first, previous)
        second, right = (None, None) if self.second is None else self.second.step(state.second, previous)
        return first, second, Both(left, right)

    def start_value(self, source: Tensor, source_mask: Tensor) -> Tensor | None:
        """max_a Q(s_0, a) [N]; None without values."""
        if self.values is None:
            return None
        first, second, _ = self._step(self.start(source, source_mask), None)
        return self.values(first, second)[:, 0].amax(-1)


def greedy(q: Tensor) -> Tensor:
    """Logits of the policy that always takes the best token: 0 for it, -inf for all others. [..., V] -> [..., V]."""
    return torch.full_like(q, -torch.inf).scatter(-1, q.argmax(-1, keepdim=True), 0.0)


class Greedy:
    """Takes the token with the highest Q. Where Q is 0 everywhere that is token 0: the warm start is forgotten."""

    model = None

    def logits(self, q: Tensor, before: ModelOutput | None) -> Tensor:
        return greedy(q)


class Tilted:
    """Acts by prior(a | s) exp(beta Q(s, a)). The prior is the policy at the switch; with Q = 0 it still is that."""

    def __init__(self, model: Any, beta: Weight) -> None:
        self.beta, self.model = beta, frozen_copy(model)

    def logits(self, q: Tensor, before: ModelOutput | None) -> Tensor:
        assert before is not None
        return precise(before.logits).log_softmax(-1) + self.beta * q


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
