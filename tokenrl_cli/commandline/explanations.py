"""Turns exceptions of Hydra, OmegaConf and their parsers into UserErrors of one line, with a suggestion.

An exception whose class is not named here is recognised as theirs by the module of its class, or of the code that
raised it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tokenrl_cli.commandline.arguments import key_of, unquoted
from tokenrl_cli.commandline.hints import similar_key, suggestion
from tokenrl_cli.config.build import hint
from tokenrl_cli.config.options import circle, groups, options, typed
from tokenrl_cli.interfaces import UserError

THEIRS = ("hydra.", "omegaconf.", "yaml.", "antlr4.")
NO_OPTION = re.compile(r"(?i)|~|null|true|false|nan|[-+]?inf|[-+]?[\d._]+(e[-+]?\d+)?|0x[\da-f]+")  # as YAML reads it


def explain(error: BaseException, roots: Sequence[Path], command: str, words: Sequence[str] = ()) -> UserError | None:
    """Returns the UserError for an exception that Hydra or a library of its raised, or that has a UserError among its
    causes; None for any other, which is no mistake of the user's.

    `roots` are the folders that hold the options, `command` is the command that ran, `words` are the overrides of the
    command line.
    """
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, UserError):
            return each
    if isinstance(error, UserWarning) and "is not available" in str(error):
        path = str(error).rpartition("path=")[2].removesuffix(" is not available.")
        return UserError("hydra.searchpath", f"there is no directory {path}")
    if isinstance(error, RecursionError):
        return _too_deep(error, roots, words)
    if not type(error).__module__.startswith(THEIRS) and not _raised_by_them(error):
        return None
    message = str(error).strip()
    if message.startswith("Config group override"):
        return _no_option(roots, words) or UserError("config", message)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error, roots)
    if match := re.match(r"Could not append to config. An item is already at '([^']+)'", message):
        return UserError(f"+{match[1]}", "exists already", f"leave out the +: {match[1]}=VALUE")
    if match := re.match(r"Could not (?:override|delete)[^']*'([^']+)'", message):
        return unknown_key(match[1], _parent(chain), roots, command)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if match := re.match(r"Ambiguous value for argument '(.*)'", message):
        key, _, value = match[1].partition("=")
        return UserError(match[1], "names several values", f"to try each, add -m; for a list, write '{key}=[{value}]'")
    longest = key_of(max(words, key=len, default="config"))
    # Python refuses a number of thousands of digits without naming its key: the longest one is guessed
    other = longest if isinstance(error, ValueError) and "digits" in message else "config"
    keys = (each.full_key for each in chain if isinstance(each, OmegaConfBaseException))
    where = next(filter(None, keys), other)
    lines = [line for line in message.splitlines() if line.strip() and not re.match(r"\s*(full_key|object_type)", line)]
    return UserError(where, " ".join(line.strip() for line in lines))


def _frames(error: BaseException) -> list[Any]:
    """The stack frames on the way to an exception, the innermost last."""
    found = []
    step = error.__traceback__
    while step is not None:
        found.append(step.tb_frame)
        step = step.tb_next
    return found


def _raised_by_them(error: BaseException) -> bool:
    """Whether code of Hydra or its libraries raised an exception, even one of Python's own (a number of 5,000
    digits)."""
    frames = _frames(error)
    return bool(frames) and f"{frames[-1].f_globals.get('__name__')}.".startswith(THEIRS)


def _too_deep(error: RecursionError, roots: Sequence[Path], words: Sequence[str]) -> UserError | None:
    """The UserError for a file that includes itself, or for a value nested too deep; None if the recursion is not in
    Hydra or its libraries."""
    frames = _frames(error)
    if not any(f"{frame.f_globals.get('__name__')}.".startswith(THEIRS) for frame in frames):
        return None
    if found := circle(roots):
        remedy = "for the file's own lines write _self_" if len(found) == 1 else "take one of them out of its defaults"
        return UserError(f"{found[0]}.yaml", f"includes itself: {' > '.join([*found, found[0]])}", remedy)
    files = [frame.f_locals["full_path"] for frame in frames if "full_path" in frame.f_locals]
    deepest = max(words, key=lambda word: sum(map(word.count, "[{")), default="config")
    where = str(files[-1]) if files else key_of(deepest)
    return UserError(where, "is nested too deep to be read")


def _no_option(roots: Sequence[Path], words: Sequence[str]) -> UserError | None:
    """The UserError for an override that sets a group to null, to a number or to another value that is no name of an
    option; None if there is none."""
    for word in words:
        group = key_of(word).partition("@")[0]
        if group in groups(roots) and NO_OPTION.fullmatch(unquoted(word.partition("=")[2])):
            listed = f"one of {', '.join(options(roots, group))}"
            return UserError(word, "names no option", listed)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an exception and all that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _parent(chain: list[BaseException]) -> Any:
    """The node of the config in which a key was not found; {} if that is unknown."""
    for each in chain:
        if isinstance(each, OmegaConfBaseException) and isinstance(each.parent_node, DictConfig):
            return each.parent_node
    return {}


def _missing_option(error: Any, roots: Sequence[Path]) -> UserError:
    """The UserError for an option that does not exist: Hydra found no file for it."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    by = re.match(r"In '([^']+)'", str(error))
    key = f"{group}={name}" if group else name
    if other := _other_ending(str(error), roots, group, name):
        right = other.with_suffix(".yaml")
        problem = f"is the file {other}, and the name of an option must end in .yaml"
        return UserError(key, problem, f"mv {other} {right}")
    known = sorted(error.options or options(roots, group))
    place = f" (named in {by[1]})" if by and "/" in by[1] else ""
    listed = f"there are: {', '.join(known)}" if known else "the group is empty; --config-dir DIR adds your own"
    return UserError(key, f"there is no such option{hint(name, known)}{place}", listed)


