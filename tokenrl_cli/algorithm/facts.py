"""Parts that name, as parameters, the facts they compute from: which these are, and the call with them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def asked(part: Callable[..., Any], **known: Any) -> Any:
    """Calls `part` with what it asks for by name, and no more."""
    return part(**{name: value for name, value in known.items() if name in needs(part)})


def function_of(part: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a part, without the arguments that its config binds."""
    return part.func if isinstance(part, functools.partial) else part


def needs(part: Callable[..., Any]) -> set[str]:
    """The facts that a part asks for: its parameters, less those that are bound already."""
    return set(inspect.signature(part).parameters)
