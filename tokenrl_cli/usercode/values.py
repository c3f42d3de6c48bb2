"""Where what a user's code gives becomes ours: numbers of any library as floats, and anything as a short text."""

from __future__ import annotations

import math
import numbers
import reprlib
from decimal import Decimal
from typing import Any

LARGEST = 1e18  # of a reward: the square of more is infinite in float32

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def plain(value: Any) -> Any:
    """Arrays and scalars of numpy, torch, jax and pandas as lists and numbers of Python; others as they are."""
    if type(value) in (float, int, bool, str, list, tuple, dict, type(None)):
        return value
    try:
        return value.tolist() if hasattr(value, "tolist") else value
    except Exception:  # a tensor without data, an object that has everything
        return value


def number(value: Any) -> float | None:
    """A float, NaN included; None where `value` is no number that a float can hold, or is infinite."""
    value = plain(value)
    if not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        found = float(value)
    except (OverflowError, ValueError, TypeError):  # 10**400, a signalling NaN
        return None
    return None if math.isinf(found) else found


def named(value: Any) -> str:
    """ "'0.5' (str)": of any object, the largest ones and those whose repr fails included."""
    return f"{shown(value)} ({type(value).__name__})"


def shown(value: Any, width: int = 80) -> str:
    _short.maxstring = width
    try:
        text = _short.repr(value)
    except Exception:  # an integer of more digits than Python prints; a __repr__ that raises
        text = "something that cannot be shown"
    text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= width else f"{text[: width - 3]}..."


def writable(text: str) -> str:
    """With escapes for lone surrogates, which no file takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
