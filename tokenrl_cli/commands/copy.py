"""`tokenrl copy GROUP/NAME DEST`: a recipe or an option as a file of your own, to edit."""

from __future__ import annotations

import os
from pathlib import Path

from tokenrl_cli.commandline.arguments import Arguments, override, typed
from tokenrl_cli.config.build import hint
from tokenrl_cli.config.options import groups, options, roots
from tokenrl_cli.files.writing import whole_bytes
from tokenrl_cli.interfaces import UserError


def run(arguments: Arguments) -> None:
    if len(arguments.rest) != 2:
        raise UserError("copy", "takes two arguments", "tokenrl copy GROUP/NAME DEST, e.g. copy reward/bleu mine")
    asked, destination = arguments.rest
    group, _, name = asked.removesuffix(".yaml").rpartition("/")
    places = roots(arguments.flags.get("--config-dir"))
    if group not in groups(places):
        raise UserError(asked, f"there is no group {group!r}{hint(group, groups(places))}", "tokenrl list shows them")
    known = options(places, group)
    if name not in known:
        raise UserError(asked, f"there is no such option{hint(name, known)}", f"tokenrl list {group} shows them")
    target = destined(destination, group, name)
    if os.path.lexists(target):
        raise UserError(str(target), "is there already and is not overwritten", "choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_bytes(target, replaces=False) as to:
        to.write(known[name].read_bytes())
    print(f"{target}\n{how_to_use(target, group)}")


def destined(destination: str, group: str, name: str) -> Path:
    """DEST.yaml is the file itself; any other DEST a directory for --config-dir, the group's folder made inside it."""
    given = Path(destination)
    return given if given.suffix in (".yaml", ".yml") else given / group / f"{name}.yaml"


def how_to_use(target: Path, group: str) -> str:
    """Hydra finds an option by its folders: ROOT/GROUP/NAME.yaml."""
    folders = tuple(group.split("/"))
    if target.parent.parts[-len(folders) :] == folders:
        root = target.parents[len(folders)]
        line = typed("train", "--config-dir", str(root), override(group, target.stem))
        return f"rename it as you like; use it: {line}"
    return f"to use it, put it into DIR/{group}/ and run: tokenrl train --config-dir DIR {group}={target.stem}"
