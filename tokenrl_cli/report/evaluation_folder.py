"""Where the results of an evaluation go: a folder whose name says what is special about it, and that holds no other's.

Two evaluations that differ in anything that changes numbers never share a folder; the same one again replaces itself.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from tokenrl_cli.files.records import read_json
from tokenrl_cli.interfaces import UserError

LONGEST = 120  # bytes of a name; file systems allow 255, and something may be appended
Settings = dict[str, Any]


def folder_for(out: Path, parts: list[str], settings: Settings) -> Path:
    """A folder of `out` named after `parts`, for results of `settings` (plain JSON).

    It is new, or holds results of the same settings. Where that name holds those of others, what differs from them is
    appended; where that is taken, too, or the other's settings are unknown, a number.
    """
    name = short(parts)
    there = settings_of(out / name)
    if there is None or there == settings:
        return out / name
    if there:
        longer = short([*parts, *differing(there, settings)])
        if settings_of(out / longer) in (None, settings):
            return out / longer
    number = 2
    while settings_of(out / f"{name}-{number}") not in (None, settings):
        number += 1
    return out / f"{name}-{number}"


def settings_of(folder: Path) -> Settings | None:
    """What the results in a folder were made with; {} where they do not say so, None where there are none."""
    file = folder / "results.json"
    if not os.path.lexists(file):
        return None
    try:
        found = read_json(file, "evaluation").get("settings")
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def differing(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """KEY=VALUE of the values that were others before, KEY=none of those that are there no longer.

    A block of another class is named by that class's module, as `reward=chrf`.
    """
    found = []
    other_class = before.get("_target_") != now.get("_target_")
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict):
            found += differing(old if isinstance(old, dict) else {}, value, f"{prefix}{key}.")
        elif old != value:
            name, said = f"{prefix}{key}", shown(value)
            if key == "_target_":
                name, said = prefix.removesuffix("."), str(value).split(".")[-2:][0]
            found.append(f"{name}={said}")
    gone = [key for key in before if key not in now and not other_class]
    return found + [f"{prefix}{key}=none" for key in gone]


def shown(value: Any) -> str:
    """A value as it is typed, more or less."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return ",".join(map(shown, value)) if isinstance(value, list) else str(value)


def short(parts: list[str]) -> str:
    """The parts as one file name: letters, digits and ._=+,@- alone, and of a long name the beginning and a hash."""
    whole = "-".join(parts)
    safe = re.sub(r"[^\w.=+,@-]+", "_", whole)
    if len(safe.encode()) <= LONGEST:
        return safe
    start = safe.encode()[: LONGEST - 9].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
