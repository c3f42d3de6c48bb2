"""Ranges of the numbers and texts in a config, declared in the annotation of the parameter: `Annotated[float, Ge(0)]`.

The check of a config reads these beside the types, and `tokenrl list` shows them. A float is finite and an integer has
64 bits unless something else is declared; NaN is never a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge as Ge
from annotated_types import Gt as Gt
from annotated_types import Le as Le
from annotated_types import Lt as Lt
from annotated_types import MinLen as MinLen


@dataclass(frozen=True)
class Infinite:
    """In an annotation, `Annotated[float, Infinite()]`: the float may be infinite, but not NaN."""


Range = Ge | Gt | Le | Lt | MinLen | Infinite


def holds(limit: Range, value: Any) -> bool:
    """Returns whether a value of the right type lies in the range `limit`. Always True for Infinite, which only lifts
    the check that a float is finite."""
    match limit:
        case Ge(bound):
            return bool(value >= bound)
        case Gt(bound):
            return bool(value > bound)
        case Le(bound):
            return bool(value <= bound)
        case Lt(bound):
            return bool(value < bound)
        case MinLen(length):
            return len(value) >= length
    return True


def described(limit: Range) -> str:
    """Returns the range `limit` in words, as messages and `tokenrl list` show it: "at least 0", "not empty", "which may
    be infinite"."""
    match limit:
        case Ge(bound):
            return f"at least {bound}"
        case Gt(bound):
            return f"above {bound}"
        case Le(bound):
            return f"at most {bound}"
        case Lt(bound):
            return f"below {bound}"
        case MinLen(length):
            return "not empty" if length == 1 else f"of at least {length} items"
    return "which may be infinite"


MANY = 10**9  # steps, examples, ids: more than any run counts to
WIDE = 10**6  # of a layer, a vocabulary, a batch: more than any memory holds several of

Positive = Annotated[float, Gt(0)]
Weight = Annotated[float, Ge(0)]  # of a term; 0 is off
Probability = Annotated[float, Ge(0), Le(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]  # what a decay or a dropout may be
Count = Annotated[int, Ge(1), Le(MANY)]
CountOrZero = Annotated[int, Ge(0), Le(MANY)]  # an int and never None; 0 is none, off or all
Size = Annotated[int, Ge(1), Le(WIDE)]
SizeOrZero = Annotated[int, Ge(0), Le(WIDE)]  # an int and never None; 0 is none, off or all
Text = Annotated[str, MinLen(1)]
Order = Annotated[int, Ge(1), Le(100)]  # of an n-gram
Speeds = Annotated[list[Annotated[float, Gt(0.1), Le(10)]], MinLen(1)]  # at which recordings are played; 1 as they are
