"""Finds conf/ and reads what its YAML files say, as text: without Hydra and, but for `circle`, without a YAML
library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenrl_cli.interfaces import UserError

BRINGS = "brings"  # brings/GROUP/OPTION.yaml: what the option of that name sets elsewhere in a config
LARGEST, ALIASES = 2**20, 20  # bytes of a config file, and how often one may repeat a part of itself
HIDDEN = ("hydra", BRINGS)  # groups that are not offered as a choice


def conf_dir() -> Path:
    """Returns the folder conf/: that of the checkout if this package lies in one, else the copy inside the installed
    package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "conf"
    return checkout if (package.parent / "pyproject.toml").is_file() and checkout.is_dir() else package / "conf"


def text_of(file: Path) -> str:
    """Returns the text of a config file, one of this package or of the user's. Raises UserError if it is not UTF-8 or
    cannot be read."""
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(str(file), f"is not UTF-8: byte {error.object[error.start]:#04x}", "convert it") from None
    except OSError as error:
        raise UserError(str(file), f"cannot be read: {error.strerror or error}") from None


def roots(config_dir: str | None) -> list[Path]:
    """Returns the folders of config files in the order in which Hydra searches them: tokenrl's own (`conf_dir`), then
    `config_dir`, the value of `--config-dir`, unless that is None.

    Raises UserError if `config_dir` is no folder, if a file of it is too large or has too many aliases
    (`require_small`), or if one in its brings/ ends in .yml, which Hydra would silently leave out.
    """
    if config_dir is None:
        return [conf_dir()]
    if not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}", "there is no such directory")
    for file in sorted((Path(config_dir) / BRINGS).rglob("*.yml")):
        right = file.with_suffix(".yaml")
        raise UserError(str(file), "would not be read: the name of an option ends in .yaml", f"mv {file} {right}")
    require_small([config_dir])
    return [conf_dir(), Path(config_dir)]


def require_small(folders: Sequence[str]) -> None:
    """Raises UserError if a folder of options has a YAML file of more than LARGEST bytes (1 MiB) or with more than
    ALIASES (20) aliases. The folders are given as the command line names them, perhaps quoted or with file://; those
    that do not exist are skipped. Reads all .yaml files below them."""
    for folder in folders:
        place = folder.strip(" '\"").removeprefix("file://")
        for file in Path(place).rglob("*.yaml") if place and Path(place).is_dir() else ():
            _require_small(file)


def _require_small(file: Path) -> None:
    """Refuses what would take minutes, or all memory, to read: a config is a page of text, and aliases multiply."""
    if file.is_file() and (size := file.stat().st_size) > LARGEST:
        raise UserError(str(file), f"has {size} bytes, and a config has at most {LARGEST}")
    aliases = re.findall(r"(?m)(?:^|[-:,[{])[ \t]*\*\w+", file.read_text("utf-8", "replace")) if file.is_file() else []
    if len(aliases) > ALIASES:
        raise UserError(str(file), f"has {len(aliases)} aliases (*name), and a config has at most {ALIASES}")


def circle(places: Sequence[Path]) -> list[str]:
    """Returns the options that include each other in a circle by their defaults, "GROUP/NAME" each, in the order of
    inclusion; [] if there are none. Reads all options of `places`, the folders that `roots` returns."""
    included = {
        f"{group}/{name}".lstrip("/"): _included(file, group)
        for group in ("", *groups(places))
        for name, file in options(places, group).items()
    }

    def follow(path: list[str]) -> list[str]:
        for each in included.get(path[-1], ()):
            if each in path:
                return path[path.index(each) :]
            if found := follow([*path, each]):
                return found
        return []

    return next(filter(None, (follow([name]) for name in included)), [])


