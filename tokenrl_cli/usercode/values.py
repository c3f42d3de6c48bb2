"""Converts values that a user's code returns: numbers of any library to floats, any object to a short text."""

from __future__ import annotations

import math
import numbers
import reprlib
from decimal import Decimal
from typing import Any

LARGEST = 1e18  # the largest reward: squares of much larger numbers are infinite in float32

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def plain(value: Any) -> Any:
    """Converts arrays and scalars of numpy, torch, jax and pandas (any object that has `tolist`) to new lists and
    numbers of Python. Other values, lists of arrays among them, and those whose `tolist` fails, come back unchanged."""
    if type(value) in (float, int, bool, str, list, tuple, dict, type(None)):
        return value
    try:
        return value.tolist() if hasattr(value, "tolist") else value
    except Exception:  # a tensor without data, an object that has everything
        return value


def number(value: Any) -> float | None:
    """Returns the value as a finite float or NaN; None if it is not a real number, infinite, or too large for a float.
    A bool counts as a number, text does not; scalars of other libraries go through `plain`, while an array of one
    element, as it is a list then, is None."""
    value = plain(value)
    if not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        found = float(value)
    except (OverflowError, ValueError, TypeError):  # 10**400, a signalling NaN
        return None
    return None if math.isinf(found) else found


def shown_with_type(value: Any) -> str:
    """Returns a short text of any object with its type, such as "'0.5' (str)", for an error message: its repr in one
    line, of at most 80 characters, and the name of its class in parentheses."""
    return f"{shown(value)} ({type(value).__name__})"


def shown(value: Any, width: int = 80) -> str:
    """Returns the repr of any object in one line of at most `width` characters, for a message; long strings and
    containers are shortened. Raises nothing, even if `__repr__` fails."""
    _short.maxstring = width
    try:
        text = _short.repr(value)
    except Exception:  # an integer of more digits than Python prints; a __repr__ that raises
        text = "something that cannot be shown"
    text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= width else f"{text[: width - 3]}..."


def writable(text: str) -> str:
    """Returns the text with lone surrogates, which UTF-8 cannot encode, replaced by escapes such as \\ud800."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
