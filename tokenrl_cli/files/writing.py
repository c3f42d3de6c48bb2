"""Writes files and folders atomically: under a hidden name in the same folder, and renamed when complete.

If a command fails or is killed, the old file stays as it was. A link under the name is replaced, never followed.
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
    """Opens a UTF-8 text file to write to while the block runs, without translating line breaks. It becomes `path` if
    the block succeeds and is removed if it raises. Half of a surrogate pair, which UTF-8 cannot hold, is written as its
    escape.

    Replaces an existing file; with `replaces` False that is a UserError, raised at the end of the block. The folder
    must exist. Raises the system's OSError, to which `path` is added if it names no file.
    """
    text = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with whole_bytes(path, replaces) as raw, open(raw.fileno(), "w", closefd=False, **text) as to:  # type: ignore[call-overload]
        yield to


@contextmanager
def whole_bytes(path: Path, replaces: bool = True) -> Iterator[IO[bytes]]:
    """Opens a file of bytes to write to while the block runs. It becomes `path` if the block succeeds and is removed if
    it raises. Replaces an existing file; with `replaces` False that is a UserError, raised at the end of the block. The
    folder must exist. Raises the system's OSError, to which `path` is added if it names no file."""
    # in the same folder: a rename is atomic only within one file system
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        disk.discard(part)
        with open(disk.change(os.open, part, flags, 0o666), "wb") as to:
            yield to
            to.flush()
            os.fsync(to.fileno())  # before the rename, or a power failure could leave an empty file under the name
        if replaces:
            disk.change(os.replace, part, path)
        else:
            _claim(part, path)
        disk.sync(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Makes a folder to fill while the block runs, and yields its path, a hidden one. It becomes `path` if the block
    succeeds, with all its files on disk and readable as the umask says, and is removed if it raises.

    `path` must be new or an empty folder (see `require_new_folder`); folders above it are made. Raises UserError where
    it is taken when the block ends, OSError where the system refuses.
    """
    require_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        disk.discard(part)
        disk.change(os.mkdir, part)
        yield part
        # a library may have made files that only their owner can read
        mode = part.stat().st_mode & 0o666
        for each in sorted(part.rglob("*")):
            if each.is_file():
                each.chmod(mode)
            disk.sync(each)
        require_new_folder(path)
        disk.change(os.rename, part, path)  # replaces an empty folder, and no other
        disk.sync(path.parent)
    finally:
        with suppress(OSError):
            disk.discard(part)


def require_new_folder(path: Path) -> None:
    """Raises UserError unless `path` is an empty folder, or nothing is there. A link is refused, whatever it points
    to."""
    if path.is_symlink():
        raise UserError(str(path), f"is a link to {os.readlink(path)}: no link is followed", "name a new folder")
    if path.is_dir():
        if any(path.iterdir()):
            raise UserError(str(path), "is not empty, and nothing is overwritten", "name a new folder")
    elif path.exists():
        raise UserError(str(path), "is a file", "name a new folder")


def _claim(part: Path, path: Path) -> None:
    """Gives the file `part` the name `path`. Raises UserError if that name is taken.

    A hard link makes the test and the change one step. On a file system without hard links the name is checked first.
    """
    try:
        os.link(part, path)
    except OSError:
        if os.path.lexists(path):
            raise UserError(str(path), "exists by now", "name a new file, or remove that one") from None
        part.replace(path)


def require_room(path: Path) -> None:
    """Raises OSError, which names the folder, unless a file can be written in the folder `path`, or, if that does not
    exist yet, in the nearest folder above it that does. A file in its place and a full disk are such errors, too.
    Writes a temporary file to find out, and leaves nothing; makes no folder."""
    nearest = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(bytes(4096))  # not empty: a full disk still accepts empty files
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(nearest)) from None


def write(path: Path, content: str | bytes) -> None:
    """Writes a file, text as UTF-8, and replaces one that exists: readers see the old content or the new one, never a
    part. A link at `path` is replaced, not followed. The folder must exist. It is on disk when this returns. Raises
    OSError, which names the path."""
    if isinstance(content, bytes):
        with whole_bytes(path) as raw:
            raw.write(content)
    else:
        with whole(path) as text:
            text.write(content)
