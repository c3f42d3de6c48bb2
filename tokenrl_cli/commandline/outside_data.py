"""Refuses to read files outside the current directory and `data_root` that only the config of an earlier run names.

That config may come from an untrusted source, and could name any file of this machine. Links and `..` are resolved
before a path is compared.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenrl_cli.commandline.arguments import override
from tokenrl_cli.files.records import read_yaml
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.run.directory import CONFIG, find

ROOT = "data"  # data_root if neither the command line nor TOKENRL_DATA sets it, as in conf/train.yaml
HANDLED = (
    "out",
    "resume",
    "ckpt",
    "imports",
    "data_root",
    "started_in",
)  # root keys that have rules of their own

FILES = ("path", "paths", "file", "files", "folder", "checkpoint", "init_from")  # last parts of keys that hold paths


def user_data_root(typed: str | None) -> str:
    """Returns the data_root of the user, not of an earlier run: `typed`, the value on the command line, else
    TOKENRL_DATA, else ROOT. An empty one is taken as missing."""
    return typed or os.environ.get("TOKENRL_DATA") or ROOT


Text = tuple[tuple[str, ...], str, Any]  # its keys, the text, and the whole value of these keys (a list of texts, say)


def texts_in(value: Any, *keys: str) -> Iterator[Text]:
    """Yields every text in a config, at any depth, as a tuple: its keys, a tuple of strings from the root on; the text
    itself; and the whole value at these keys, which is the text, or the list that it stands in. An index in a list is
    no key. `keys` are put before the keys of each."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from texts_in(item, *keys, str(key))
        return
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield keys, each, value
        elif isinstance(each, dict | list):
            yield from texts_in(each, *keys)


def outside_texts(config: dict[str, Any], root: str) -> list[Text]:
    """Returns the texts of a resolved config that name an existing file or folder outside the current directory and
    `root`, or a folder with a link that leads out, as `texts_in` yields them. Links are resolved. An entry of
    `dataset.splits` with ".." is yielded even if it does not exist; the root keys in HANDLED, such as out, are left
    out."""
    places = [Path.cwd().resolve(), Path(root).expanduser().resolve()]
    data = config.get("dataset")
    path = str(data.get("path") or "") if isinstance(data, dict) else ""
    found = []
    for each in texts_in({key: value for key, value in config.items() if key not in HANDLED}):
        keys, text, _ = each
        if keys[:2] == ("dataset", "splits") or keys == ("dataset", "audio_root"):
            leads_out = _entry_leads_out(path, text, places)
        else:
            leads_out = _looks_like_a_file(keys[-1], text) and _leads_out(text, places)
        if leads_out:
            found.append(each)
    return found


def _entry_leads_out(folder: str, entry: str, places: list[Path]) -> bool:
    """Whether an entry of `dataset.splits`, or `dataset.audio_root`, leads outside `places`. It is a file, folder or
    pattern, below `folder` unless it is absolute, perhaps without its suffix.

    The folder of each file is checked as well: the other half of a parallel text may lie there.
    """
    try:
        base, below = Path(folder).expanduser(), Path(entry).expanduser()
        if ".." in below.parts or (below.is_absolute() and not _within(below.resolve(), places)):
            return True
        if not (below.is_absolute() or _within(base.resolve(), places)):
            return False  # then `dataset.path` is refused, and one message is enough
        patterns = (Path(glob.escape(str(base))) / below, glob.escape(str(base / below)))
        ended = [f"{pattern}{end}" for pattern in patterns for end in ("", ".*")]
        found = {Path(each) for pattern in ended for each in glob.iglob(pattern, recursive=True)}
    except (OSError, ValueError, RuntimeError):  # as below
        return False
    return any(_leads_out(str(each), places) for each in found | {each.parent for each in found if each.is_file()})


def _looks_like_a_file(key: str, text: str) -> bool:
    """Whether a text is meant as a path. A bare word is one only if its key says so: a file of that name may happen to
    exist in the current directory."""
    return bool(text.strip(os.sep)) and (os.sep in text or text.startswith(("~", "..")) or names_files(key))


def names_files(key: str) -> bool:
    """Returns whether a key of a config holds a path, judging by its last part: one of FILES."""
    return key.rpartition(".")[2] in FILES


def _leads_out(text: str, places: list[Path]) -> bool:
    """Whether a path exists and leads outside `places`, itself or, for a folder, by a link in it: a data set reads all
    files of a folder."""
    try:
        path = Path(text).expanduser()
        if not path.exists():
            return False
        links = [each for each in path.iterdir() if each.is_symlink()] if path.is_dir() else []
        return any(not _within(each.resolve(), places) for each in (path, *links))
    except (OSError, ValueError, RuntimeError):  # a name too long, a zero byte, an unknown home: there is no such file
        return False


