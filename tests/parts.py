"""Parts small enough to check a config against: what a user's own module may hold."""

from __future__ import annotations

import functools
import os  # noqa: F401  an alias through which a config might try to get out
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import system  # noqa: F401  and another
from typing import Any, Literal

import numpy as np

from tokenrl_cli.config.build import build
from tokenrl_cli.config.ranges import Positive
from tokenrl_cli.interfaces import Reward, Texts

VALUE = 3


class Length:
    """A reward."""

    def __init__(
        self, scale: Positive, unit: Literal["word", "char"], limit: int | None, weights: Sequence[float]
    ) -> None:
        self.scale, self.unit, self.limit, self.weights = scale, unit, limit, weights

    def __call__(self, texts: Texts) -> np.ndarray:
        return np.array([self.scale * len(text) for text in texts.hypotheses])


class Mixture:
    """A reward made of rewards."""

    def __init__(self, parts: list[Reward], named: Mapping[str, Reward], seed: int, trust: Sequence[str]) -> None:
        self.parts, self.named, self.seed, self.trust = parts, named, seed, trust

    def __call__(self, texts: Texts) -> np.ndarray:
        return sum((part(texts) for part in self.parts), np.zeros(len(texts.hypotheses)))


class Spread:
    """A credit: it has the attribute that the protocol asks for."""

    needs_prefixes = False

    def __call__(self, scores: Any, mask: Any, ended: Any) -> Any:
        return scores


class Unsure:
    """Nearly a credit."""

    def __call__(self, scores: Any, mask: Any, ended: Any) -> Any:
        return scores


class Learner:
    """Owns a function that it finishes itself, and whatever is named at run time."""

    def __init__(
        self,
        model: Any,
        optimizer: Callable[[Iterable[Any]], Any],
        baseline: Callable[..., Any],
        pair: tuple[float, float],
        options: Mapping[str, int],
        shuffle: bool,
        name: str,
    ) -> None:
        self.model, self.baseline, self.pair, self.name = model, baseline, pair, name
        self.optimizer = optimizer([1, 2])


class Open:
    def __init__(self, **anything: Any) -> None:
        self.anything = anything


def length(texts: Texts, scale: float) -> np.ndarray:
    return np.array([scale * len(text) for text in texts.hypotheses])


def other(words: Any, scale: float) -> float:
    return scale


def descent(parameters: Iterable[Any], lr: float, schedule: Callable[[int], float]) -> dict[str, Any]:
    return {"parameters": list(parameters), "lr": lr, "rate": schedule(1)}


def constant(step: int, factor: float) -> float:
    return factor


def mean(returns: Any, valid: Any) -> Any:
    return returns


def _hidden(texts: Texts) -> np.ndarray:
    return length(texts, 1.0)


JUDGE = Length(1.0, "word", None, [])  # what may give a reward, besides functions
SCORE = JUDGE.__call__
HALF = functools.partial(length, scale=0.5)
BUILT = functools.partial(build, {}, Reward, [])
