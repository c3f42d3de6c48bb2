"""Access to the parts of an algorithm's saved state, which is one flat dictionary."""

from __future__ import annotations

from typing import Any


def within(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Returns a new dictionary with the entries of a flat state whose names start with `prefix`, such as "optimizer.",
    under their names without it; {} if there are none. Values are not copied."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
