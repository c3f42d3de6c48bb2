"""Parses a command line into command, overrides and Hydra's flags, and quotes overrides. Imports nothing of Hydra."""

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
DEEPEST = 100  # levels of nested brackets in a value
CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass(frozen=True)
class Arguments:
    """A parsed command line, as `parse` returns it.

    `flags` maps the long name of each flag to its value, "" for a switch. `rest` holds the overrides, or the arguments
    of a command without a config.
    """

    command: str | None
    flags: dict[str, str]
    rest: tuple[str, ...]

    def line(self) -> list[str]:
        """Returns the words of the command line as Hydra reads them, without the command: flags by their long names,
        then overrides."""
        flags = [word for name, value in self.flags.items() for word in ((name, value) if value else (name,))]
        return [*flags, *self.rest]

    def with_overrides(self, *overrides: str) -> Arguments:
        """Returns a copy with `overrides` appended."""
        return replace(self, rest=(*self.rest, *overrides))

    def without(self, key: str) -> Arguments:
        """Returns a copy without the overrides of a key, whatever stands before it ("+", "++" or "~")."""
        return replace(self, rest=tuple(each for each in self.rest if key_of(each) != key))

    def value(self, key: str) -> str | None:
        """Returns the last value that the overrides give a key, with or without "+" or "++" before it, as text without
        quotes; "" for `KEY=`, None if they give none. The deletions `~KEY` and `~KEY=VALUE` are ignored: they give no
        value, and leave an earlier one."""
        given = [override for override in self.rest if key_of(override) == key and not override.startswith("~")]
        values = [override.partition("=")[2] for override in given if "=" in override]
        return unquoted(values[-1]) if values else None

    @property
    def runs(self) -> bool:
        """Whether the command does its work, rather than print a config, information or help. True with --version."""
        return not {"--cfg", "--info", "--shell-completion", "--hydra-help", "--help"} & self.flags.keys()


def parse(words: Sequence[str]) -> Arguments:
    """Parses the words after `tokenrl`, in any order. The first word that is not part of a flag is the command, unless
    it has a "="; all further ones go to `rest`, also if they are no KEY=VALUE.

    Raises UserError for unknown flags, flags without their value or with a wrong one, flags that exclude each other,
    and brackets nested more than DEEPEST (100) levels deep. Does not check that the command exists.
    """
    flags: dict[str, str] = {}
    plain: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith("-") or word == "-":
            _require_shallow(word)
            plain.append(word)
            continue
        name, equals, value = word.partition("=")
        name = SHORT.get(name, name)
        if name in VALUED and not equals:
            if not remaining:
                raise UserError(word, "needs a value")
            value = remaining.pop(0)
        elif name == "--info" and not equals:
            value = remaining.pop(0) if remaining and remaining[0] in INFO else "all"
        _check_flag(word, name, value)
        flags[name] = value
    if len(exclusive := [name for name in EXCLUSIVE if name in flags]) > 1:
        raise UserError(" ".join(exclusive), "only one of these flags can be given")
    if "--resolve" in flags and "--cfg" not in flags:
        raise UserError("--resolve", "can only be given with --cfg", "--cfg job --resolve")
    command = plain.pop(0) if plain and "=" not in plain[0] else None
    return Arguments(command, flags, tuple(plain))


def _require_shallow(word: str) -> None:
    """Raises UserError if brackets are nested too deep: Hydra would read them for minutes and then exhaust the
    stack."""
    depth = 0
    for letter in word:
        depth += (letter in "[{") - (letter in "]}")
        if depth > DEEPEST:
            raise UserError(key_of(word), f"is nested too deep to be read: more than {DEEPEST} levels of brackets")


def _check_flag(word: str, name: str, value: str) -> None:
    """Raises UserError unless a flag is known and takes this value. `word` is the flag as typed, `name` its long
    name."""
    if name == "--experimental-rerun":
        raise UserError(name, "is not supported: it loads a pickle, which can run code", "use resume=RUN")
    if name not in (*SWITCHES, *VALUED, "--info"):
        close = hint(name, [*SWITCHES, *VALUED, "--info"])
        raise UserError(word, f"there is no such flag{close}", "values are typed as key=value, without dashes")
    if name in SWITCHES and value:
        raise UserError(word, f"{name} takes no value")
    for flag, options in (("--cfg", CFG), ("--info", INFO)):
        if name == flag and value not in options:
            raise UserError(f"{flag} {value}", f"must be one of {', '.join(options)}{hint(value, options)}")


def key_of(override: str) -> str:
    """Returns the key of an override: "a.b" for "++a.b=1", "c" for "~c"; that of a group includes its package, as in
    "optimizer@algorithm.optimizer"."""
    return override.partition("=")[0].lstrip("+~")


def unquoted(value: str) -> str:
    """Returns a value without the quotes of Hydra's override grammar, in which a backslash escapes only before a quote;
    a value without quotes as it is."""
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "'\"":
        return value
    return re.sub(rf"(\\+)({value[0]}|$)", lambda found: "\\" * (len(found[1]) // 2) + found[2], value[1:-1])


def quoted(text: str) -> str:
    """Returns a text in single quotes of Hydra's override grammar, so that it may hold any character, even "=" or ",";
    `unquoted` restores it."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def command_line(command: str, *overrides: str) -> str:
    """Returns the command line `tokenrl COMMAND OVERRIDES` to paste into a shell, quoted for it where necessary. Each
    of `overrides` is in Hydra's grammar, as `override` returns it."""
    return " ".join([f"tokenrl {command}", *map(_for_the_shell, overrides)])


def override(key: str, value: Any) -> str:
    """Returns KEY=VALUE in Hydra's override grammar, the value quoted if necessary. `value` is a str, an int or float
    of Python, a bool, None, or a list of these, which is not checked; `command_line` quotes the result for a shell."""
    return f"{key}={_grammar(value)}"


def _grammar(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(_grammar, value))}]"
    if not isinstance(value, str):
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    plain = re.fullmatch(r"[A-Za-z_./][\w./:@%+-]*", value, re.ASCII) and not re.fullmatch(r"[\d._e+-]+", value, re.I)
    return value if plain and value.lower() not in ("null", "true", "false", "nan", "inf") else quoted(value)


def _for_the_shell(word: str) -> str:
    """A word quoted for a shell if necessary."""
    if re.fullmatch(r"[\w@%+=:,./-]+", word, re.ASCII):
        return word
    # double quotes read better around the single quotes of Hydra's grammar
    return shlex.quote(word) if re.search(r'[$`"\\!]', word) else f'"{word}"'