def _other_ending(message: str, roots: Sequence[Path], group: str, name: str) -> Path | None:
    """The file of an option that Hydra does not read because it ends in .yml or .YAML; None if there is none."""
    searched = [Path(found) for found in re.findall(r"path=file://(.*)", message)]
    for folder in dict.fromkeys(root / group for root in [*roots, *searched]):
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if file.suffix.lower() in (".yml", ".yaml") and file.suffix != ".yaml" and name in (file.stem, file.name):
                return file
    return None


def unknown_key(key: str, node: Any, roots: Sequence[Path], command: str) -> UserError:
    """Returns the UserError, not raised, for a key or group that does not exist, with what may have been meant.

    `key` is the whole key as it was typed ("algorithm.critic.klip", or a group, "optimizer@algorithm.optimizer").
    `node` is the part of the config that has no such key (that of "algorithm.critic"), a DictConfig that still belongs
    to the composed config, from which other keys are suggested; a plain dictionary must be the whole config. `roots`
    are the folders that hold the options. `command` is the name of the command ("train"), on which the advice and the
    order of the suggested keys depend.
    """
    if "/" in key and key in groups(roots):
        above, _, part = key.rpartition("/")
        if (whole := typed(part, above)) != key:
            return UserError(key, "does not say where it belongs", f"{whole}=OPTION")
        remedy = f"tokenrl list {above} shows the sub-groups of each option; those of a checkpoint are fixed"
        return UserError(key, f"the option chosen for {above} has no such sub-group", remedy)
    siblings = [str(each) for each in node if each != "hydra"]
    if "/" in key or "@" in key:
        return UserError(
            key, f"there is no such key or group{hint(key, groups(roots))}", "tokenrl list shows the groups"
        )
    parent, _, name = key.rpartition(".")
    root = node._get_root() if isinstance(node, DictConfig) else node
    elsewhere, remedy = suggestion(name, command, root)
    at_root = not parent or root is node
    if remedy or elsewhere:
        return UserError(key, f"there is no such key{' or group' if at_root else ''}{elsewhere}", remedy)
    if at_root:
        first = key.partition(".")[0]
        inner = [group for group in groups(roots) if group.rpartition("/")[2] == name]
        close = f" (did you mean {inner[0]!r}?)" if inner else hint(first, [*siblings, *groups(roots)])
        close = close or similar_key(name, command, root)
        return UserError(key, f"there is no such key or group{close}", "tokenrl list shows the groups")
    close = hint(name, siblings).replace("did you mean '", f"did you mean '{parent}.")
    values = ", ".join(each for each in siblings if not each.startswith("_"))
    listed = f"{parent} has: {values}" if values else f"{parent} has no values" if siblings else ""
    return UserError(key, f"there is no such key{close}", listed)


def _unreadable(error: Any) -> UserError:
    """The UserError for an override that Hydra cannot parse."""
    override = str(error.override)
    if "=" not in override:
        return UserError(override, "must be key=value", "tokenrl COMMAND --help shows how to call it")
    reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
    key, _, value = override.partition("=")
    return UserError(override, f"cannot be read: {reason}", f"""quote the value: "{key}='{value}'" """.rstrip())
