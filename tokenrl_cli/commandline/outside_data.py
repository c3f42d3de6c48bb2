"""Files that a config names, and whether they lie where whoever types the command has said that data may be read.

The config of a run may be somebody else's: what it names outside the current directory and `data_root` could be any
file of this machine. Links and `..` are followed before that is decided.
"""

from __future__ import annotations

import glob
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
    "ckpt",
    "imports",
    "data_root",
    "started_in",
)  # keys of the root with own rules

FILES = ("path", "paths", "file", "files", "folder", "checkpoint", "init_from")  # last names of keys that hold paths


def data_root(typed: str | None) -> str:
    """The data_root of whoever types the command, not of a run."""
    return typed or os.environ.get("TOKENRL_DATA") or ROOT


Text = tuple[tuple[str, ...], str, Any]  # the keys to it, itself, and all that stands under these keys


def texts(value: Any, *keys: str) -> Iterator[Text]:
    """Every text of a config; what stands in a list is under the keys of the list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, *keys, str(key))
        return
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield keys, each, value
        elif isinstance(each, dict | list):
            yield from texts(each, *keys)


def outside(config: dict[str, Any], root: str) -> list[Text]:
    """Those texts of a resolved config that name something on disk outside the current directory and `root`."""
    places = [Path.cwd().resolve(), Path(root).expanduser().resolve()]
    data = config.get("dataset")
    path = str(data.get("path") or "") if isinstance(data, dict) else ""
    found = []
    for each in texts({key: value for key, value in config.items() if key not in HANDLED}):
        keys, text, _ = each
        if keys[:2] == ("dataset", "splits"):
            leads_out = _entry_leads_out(path, text, places)
        else:
            leads_out = _looks_like_a_file(keys[-1], text) and _leads_out(text, places)
        if leads_out:
            found.append(each)
    return found


def _entry_leads_out(folder: str, entry: str, places: list[Path]) -> bool:
    """Of a file, folder or pattern that `dataset.splits` names, below `folder` unless it is absolute. It may lack its
    suffix. What lies beside a file counts, too: it may be the other side of a parallel text."""
    try:
        base, below = Path(folder).expanduser(), Path(entry).expanduser()
        if ".." in below.parts or (below.is_absolute() and not _within(below.resolve(), places)):
            return True
        if not (below.is_absolute() or _within(base.resolve(), places)):
            return False  # then `folder` itself is what has to be named
        patterns = (Path(glob.escape(str(base))) / below, glob.escape(str(base / below)))
        ended = [f"{pattern}{end}" for pattern in patterns for end in ("", ".*")]
        found = {Path(each) for pattern in ended for each in glob.iglob(pattern, recursive=True)}
    except (OSError, ValueError, RuntimeError):  # as below
        return False
    return any(_leads_out(str(each), places) for each in found | {each.parent for each in found if each.is_file()})


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
    theirs = {(keys, text) for keys, text, _ in texts(saved)}
    given = named.get("data_root")
    for keys, text, whole in outside(config, data_root(given)):
        key = ".".join(keys)
        below_root = given is None and text.startswith(f"{config.get('data_root')}/")
        if key in named or not (below_root or (keys, text) in theirs):
            continue
        again = override("data_root", config["data_root"]) if below_root else override(key, whole)
        problem = "lies outside data_root and the current directory, and only the config of the run names it"
        raise UserError(f"{key}={text}", problem, f"if it may be read, {remedy}: {again}")


def carried(config: dict[str, Any]) -> list[str]:
    """What a command that goes on with a run of this resolved config must name again: its imports, and its data and
    where it began from, if they lie outside; as overrides."""
    found = [override("imports", config["imports"])] if config.get("imports") else []
    lying, root = outside(config, data_root(None)), config.get("data_root")
    if any(text.startswith(f"{root}/") for _, text, _ in lying):
        found.append(override("data_root", root))
        lying = outside(config, str(root))
    return [*found, *dict.fromkeys(override(".".join(keys), whole) for keys, _, whole in lying)]


def refuse_missing(config: dict[str, Any], saved: dict[str, Any], started_in: str | None) -> None:
    """Says where a run was started of which a relative path is not here. `saved` is its own config, with data_root
    filled in, `config` what would be read. Raises UserError."""
    if not started_in or Path(started_in) == Path.cwd():
        return
    theirs = {(keys, text) for keys, text, _ in texts(saved)}
    for keys, text, _ in texts({key: value for key, value in config.items() if key not in HANDLED}):
        key = ".".join(keys)
        if (keys, text) not in theirs or not text or Path(text).is_absolute() or text.startswith("~"):
            continue
        there = names_files(key) or (os.sep in text and Path(started_in, text).exists())
        if there and not Path(text).exists():
            problem = f"is not here; the run was started in {started_in}"
            remedy = "type the command there, or say where it is: data_root=DIR, or this key"
            raise UserError(f"{key}={text}", problem, remedy)
