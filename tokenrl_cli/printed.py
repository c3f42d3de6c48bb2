"""Commands as they are printed for the user: pasted into a shell, they do what they say, whatever a path is called."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

PLAIN = r"[A-Za-z_/.][\w/.+@%-]*"  # a value that Hydra takes as this very text without quotes
TAKEN = ("null", "true", "false", "nan", "inf")  # these it takes for something else
EXPANDED = '"$`\\!'  # what a shell looks at inside double quotes


def command(name: str, *words: str, imports: Sequence[str] = (), **keys: Any) -> str:
    """ "tokenrl NAME key=value ... words", quoted for Hydra and for the shell, with `imports` where there are any.

    `words` are overrides as they are typed, e.g. "algorithm.optimizer.lr=..."; they come last.
    """
    given = [f"{key}={value(str(each))}" for key, each in keys.items()]
    if imports:
        given.append(f"imports=[{','.join(map(value, imports))}]")
    return " ".join(["tokenrl", name, *map(shell, (*given, *words))])


def value(text: str) -> str:
    """A text as the value of an override, in quotes where it would be read as something else."""
    taken = text.lower() in TAKEN or not re.fullmatch(PLAIN, text, re.ASCII)
    return quoted(text) if taken else text


def shell(word: str) -> str:
    """A word for a shell: as it is, or in double quotes, which leave those of Hydra readable, or as shlex has it."""
    if shlex.quote(word) == word:
        return word
    return shlex.quote(word) if set(word) & set(EXPANDED) else f'"{word}"'


def unquoted(value: str) -> str:
    """Of Hydra's override grammar: 'a path' or "a path", where only backslashes before a quote mean anything."""
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "'\"":
        return value
    return re.sub(rf"(\\+)({value[0]}|$)", lambda found: "\\" * (len(found[1]) // 2) + found[2], value[1:-1])


def quoted(text: str) -> str:
    """As that grammar takes any text, '=' and ',' included."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"
