"""Files that appear under their name when they are whole: written beside it under a hidden one, then renamed.

A command that fails, or is killed, leaves under the name what was there before. No link is followed: one under that
name is replaced, never written through.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from tokenrl_cli.files import disk
from tokenrl_cli.interfaces import UserError


@contextmanager
def whole(path: Path, replaces: bool = True) -> Iterator[TextIO]:
    """A text file in UTF-8, to be written; `path` once the block has ended well, removed where it has not. Half of a
    surrogate pair, which no file can hold, is written as its escape.

    With `replaces` False another file that has taken the name meanwhile is a UserError. The system's errors are raised
    as they are, but those without a path get it.
    """
    text = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with whole_bytes(path, replaces) as raw, open(raw.fileno(), "w", closefd=False, **text) as to:  # type: ignore[call-overload]
        yield to


@contextmanager
def whole_bytes(path: Path, replaces: bool = True) -> Iterator[IO[bytes]]:
    """The same for bytes."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        disk.discard(part)
        with open(disk.change(os.open, part, flags, 0o666), "wb") as to:
            yield to
            to.flush()
            os.fsync(to.fileno())
        if replaces:
            disk.change(os.replace, part, path)
        else:
            _take(part, path)
        disk.sync(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _take(part: Path, path: Path) -> None:
    """Gives a name that nobody has. Where the file system knows no second names, what is there is looked at before."""
    try:
        os.link(part, path)
    except OSError:
        if os.path.lexists(path):
            raise UserError(str(path), "has come to exist meanwhile", "name a new file, or remove that one") from None
        part.replace(path)


def require_room(path: Path) -> None:
    """Raises OSError, with the path that is in the way, where nothing could be written at `path` or below. Leaves
    nothing, and makes no folder."""
    nearest = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(bytes(4096))  # a full disk still makes names
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(nearest)) from None


def write(path: Path, content: str | bytes) -> None:
    """All of a text or of some bytes, or nothing."""
    if isinstance(content, bytes):
        with whole_bytes(path) as raw:
            raw.write(content)
    else:
        with whole(path) as text:
            text.write(content)
