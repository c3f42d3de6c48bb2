"""Shell completion: command names are completed here, overrides by Hydra from the config of the command."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from tokenrl_cli.commandline.arguments import VALUED, Arguments
from tokenrl_cli.config.options import groups, options, roots
from tokenrl_cli.interfaces import UserError

SHELLS = ("bash", "zsh", "fish")


def complete(
    arguments: Arguments, commands: Sequence[str], configs: dict[str, str], hydra: Callable[[Arguments], None]
) -> None:
    """Carries out `-sc`: with install=SHELL or uninstall=SHELL prints the shell code that switches completion on or
    off, with query=SHELL the words that may follow the line in the variable COMP_LINE.

    `commands` are all commands, `configs` maps those that have a config to its name; `hydra` runs Hydra on a command
    line, which completes the overrides. Overwrites COMP_LINE for that. Raises UserError for other arguments.
    """
    request = dict(each.partition("=")[::2] for each in (arguments.command or "", *arguments.rest) if each)
    known = request.keys() & {"install", "uninstall", "query"}
    if len(known) != 1 or next(iter(request.values())) not in SHELLS:
        remedy = """eval "$(tokenrl -sc install=bash)" """.rstrip()
        raise UserError("-sc", "needs install=SHELL or uninstall=SHELL; SHELL is bash, zsh or fish", remedy)
    if "query" not in request:
        return hydra(Arguments("train", arguments.flags, arguments.rest))
    line = os.environ.get("COMP_LINE", "")
    words = line.split()[1:]
    position = _command_position(words)
    typing = position == len(words) - 1 and not line.endswith(" ")
    separator = "\n" if request["query"] == "fish" else " "
    if position >= len(words) or typing:
        begun = words[position] if typing else ""
        print(separator.join(name for name in commands if name.startswith(begun)))
        return None
    command = words.pop(position)
    if command in configs:
        os.environ["COMP_LINE"] = " ".join(["tokenrl", *words]) + (" " if line.endswith(" ") else "")
        with suppress(UserError):  # an unfinished line is often wrong, and a message would be printed into it
            hydra(Arguments(command, arguments.flags, arguments.rest))
        return None
    begun = "" if line.endswith(" ") else words[-1]
    print(separator.join(name for name in _choices(command) if name.startswith(begun)))
    return None


def _command_position(words: Sequence[str]) -> int:
    """The index of the first word that is neither a flag nor the value of one; the number of words if there is none."""
    short = {"-c", "-p", "-cp", "-cn", "-cd", *VALUED}
    for index, word in enumerate(words):
        if not word.startswith("-") and (index == 0 or words[index - 1] not in short):
            return index
    return len(words)


def _choices(command: str) -> list[str]:
    """The words that may follow a command without a config: groups for `list`, GROUP/NAME for `copy`."""
    places = roots(None)
    names = groups(places)
    pairs = [f"{group}/{name}" for group in names for name in options(places, group)]
    return {"list": names, "copy": pairs}.get(command, [])
