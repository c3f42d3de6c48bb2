"""Finding the file of a split and reading its lines, with errors that name the file and what may be meant."""

from __future__ import annotations

from pathlib import Path

from tokenrl_cli.data import lines
from tokenrl_cli.interfaces import UserError

REMEDY = "set data_root=DIR or the environment variable TOKENRL_DATA to the folder of the data, or dataset.path itself"

ALSO = {  # other common names of the splits, recognised in error messages
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
PACKED = (".zst", ".bz2", ".xz", ".zip", ".7z")  # packed files that cannot be read


def find(directory: Path, name: str) -> Path:
    """Returns the path `directory/name` if that file exists, else the one with .gz appended. Raises UserError where
    neither exists (the message names a file of the directory that may be meant), or where `directory` is no folder."""
    if directory.is_file():
        raise UserError(str(directory), f"is a file, expected the folder that {name} lies in", REMEDY)
    if not directory.is_dir():
        raise UserError(str(directory), "there is no such folder", REMEDY)
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    problem = f"there is neither this file nor {name}.gz"
    if meant := _meant(directory, name):
        split = name.partition(".")[0]
        remedy = f"rename it to {name}, or say +dataset.splits.{split}={meant}"
        if Path(meant).suffix in PACKED:
            remedy = "unpack it: of packed files only those of gzip are read"
        raise UserError(str(directory / name), f"{problem}, but {meant} lies there", remedy)
    raise UserError(str(directory / name), problem, REMEDY)


def _meant(directory: Path, name: str) -> str | None:
    """Name of a file that is probably meant: Val.JSONL, val.json, valid.jsonl or dev.jsonl for val.jsonl. None if there
    is none."""
    split, _, suffix = name.lower().partition(".")
    for path in sorted(directory.iterdir()):
        stem, _, rest = path.name.lower().partition(".")
        ending = rest == suffix or rest.startswith(f"{suffix}.") or (suffix == "jsonl" and "json" in rest)
        if ending and stem in ALSO.get(split, (split,)) and path.is_file():
            return path.name
    return None


def read_lines(path: Path) -> list[str]:
    """Reads a whole file and returns all its lines as a list, blank ones included, without line ends (see
    `data.lines.read_lines`). Raises UserError where it cannot be read, is not UTF-8, has NUL bytes, is damaged, or has
    only blank lines."""
    found = list(lines.read_lines(path))
    if not any(line.strip() for line in found):
        raise UserError(str(path), "is empty: expected at least one example")
    return found
