"""Reads and changes regular files in a directory that may come from an untrusted source.

A link is never followed, and a pipe is never waited for: both are a UserError. The changes on disk that a killed run
must survive go through `change`, so that a test can simulate a crash before each of them.
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
    """Calls `operation(*operands)`, a function such as os.replace that changes something on disk, and returns its
    result; its exceptions are passed on. All changes after which a killed run must still be usable are made through it,
    so that a test can simulate a crash before each."""
    return operation(*operands)


def append(path: Path, text: str) -> None:
    """Appends text to a file as UTF-8, surrogates as escapes. Makes the file if it is missing, but not its folder.
    Raises UserError for a link, and for a pipe or a device that could be opened, OSError if the system refuses."""
    descriptor = opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def cut(path: Path, size: int) -> None:
    """Shortens a file to `size` bytes. A missing or shorter file stays as it is. Raises UserError for a link, and for a
    pipe or a device that could be opened, OSError if the system refuses."""
    try:
        descriptor = opened(path, os.O_RDWR)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "r+b") as file:
        if os.fstat(descriptor).st_size > size:
            change(os.ftruncate, file.fileno(), size)


def read(path: Path, limit: int) -> bytes:
    """Returns the content of a regular file. Raises UserError if it is larger than `limit` bytes, a link or not a
    regular file; OSError if it is missing or cannot be read."""
    with os.fdopen(opened(path, os.O_RDONLY), "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(str(path), f"is larger than {limit / 2**20:g} MiB: no run writes such a file")
    return content


def discard(path: Path) -> None:
    """Removes a file, a link (not what it points to), or a folder with all that it holds; does nothing if there is
    none. Raises OSError if the system refuses."""
    if path.is_dir() and not path.is_symlink():
        change(shutil.rmtree, path)
    elif os.path.lexists(path):
        change(os.unlink, path)


def sync(path: Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on disk and would survive a power failure.
    Raises OSError if it is missing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def opened(path: Path, flags: int) -> int:
    """Opens a regular file with the `flags` of os.open and returns its descriptor, which the caller closes. Does not
    follow a link at `path` itself; folders on the way may be links. Raises UserError for a link, and for a folder, pipe
    or device that could be opened; OSError if the system refuses, as it does for a missing file or for a folder to be
    written."""
    try:
        descriptor: int = change(os.open, path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) or path.is_symlink():
            raise UserError(str(path), f"is a link to {os.readlink(path)}: no link of a run is followed") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(str(path), "is not a regular file")
    return descriptor


class LogFile(logging.FileHandler):
    """A logging handler that appends to a regular file and never follows a link: opening one raises UserError."""

    def _open(self) -> TextIOWrapper:
        """Opens the file for logging, without following a link."""
        descriptor = opened(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return os.fdopen(descriptor, "a", encoding=self.encoding)
