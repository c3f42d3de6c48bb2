"""What was typed, taken apart: command, overrides, and Hydra's flags, in any order. Knows nothing of Hydra itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenrl_cli.config.build import hint
from tokenrl_cli.interfaces import UserError

SHORT = {
    "-h": "--help",
    "-c": "--cfg",
    "-p": "--package",
    "-r": "--run",
    "-m": "--multirun",
    "-sc": "--shell-completion",
    "-cp": "--config-path",
    "-cn": "--config-name",
    "-cd": "--config-dir",
    "-i": "--info",
}
SWITCHES = ("--help", "--hydra-help", "--version", "--resolve", "--run", "--multirun", "--shell-completion")
VALUED = ("--cfg", "--package", "--config-path", "--config-name", "--config-dir")
EXCLUSIVE = ("--run", "--multirun", "--cfg", "--info", "--shell-completion")
DEEPEST = 100  # brackets of a value in each other
CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass(frozen=True)
class Arguments:
    """flags: name -> value, "" for a switch; rest: overrides, or the arguments of a command without a config."""

    command: str | None
    flags: dict[str, str]
    rest: tuple[str, ...]

    def line(self) -> list[str]:
        """As Hydra reads it."""
        flags = [word for name, value in self.flags.items() for word in ((name, value) if value else (name,))]
        return [*flags, *self.rest]

    def with_overrides(self, *overrides: str) -> Arguments:
        return replace(self, rest=(*self.rest, *overrides))

    def without(self, key: str) -> Arguments:
        return replace(self, rest=tuple(each for each in self.rest if key_of(each) != key))

    def value(self, key: str) -> str | None:
        """What the command line gives a key, without its quotes; None where it does not."""
        given = [override.partition("=")[2] for override in self.rest if key_of(override) == key and "=" in override]
        return unquoted(given[-1]) if given else None

    @property
    def runs(self) -> bool:
        """Whether a task will be started, rather than something shown."""
        return not {"--cfg", "--info", "--shell-completion", "--hydra-help", "--help"} & self.flags.keys()


def parse(words: Sequence[str]) -> Arguments:
    flags: dict[str, str] = {}
    plain: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-") or word == "-":
            _require_shallow(word)
            plain.append(word)
            continue
        name, equals, value = word.partition("=")
        name = SHORT.get(name, name)
        if name in VALUED and not equals:
            if not left:
                raise UserError(word, "needs a value")
            value = left.pop(0)
        elif name == "--info" and not equals:
            value = left.pop(0) if left and left[0] in INFO else "all"
        _check_flag(word, name, value)
        flags[name] = value
    if len(shown := [name for name in EXCLUSIVE if name in flags]) > 1:
        raise UserError(" ".join(shown), "only one of these at a time")
    if "--resolve" in flags and "--cfg" not in flags:
        raise UserError("--resolve", "goes with --cfg", "--cfg job --resolve")
    command = plain.pop(0) if plain and "=" not in plain[0] else None
    return Arguments(command, flags, tuple(plain))


def _require_shallow(word: str) -> None:
    """Brackets in brackets in brackets take minutes to be read, and then there is no room for them."""
    depth = 0
    for letter in word:
        depth += (letter in "[{") - (letter in "]}")
        if depth > DEEPEST:
            raise UserError(key_of(word), f"is nested too deep to be read: more than {DEEPEST} brackets in each other")


def _check_flag(word: str, name: str, value: str) -> None:
    if name == "--experimental-rerun":
        raise UserError(name, "is not supported: it reads a pickle, which can run code", "use resume=RUN")
    if name not in (*SWITCHES, *VALUED, "--info"):
        close = hint(name, [*SWITCHES, *VALUED, "--info"])
        raise UserError(word, f"there is no such flag{close}", "values are given as key=value, without dashes")
    if name in SWITCHES and value:
        raise UserError(word, f"{name} takes no value")
    for flag, options in (("--cfg", CFG), ("--info", INFO)):
        if name == flag and value not in options:
            raise UserError(f"{flag} {value}", f"must be one of {', '.join(options)}{hint(value, options)}")


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def unquoted(value: str) -> str:
    """Of Hydra's override grammar: 'a path' or "a path", where only backslashes before a quote mean anything."""
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "'\"":
        return value
    return re.sub(rf"(\\+)({value[0]}|$)", lambda found: "\\" * (len(found[1]) // 2) + found[2], value[1:-1])


def quoted(text: str) -> str:
    """As that grammar takes any text, '=' and ',' included."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def typed(command: str, *overrides: str) -> str:
    """A command line that can be pasted into a shell; `overrides` are as Hydra reads them, each `override(...)`."""
    return " ".join([f"tokenrl {command}", *map(_for_the_shell, overrides)])


def override(key: str, value: Any) -> str:
    """KEY=VALUE for text, a list of texts, a number, a truth value or None, quoted where Hydra's grammar needs it."""
    return f"{key}={_grammar(value)}"


def _grammar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_grammar, value))}]"
    if not isinstance(value, str):
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    plain = re.fullmatch(r"[A-Za-z_./][\w./:@%+-]*", value, re.ASCII) and not re.fullmatch(r"[\d._e+-]+", value, re.I)
    return value if plain and value.lower() not in ("null", "true", "false", "nan", "inf") else quoted(value)


def _for_the_shell(word: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./-]+", word, re.ASCII):
        return word
    return shlex.quote(word) if re.search(r'[$`"\\!]', word) else f'"{word}"'  # double ones are easier to read
