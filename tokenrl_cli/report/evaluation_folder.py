"""Names of the folders that hold the results of evaluations.

A name lists the settings that differ from the usual ones. Two evaluations that differ in any setting that changes
numbers never share a folder; the same evaluation run again replaces its own results.
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
    """Returns the folder in `out` for the results of an evaluation with `settings` (plain JSON values), named after
    `parts`.

    The folder has no results.json yet, or one of the same settings, whose results may be replaced. If the name is taken
    by results of other settings, the settings that differ from those are appended to it; if that name is taken as well,
    or the other settings are unknown, a number (-2, -3 ...) is appended instead. Creates nothing.
    """
    name = file_name(parts)
    found = settings_in(out / name)
    if found is None or found == settings:
        return out / name
    if found:
        longer = file_name([*parts, *changed_settings(found, settings)])
        if settings_in(out / longer) in (None, settings):
            return out / longer
    number = 2
    while settings_in(out / f"{name}-{number}") not in (None, settings):
        number += 1
    return out / f"{name}-{number}"


def settings_in(folder: Path) -> Settings | None:
    """Returns the settings that the results in a folder were computed with: {} if results.json does not state them or
    cannot be read, None if the folder has no results.json."""
    file = folder / "results.json"
    if not os.path.lexists(file):
        return None
    try:
        found = read_json(file, "evaluation").get("settings")
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def changed_settings(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Returns the differences between two configs: KEY=VALUE for each value of `now` that is new or has changed,
    KEY=none for each key of `before` that has gone. `prefix` is put before every key.

    A block that has become another class is named by the module of that class, as in `reward=chrf`, beside those of its
    values that differ; the keys that only the class in `before` had are then left out.
    """
    found = []
    other_class = before.get("_target_") != now.get("_target_")
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict):
            found += changed_settings(old if isinstance(old, dict) else {}, value, f"{prefix}{key}.")
        elif old != value:
            name, text = f"{prefix}{key}", as_typed(value)
            if key == "_target_":  # the block became another class: say reward=chrf, not reward._target_=...
                name, text = prefix.removesuffix("."), str(value).split(".")[-2:][0]
            found.append(f"{name}={text}")
    gone = [key for key in before if key not in now and not other_class]
    return found + [f"{prefix}{key}=none" for key in gone]


def as_typed(value: Any) -> str:
    """Returns a value roughly as it would be typed on the command line; a list as its items between commas."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return ",".join(map(as_typed, value)) if isinstance(value, list) else str(value)


def file_name(parts: list[str]) -> str:
    """Joins the parts by "-" to one file name of letters of any script, digits and ._=+,@- only; each run of other
    characters becomes "_", so that different parts may give one name.

    A name longer than LONGEST (120) bytes is cut and ends in a hash of the whole, so that different long names stay
    different.
    """
    whole = "-".join(parts)
    safe = re.sub(r"[^\w.=+,@-]+", "_", whole)
    if len(safe.encode()) <= LONGEST:
        return safe
    start = safe.encode()[: LONGEST - 9].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