def _included(file: Path, group: str) -> list[str]:
    """What the defaults of an option include, "GROUP/NAME" each."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text("utf-8", "replace"))
    except (yaml.YAMLError, RecursionError):  # what is wrong with such a file is reported by the function that reads it
        return []
    found = []
    for entry in (content.get("defaults") if isinstance(content, dict) else None) or []:
        for key, option in entry.items() if isinstance(entry, dict) else [("", entry)]:
            inner = str(key).rpartition(" ")[2].partition("@")[0]  # without `optional` and `override`
            where = inner[1:] if inner.startswith("/") else f"{group}/{inner}".strip("/")
            found.append(f"{where}/{option}".lstrip("/"))
    return [each for each in found if each.rpartition("/")[2] != "_self_"]


def groups(places: Sequence[Path]) -> list[str]:
    """Returns the path, below one of `places`, the folders that `roots` returns, of every folder that holds options,
    sub-groups included, such as "model" or "algorithm/baseline", sorted. Those of `HIDDEN`, and what lies below them,
    are left out."""
    found = {file.parent.relative_to(root).as_posix() for root in places for file in root.rglob("*.yaml")}
    return sorted(name for name in found if name != "." and name.split("/")[0] not in HIDDEN)


def options(places: Sequence[Path], group: str) -> dict[str, Path]:
    """Returns the options of a group, by name: name -> file, sorted. `places` are the folders that `roots` returns; if
    several have an option of one name, that of the first of them is taken. {} if there is no such group."""
    found: dict[str, Path] = {}
    for root in places:
        for file in sorted((root / group).glob("*.yaml")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def about(file: Path) -> str:
    """Returns the comment on the first line of an option, without "# "; "" if there is none. A line for Hydra (`#
    @package ...`), which must stand before it, is skipped. Raises UserError if the file cannot be read."""
    lines = [line for line in text_of(file).splitlines()[:2] if not line.startswith("# @")]
    return lines[0].lstrip("# ").rstrip() if lines and lines[0].startswith("#") else ""


def keys(file: Path) -> list[str]:
    """Returns the lines of an option that set values, each with its comment. Comment lines, and defaults, hydra,
    `_target_` and `_partial_` at the root, are left out. Raises UserError if the file cannot be read."""
    shown: list[str] = []
    skipping = False
    for line in text_of(file).splitlines():
        if line[:1] not in (" ", "#", "", "-"):
            skipping = line.split(":")[0] in ("defaults", "hydra", "_target_", "_partial_")
        if line.strip() and not line.startswith("#") and not skipping:
            shown.append(line)
    return shown


def target_in(file: Path) -> str:
    """Returns the `_target_` on the top level of the config file of an option; "" if it has none of its own (one that
    it takes over by its defaults is not returned, see `limits.target_of`). The file is read as text, not as YAML.
    Raises OSError or UnicodeDecodeError if it cannot be read."""
    match = re.search(r"^_target_: *(\S+)", file.read_text("utf-8"), re.MULTILINE)
    return match[1] if match else ""


def parts(file: Path, group: str) -> list[str]:
    """Returns the choices that an option of `group` makes by its defaults, as the command line would have them, such as
    "algorithm/baseline=none", in their order; "as GROUP=NAME, with" for another option that it extends. Raises
    UserError if the file cannot be read."""
    inside = re.search(r"^defaults:\n((?:  - .*\n)*)", text_of(file), re.MULTILINE)
    found = []
    for entry in re.findall(r"(?m)^  - (?:override )?([^#\n]+)", inside[1] if inside else ""):
        key, chosen, option = entry.strip().partition(": ")
        if chosen:
            found.append(f"{typed(key, group)}={option}")
        elif key != "_self_":
            found.append(f"as {group}={key}, with")
    return found


def brought(places: Sequence[Path], group: str, name: str) -> list[str]:
    """Returns what the option `name` of a group sets elsewhere in the config (its file in brings/ of one of `places`,
    the folders that `roots` returns), one line `key.of.the.config: value # comment` each; [] if it sets nothing there.
    Raises UserError if that file cannot be read."""
    file = options(places, f"{BRINGS}/{group}").get(name)
    path: list[str] = []
    found = []
    for line in text_of(file).splitlines() if file else ():
        inner = line.lstrip()
        if not inner or inner.startswith("#"):
            continue
        key, _, value = inner.partition(":")
        path = [*path[: (len(line) - len(inner)) // 2], key]
        if value.strip():
            found.append(f"{'.'.join(path)}:{value}")
    return found


def typed(key: str, group: str) -> str:
    """Returns a key of the defaults of an option of `group` as it is typed on the command line. For the group
    "algorithm", the sub-group "baseline" becomes "algorithm/baseline", and "/optimizer@optimizer", which is relative to
    the option's block, becomes "optimizer@algorithm.optimizer".

    If conf/train.yaml puts the block of `group` elsewhere than under the name of the group, a sub-group gets that
    place, too: "schedule" of the group "optimizer" becomes "optimizer/schedule@algorithm.optimizer.schedule". Keys of
    an experiment, and those with @_global_, count from the root of the config.
    """
    place = _place(group)
    if not key.startswith("/"):  # a sub-group
        return f"{group}/{key}" if place == group.replace("/", ".") else f"{group}/{key}@{place}.{key}"
    name, at, inside = key[1:].partition("@")
    package, _, rest = inside.partition(".")
    if not at or group == "experiment":  # those begin at the root of the config
        return key[1:]
    if package != "_global_":
        return f"{name}@{place}.{inside}"
    return name if rest == name.replace("/", ".") else f"{name}@{rest}"


def _place(group: str) -> str:
    """Where the block of a group goes in the config of a run."""
    starts = choices(conf_dir() / "train.yaml")
    elsewhere = [start.partition("@")[2] for start in starts if start.startswith(f"{group}@")]
    return elsewhere[0] if elsewhere and group not in starts else group.replace("/", ".")


def choices(primary: Path) -> dict[str, str]:
    """Returns the groups of a command's config, as the command line has them, each with the option that it starts from.
    `primary` is the file, such as conf/train.yaml; a group without an option has "null". Raises UserError if it cannot
    be read."""
    inside = text_of(primary).partition("defaults:\n")[2].partition("\n\n")[0]
    return dict(re.findall(r"^  - ([\w/@.]+): (\w+)", inside, re.MULTILINE))
