"""Reading a split's lines, and saying where a file is not what it should be."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

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
    """The lines of a UTF-8 file without their ends. At least one."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(str(path), f"is no whole gzip file: {error}", "fetch or pack it again") from None
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"is not UTF-8 text: byte {content[error.start]:#04x}"
        raise UserError(f"{path}, line {line}", found, "convert it, e.g. with iconv") from None
    if not text.strip():
        raise UserError(str(path), "is empty: expected at least one example")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