def _within(path: Path, places: list[Path]) -> bool:
    """Whether a path lies in one of several folders."""
    return any(path.is_relative_to(place) for place in places)


def refuse_outside_data(
    config: dict[str, Any], saved: dict[str, Any], named: dict[str, str], remedy: str = "name it on the command line"
) -> None:
    """Raises UserError if `config`, a resolved config about to be used, names an existing file or folder that lies
    neither in the current directory nor in the user's data_root, and that comes from `saved`, the config of an earlier
    run.

    The user's data_root is the one in `named`, else TOKENRL_DATA, else "data". `named` holds the values typed on the
    command line, by key: a key in it is allowed. A value comes from `saved` if it is there under the same key; so do
    all paths below `config["data_root"]` if data_root was not typed. `remedy` is the part of the message before the
    override that would allow the file.
    """
    from_run = {(keys, text) for keys, text, _ in texts_in(saved)}
    typed = named.get("data_root")
    for keys, text, whole in outside_texts(config, user_data_root(typed)):
        key = ".".join(keys)
        below_root = typed is None and text.startswith(f"{config.get('data_root')}/")
        if key in named or not (below_root or (keys, text) in from_run):
            continue
        again = override("data_root", config["data_root"]) if below_root else override(key, whole)
        problem = "lies outside data_root and the current directory, and only the config of the run names it"
        raise UserError(f"{key}={text}", problem, f"if it may be read, {remedy}: {again}")


def refuse_outside_judges(config: dict[str, Any], named: dict[str, str]) -> None:
    """Raises UserError if a saved run that scores texts, named by a key `checkpoint` of reward or metrics in a resolved
    `config`, was trained from a pretrained model that lies neither in the current directory nor in the user's
    data_root: only the config of that run names it.

    `named` holds the values typed on the command line, by key: a model whose path is among them may be read. A run that
    cannot be read is left to the reward, which says why.
    """
    root = user_data_root(named.get("data_root"))
    for keys, text, _ in texts_in({name: config.get(name) for name in ("reward", "metrics")}):
        if keys[-1] != "checkpoint":
            continue
        try:
            judge = read_yaml(find(Path(text), ("best", "last")) / CONFIG)
        except (UserError, OSError):
            continue
        for inner, path, _ in outside_texts({name: judge.get(name) for name in ("model", "algorithm")}, root):
            if path not in named.values():
                problem = f"that run was trained from {'.'.join(inner)}={path}, which lies outside data_root and the "
                problem += "current directory, and only its config names it"
                remedy = "if it may be read, run the command in a folder above it, or set TOKENRL_DATA to one"
                raise UserError(f"{'.'.join(keys)}={text}", problem, remedy)


def required_overrides(config: dict[str, Any]) -> list[str]:
    """Returns the overrides that a command must repeat to continue with a run of this resolved config, in Hydra's
    grammar: its imports, and data_root or the paths that lie outside the current directory and the user's data_root
    (TOKENRL_DATA, else "data")."""
    found = [override("imports", config["imports"])] if config.get("imports") else []
    outside, root = outside_texts(config, user_data_root(None)), config.get("data_root")
    # one data_root=DIR replaces all paths below it
    if any(text.startswith(f"{root}/") for _, text, _ in outside):
        found.append(override("data_root", root))
        outside = outside_texts(config, str(root))
    return [*found, *dict.fromkeys(override(".".join(keys), whole) for keys, _, whole in outside)]


def refuse_missing(config: dict[str, Any], saved: dict[str, Any], started_in: str | None) -> None:
    """Raises UserError if `config`, which is about to be used, has a relative path from an earlier run that does not
    exist in the current directory. The message names `started_in`, the directory in which that run was started.

    Only values that are the same in `saved`, the config of that run with data_root filled in, are checked, and only
    those that are paths: by the name of their key, or because they have a "/" and exist in `started_in`. Keys in
    HANDLED are left out. Nothing is checked if `started_in` is None or the current directory.
    """
    if not started_in or Path(started_in) == Path.cwd():
        return
    from_run = {(keys, text) for keys, text, _ in texts_in(saved)}
    for keys, text, _ in texts_in({key: value for key, value in config.items() if key not in HANDLED}):
        key = ".".join(keys)
        if (keys, text) not in from_run or not text or Path(text).is_absolute() or text.startswith("~"):
            continue
        is_path = names_files(key) or (os.sep in text and Path(started_in, text).exists())
        if is_path and not Path(text).exists():
            problem = f"is not here; the run was started in {started_in}"
            remedy = "run the command there, or set data_root=DIR or this key to where the data are"
            raise UserError(f"{key}={text}", problem, remedy)
