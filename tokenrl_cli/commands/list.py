"""`tokenrl list [GROUP]`: what can be chosen, read from the YAML itself. And the help page of each command."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tokenrl_cli.commandline.arguments import Arguments
from tokenrl_cli.config.build import hint
from tokenrl_cli.config.limits import limits, target_of
from tokenrl_cli.config.options import about, brought, choices, conf_dir, groups, keys, options, parts, roots
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.report.layout import cells, layout_width, wrapped

FLAGS = """\
  -m                      sweep: every value of key=a,b,c, and every combination
  --cfg job [-p KEY]      print the config, run nothing; --resolve fills in ${...}
  --config-dir DIR        your own groups and options, besides tokenrl's
  --info defaults-tree    which files the config came from (also searchpath, plugins)
  --hydra-help            flags for experts"""


def run(arguments: Arguments) -> None:
    places = roots(arguments.flags.get("--config-dir"))
    if len(arguments.rest) > 1:
        raise UserError("list", f"takes one group, got {' '.join(arguments.rest)}", "tokenrl list [GROUP]")
    if arguments.rest:
        print(fitted(listed(arguments.rest[0], places)))
    else:
        print(fitted("\n\n".join(_group(group, places) for group in groups(places))))
        print(fitted("\ntokenrl list GROUP shows the keys of each option"))


def fitted(text: str) -> str:
    """On a terminal: no line wider than it, what follows a long one under its last column. In a pipe: as it is."""
    if not sys.stdout.isatty():
        return text
    width = layout_width(shutil.get_terminal_size((0, 0)).columns)
    return "\n".join(part for line in text.split("\n") for part in hung(line, width))


def hung(line: str, width: int) -> list[str]:
    """A line in several, the later ones under its comment, or under its second column.

    Where that column is so far to the right that little room is left below it, they are indented by four.
    """
    if cells(line) <= width:
        return [line]
    start = re.match(r"( *\S.*?)( +# | {2,})(?=\S)", line)
    column = len(start[0]) if start else 0
    hanging = column if column <= width // 2 else 4
    if start is None:
        return wrapped(line, width, hanging)
    if column + cells(line[column:].split()[0]) > width:
        head = line[:column].rstrip()
        mark = "# " if head.endswith("#") else ""
        return [head.removesuffix("#").rstrip(), *wrapped(f"    {mark}{line[column:]}", width, 4 + len(mark))]
    first, *others = wrapped("." * column + line[column:], width, hanging)
    return [line[:column] + first[column:], *others]


def _group(group: str, places: list[Path]) -> str:
    return "\n".join([group, *(f"  {name:<22} {about(file)}" for name, file in options(places, group).items())])


def listed(group: str, places: list[Path]) -> str:
    """Each option of a group with its parts, and its keys, values and their comments."""
    group, _, name = (group, "", "") if group in groups(places) else group.rpartition("/")
    if group not in groups(places):
        asked = group or name
        raise UserError(asked, f"there is no such group{hint(asked, groups(places))}", "tokenrl list shows them all")
    chosen = options(places, group)
    if name and name not in chosen:
        raise UserError(f"{group}/{name}", f"there is no such option{hint(name, chosen)}")
    shown = {name: chosen[name]} if name else chosen
    lines = [
        [
            f"{group}={each}  # {about(file)}",
            *(
                f"  {line}"
                for line in (*parts(file, group), *brought(places, group, each), *_limited(file, places, group))
            ),
        ]
        for each, file in shown.items()
    ]
    return "\n\n".join("\n".join(part) for part in lines)


def _limited(file: Path, places: list[Path], group: str) -> list[str]:
    """The values of an option with what they may be, where its class or function says so."""
    within = limits(target_of(file, places, group))
    found = []
    for line in keys(file):
        limit = within.get(line.partition(":")[0])
        found.append(f"{line} ({limit})" if limit and "#" in line else line)
    return found


def origins(arguments: Arguments) -> str:
    """Comments for a config that is shown: what its model and its data set have set elsewhere in it. The recipe and the
    command line win over that, so a value may be another by now."""
    places = roots(arguments.flags.get("--config-dir"))
    chosen = choices(conf_dir() / "train.yaml")
    if recipe := options(places, "experiment").get(str(arguments.value("experiment"))):
        chosen |= dict(part.split("=") for part in parts(recipe, "experiment") if "=" in part)
    lines = []
    for group in ("model", "dataset"):
        name = arguments.value(group) or chosen[group]
        lines += [f"# {group}={name} sets {line}" for line in brought(places, group, name)]
    return "\n".join(lines)


def page(command: str, what: str, arguments: Arguments) -> str:
    """What `tokenrl COMMAND --help` shows."""
    if command == "list":
        return f"tokenrl list [GROUP[/OPTION]] [--config-dir DIR]: {what}"
    if command == "copy":
        return f"tokenrl copy GROUP/NAME DEST [--config-dir DIR]: {what}"
    places = roots(arguments.flags.get("--config-dir"))
    primary = conf_dir() / ("train.yaml" if command == "validate" else f"{command}.yaml")
    chosen = {f"{key}={option}": options(places, key.partition("@")[0]) for key, option in choices(primary).items()}
    width = max(map(len, chosen))
    lines = [f"  {start:<{width}}  {' '.join(names)}" for start, names in chosen.items()]
    values = [f"  {line}" for line in keys(primary)]
    if command in ("train", "validate"):
        values += [f"  trainer.{line}" for line in keys(conf_dir() / "trainer" / "default.yaml")]
    return "\n".join(
        [
            f"tokenrl {command} [key=value ...] [flags]: {what}",
            "",
            "Groups, where they start and what they may be (tokenrl list GROUP shows what an option holds)",
            *lines,
            "",
            "Values (key=value; --cfg job shows all of them)",
            *values,
            "",
            "Flags",
            FLAGS,
        ]
    )
