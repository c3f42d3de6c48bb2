"""Files that a config names, and whether they lie where whoever types the command has said that data may be read.

The config of a run may be somebody else's: what it names outside the current directory and `data_root` could be any
file of this machine. Links and `..` are followed before that is decided.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenrl_cli.commandline.arguments import override
from tokenrl_cli.interfaces import UserError

ROOT = "data"  # data_root where neither the line nor TOKENRL_DATA gives one, as in conf/train.yaml
HANDLED = (
    "out",
    "resume",
    "init_from",
    "ckpt",
    "imports",
    "data_root",
    "started_in",
)  # keys of the root with own rules

FILES = ("path", "paths", "file", "files", "folder", "checkpoint")  # last names of keys that hold paths


def data_root(typed: str | None) -> str:
    """The data_root of whoever types the command, not of a run."""
    return typed or os.environ.get("TOKENRL_DATA") or ROOT


def texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a config under its whole key; what stands in a list under the key of the list."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, where)


def outside(config: dict[str, Any], root: str) -> dict[str, str]:
    """Key -> the text, of a resolved config, that names something on disk outside the current directory and `root`."""
    places = [Path.cwd().resolve(), Path(root).expanduser().resolve()]
    kept = {key: value for key, value in config.items() if key not in HANDLED}
    return {key: text for key, text in texts(kept) if _is_outside(key, text, places)}


def _is_outside(key: str, text: str, places: list[Path]) -> bool:
    if ".splits." in key:
        return _entry_leads_out(text, places)
    return _looks_like_a_file(key, text) and _leads_out(text, places)


def _entry_leads_out(text: str, places: list[Path]) -> bool:
    """Of a file, folder or pattern that `dataset.splits` names, below dataset.path unless it is absolute."""
    path = Path(text).expanduser()
    return ".." in path.parts or (path.is_absolute() and not _within(path.resolve(), places))


def _looks_like_a_file(key: str, text: str) -> bool:
    """A bare word counts only under a key that says so: the current directory may hold anything."""
    return bool(text.strip(os.sep)) and (os.sep in text or text.startswith(("~", "..")) or names_files(key))


def names_files(key: str) -> bool:
    """Whether a key of a config, by its name, holds a path."""
    return key.rpartition(".")[2] in FILES


def _leads_out(text: str, places: list[Path]) -> bool:
    """Of a folder what lies in it counts, too, as far as it is links: data sets read the files of one folder."""
    try:
        path = Path(text).expanduser()
        if not path.exists():
            return False
        links = [each for each in path.iterdir() if each.is_symlink()] if path.is_dir() else []
        return any(not _within(each.resolve(), places) for each in (path, *links))
    except (OSError, ValueError, RuntimeError):  # too long for a name, a zero byte, a home nobody has: no file
        return False


def _within(path: Path, places: list[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def refuse_unnamed(
    config: dict[str, Any], saved: dict[str, Any], named: dict[str, str], remedy: str = "name it again on the line"
) -> None:
    """Refuses what a run's `saved` config names outside, unless the line names it again (`named`: key -> value).

    `config` is what would be read; values that the line or the user's own config files gave are theirs. UserError.
    """
    theirs = dict(texts(saved))
    given = named.get("data_root")
    for key, text in outside(config, data_root(given)).items():
        below_root = given is None and text.startswith(f"{config.get('data_root')}/")
        if key in named or not (below_root or theirs.get(key) == text):
            continue
        again = override("data_root", config["data_root"]) if below_root else override(key, text)
        problem = "lies outside data_root and the current directory, and only the config of the run names it"
        raise UserError(f"{key}={text}", problem, f"if it may be read, {remedy}: {again}")


def carried(config: dict[str, Any]) -> list[str]:
    """What a command that goes on with a run of this resolved config must name again: its imports, and its data where
    they lie outside; as overrides."""
    config = {key: value for key, value in config.items() if key != "init_from"}  # that was read when the run began
    own = data_root(None)
    found = [override("imports", config["imports"])] if config.get("imports") else []
    lying = outside(config, own)
    root = config.get("data_root")
    if any(text.startswith(f"{root}/") for text in lying.values()):
        found.append(override("data_root", root))
        lying = outside(config, str(root))
    for key in lying:
        value: Any = config
        for part in key.split("."):
            value = value[part]
        found.append(override(key, value))
    return found


def refuse_missing(config: dict[str, Any], saved: dict[str, Any], started_in: str | None) -> None:
    """Says where a run was started of which a relative path is not here. `saved` is its own config, with data_root
    filled in, `config` what would be read. Raises UserError."""
    if not started_in or Path(started_in) == Path.cwd():
        return
    theirs = dict(texts(saved))
    kept = {key: value for key, value in config.items() if key not in HANDLED}
    for key, text in texts(kept):
        if theirs.get(key) != text or not text or Path(text).is_absolute() or text.startswith("~"):
            continue
        there = names_files(key) or (os.sep in text and Path(started_in, text).exists())
        if there and not Path(text).exists():
            problem = f"is not here; the run was started in {started_in}"
            remedy = "type the command there, or say where it is: data_root=DIR, or this key"
            raise UserError(f"{key}={text}", problem, remedy)
