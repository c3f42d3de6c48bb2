"""`tokenrl copy GROUP/NAME DEST`: copies a recipe or an option to a file of the user's own, to edit."""

from __future__ import annotations

import os
from pathlib import Path

from tokenrl_cli.commandline.arguments import Arguments, command_line, override
from tokenrl_cli.config.build import hint
from tokenrl_cli.config.options import groups, options, roots
from tokenrl_cli.files.writing import whole_bytes
from tokenrl_cli.interfaces import UserError


def run(arguments: Arguments) -> None:
    """Copies an option, the file that the first argument names as GROUP/NAME, to the second, DEST, and prints where the
    copy lies and how to use it. DEST is the file to write if it ends in .yaml or .yml, else a folder, in which
    GROUP/NAME.yaml is written; missing folders are made. Options of --config-dir can be copied, too. Raises UserError
    for wrong arguments, or if the file exists, which is never overwritten; OSError if the system refuses."""
    if len(arguments.rest) != 2:
        raise UserError("copy", "takes two arguments", "tokenrl copy GROUP/NAME DEST, e.g. copy reward/bleu mine")
    source, destination = arguments.rest
    group, _, name = source.removesuffix(".yaml").rpartition("/")
    places = roots(arguments.flags.get("--config-dir"))
    if group not in groups(places):
        problem = f"there is no group {group!r}{hint(group, groups(places))}"
        raise UserError(source, problem, "tokenrl list shows the groups")
    known = options(places, group)
    if name not in known:
        raise UserError(source, f"there is no such option{hint(name, known)}", f"tokenrl list {group} shows them")
    target = target_file(destination, group, name)
    if os.path.lexists(target):
        raise UserError(str(target), "exists already and is not overwritten", "choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_bytes(target, replaces=False) as to:
        to.write(known[name].read_bytes())
    print(f"{target}\n{how_to_use(target, group)}")


def target_file(destination: str, group: str, name: str) -> Path:
    """Returns the path to write to: `destination` itself if it ends in .yaml or .yml, else destination/group/name.yaml,
    so that `destination` can be given as --config-dir."""
    place = Path(destination)
    return place if place.suffix in (".yaml", ".yml") else place / group / f"{name}.yaml"


def how_to_use(target: Path, group: str) -> str:
    """Returns the text that explains how to use the copy `target` of an option of `group`: with a command, if it lies
    in DIR/GROUP/, the only place where Hydra finds it; else with the advice to put it there."""
    folders = tuple(group.split("/"))
    if target.parent.parts[-len(folders) :] == folders:
        root = target.parents[len(folders)]
        line = command_line("train", "--config-dir", str(root), override(group, target.stem))
        return f"rename it as you like; use it: {line}"
    return f"to use it, put it into DIR/{group}/ and run: tokenrl train --config-dir DIR {group}={target.stem}"
