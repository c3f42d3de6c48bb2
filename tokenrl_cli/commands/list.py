"""`tokenrl list [GROUP[/OPTION]]`: prints what can be chosen, read from the YAML files; and the help page of each
command."""

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
  -m                      sweep: one run for every combination of values in key=a,b,c
  --cfg job [-p KEY]      print the config, run nothing; --resolve fills in ${...}
  --config-dir DIR        a folder with your own groups and options
  --info defaults-tree    which files the config came from (also searchpath, plugins)
  --hydra-help            all flags of Hydra"""

GROUPS = "Groups, their default and their options (tokenrl list GROUP shows the keys of each option)"


def run(arguments: Arguments) -> None:
    """Prints all groups with their options, or the options of one group, or one option GROUP/NAME, with their keys.
    Raises UserError if there is no such group or option, or if more than one is given."""
    places = roots(arguments.flags.get("--config-dir"))
    if len(arguments.rest) > 1:
        raise UserError("list", f"takes one group, got {' '.join(arguments.rest)}", "tokenrl list [GROUP]")
    if arguments.rest:
        print(fitted(listed(arguments.rest[0], places)))
    else:
        print(fitted("\n\n".join(_group(group, places) for group in groups(places))))
        print(fitted("\ntokenrl list GROUP shows the keys of each option"))


def fitted(text: str) -> str:
    """Returns the text with its lines wrapped to the width of the terminal, as `hung` does; unchanged if standard
    output is not a terminal."""
    if not sys.stdout.isatty():
        return text
    width = layout_width(shutil.get_terminal_size((0, 0)).columns)
    return "\n".join(part for line in text.split("\n") for part in hung(line, width))


def hung(line: str, width: int) -> list[str]:
    """Returns a line broken at spaces into lines of at most `width` cells; a longer word stays whole. The further lines
    are indented to the text of its comment (after " # ") or of its second column (after two spaces), or by four spaces
    if that begins in the right half; without either they are not indented.

    If the first word of the comment or the column does not fit beside what stands before it, all of it goes to further
    lines, indented by four spaces, with "# " before a comment.
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
    """The lines of a group: its name, and each option with what it is."""
    return "\n".join([group, *(f"  {name:<22} {about(file)}" for name, file in options(places, group).items())])


def listed(group: str, places: list[Path]) -> str:
    """Returns the options of the group `group`, or the one option that `group` names as GROUP/NAME, each with its
    sub-groups, keys, values, ranges and comments, as text. `places` are the folders that hold the options. Raises
    UserError if there is no such group or option."""
    group, _, name = (group, "", "") if group in groups(places) else group.rpartition("/")
    if group not in groups(places):
        typed = group or name
        raise UserError(typed, f"there is no such group{hint(typed, groups(places))}", "tokenrl list shows them all")
    chosen = options(places, group)
    if name and name not in chosen:
        raise UserError(f"{group}/{name}", f"there is no such option{hint(name, chosen)}")
    selected = {name: chosen[name]} if name else chosen
    lines = [
        [
            f"{group}={each}  # {about(file)}",
            *(
                f"  {line}"
                for line in (*parts(file, group), *brought(places, group, each), *_limited(file, places, group))
            ),
        ]
        for each, file in selected.items()
    ]
    return "\n\n".join("\n".join(part) for part in lines)


def _limited(file: Path, places: list[Path], group: str) -> list[str]:
    """The lines of an option's values, each followed by its allowed range if its class or function declares one."""
    within = limits(target_of(file, places, group))
    found = []
    for line in keys(file):
        limit = within.get(line.partition(":")[0])
        found.append(f"{line} ({limit})" if limit and "#" in line else line)
    return found


def origins(arguments: Arguments) -> str:
    """Returns comments to print above the config of `train`, one a line: which values of other blocks its model and its
    data set set; "" if they set none. An experiment and the command line take precedence over these, so that the config
    may show other values."""
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
    """Returns the text of `tokenrl COMMAND --help`; `what` is one line on what the command does. `arguments` may name a
    --config-dir, whose options are then listed, too. Raises UserError if that cannot be read."""
    if command == "list":
        return f"tokenrl list [GROUP[/OPTION]] [--config-dir DIR]: {what}"
    if command == "copy":
        return f"tokenrl copy GROUP/NAME DEST [--config-dir DIR]: {what}"
    places = roots(arguments.flags.get("--config-dir"))
    primary = conf_dir() / ("train.yaml" if command == "validate" else f"{command}.yaml")
    chosen = {f"{key}={option}": options(places, key.partition("@")[0]) for key, option in choices(primary).items()}
    width = max(map(len, chosen), default=0)
    lines = [f"  {start:<{width}}  {' '.join(names)}" for start, names in chosen.items()]
    values = [f"  {line}" for line in keys(primary)]
    if command in ("train", "validate"):
        values += [f"  trainer.{line}" for line in keys(conf_dir() / "trainer" / "default.yaml")]
    return "\n".join(
        [
            f"tokenrl {command} [key=value ...] [flags]: {what}",
            "",
            *([GROUPS, *lines, ""] if lines else []),
            "Values (key=value; --cfg job shows all of them)",
            *values,
            "",
            "Flags",
            FLAGS,
        ]
    )
