"""Reading a split's lines, and saying where a file is not what it should be."""

from __future__ import annotations

from pathlib import Path

from tokenrl_cli import lines
from tokenrl_cli.interfaces import UserError

REMEDY = "set data_root=DIR or the environment variable TOKENRL_DATA to the folder of the data, or dataset.path itself"


def check_limits(max_source_length: int, overlong: str) -> None:
    """The two limits that every dataset of the package has."""
    if max_source_length < 1:
        raise UserError("dataset.max_source_length", f"must be at least 1, got {max_source_length}")
    if overlong not in ("truncate", "drop"):
        raise UserError("dataset.overlong", f"must be truncate or drop, got {overlong!r}")


def find(directory: Path, name: str) -> Path:
    """`directory/name`, or the same with .gz."""
    if not directory.is_dir():
        raise UserError(str(directory), "there is no such folder", REMEDY)
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(str(directory / name), f"there is neither this file nor {name}.gz", REMEDY)


def read_lines(path: Path) -> list[str]:
    """The lines of a file that must hold something."""
    found = list(lines.read_lines(path))
    if not any(line.strip() for line in found):
        raise UserError(str(path), "is empty: expected at least one example")
    return found
