"""Regular files, read and changed where somebody else may have put a link or a pipe: neither is followed or waited for.

Every change goes through `change`, so that a test can stop the process before any of them.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from tokenrl_cli.interfaces import UserError


def change(operation: Callable[..., Any], *operands: Any) -> Any:
    """Calls an operation of the system that changes something on disk."""
    return operation(*operands)


def append(path: Path, text: str) -> None:
    """Adds whole lines to a file, or makes it."""
    descriptor = opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def cut(path: Path, size: int) -> None:
    """Takes back what was appended after `size` bytes; a file that is not there or shorter stays as it is."""
    try:
        descriptor = opened(path, os.O_RDWR)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "r+b") as file:
        if os.fstat(descriptor).st_size > size:
            change(os.ftruncate, file.fileno(), size)


def read(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes; UserError where it is larger, or no file."""
    with os.fdopen(opened(path, os.O_RDONLY), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(str(path), f"is larger than {most / 2**20:g} MiB, which no such file of a run is")
    return content


def discard(path: Path) -> None:
    """Removes a file, a link or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        change(shutil.rmtree, path)
    elif os.path.lexists(path):
        change(os.unlink, path)


def sync(path: Path) -> None:
    """Makes a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def opened(path: Path, flags: int) -> int:
    """A descriptor of a regular file; never of what a link points to, and never one that would wait for a pipe."""
    try:
        descriptor: int = change(os.open, path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) or path.is_symlink():
            raise UserError(str(path), f"is a link to {os.readlink(path)}: no link of a run is followed") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(str(path), "is no regular file")
    return descriptor


class LogFile(logging.FileHandler):
    """A log file that is never the one a link points to."""

    def _open(self) -> TextIOWrapper:
        descriptor = opened(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return os.fdopen(descriptor, "a", encoding=self.encoding)
