"""What a number or a text of a config may be, declared where it is taken: `Annotated[float, Ge(0)]`.

The check of a config reads these beside the types, and `tokenrl list` shows them. A float is finite and an integer has
64 bits unless something else is declared; NaN is never a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Ge:
    """At least `bound`."""

    bound: float

    def holds(self, value: Any) -> bool:
        return bool(value >= self.bound)

    def __str__(self) -> str:
        return f"at least {self.bound}"


@dataclass(frozen=True)
class Gt:
    """Above `bound`."""

    bound: float

    def holds(self, value: Any) -> bool:
        return bool(value > self.bound)

    def __str__(self) -> str:
        return f"above {self.bound}"


@dataclass(frozen=True)
class Le:
    """At most `bound`."""

    bound: float

    def holds(self, value: Any) -> bool:
        return bool(value <= self.bound)

    def __str__(self) -> str:
        return f"at most {self.bound}"


@dataclass(frozen=True)
class Lt:
    """Below `bound`."""

    bound: float

    def holds(self, value: Any) -> bool:
        return bool(value < self.bound)

    def __str__(self) -> str:
        return f"below {self.bound}"


@dataclass(frozen=True)
class Filled:
    """A text or a list that is not empty."""

    def holds(self, value: Any) -> bool:
        return len(value) > 0

    def __str__(self) -> str:
        return "not empty"


@dataclass(frozen=True)
class Infinite:
    """A float that may be infinite."""

    def holds(self, value: Any) -> bool:
        return True

    def __str__(self) -> str:
        return "which may be infinite"


Range = Ge | Gt | Le | Lt | Filled | Infinite

MANY = 10**9  # steps, examples, ids: more than any run counts to
WIDE = 10**6  # of a layer, a vocabulary, a batch: more than any memory holds several of

Positive = Annotated[float, Gt(0)]
Weight = Annotated[float, Ge(0)]  # of a term; 0 is off
Probability = Annotated[float, Ge(0), Le(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]  # what a decay or a dropout may be
Count = Annotated[int, Ge(1), Le(MANY)]
CountOrNone = Annotated[int, Ge(0), Le(MANY)]  # 0 is none, off or all
Size = Annotated[int, Ge(1), Le(WIDE)]
SizeOrNone = Annotated[int, Ge(0), Le(WIDE)]  # 0 is none, off or all
Text = Annotated[str, Filled()]
Order = Annotated[int, Ge(1), Le(100)]  # of an n-gram
