"""Turns exceptions into UserErrors if their cause lies outside this package.

The place at which an exception arose decides: the machine (disk, memory), a module of the user's, the command line or a
config file. Anything else is a bug of this package and ends with a traceback.
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tokenrl_cli.interfaces import UserError
from tokenrl_cli.usercode.modules import error_line, holds

HOME = Path(os.path.abspath(__file__)).parents[1]
MACHINE_ERRORS = (  # a full disk or too many open files are the machine's even if the error names no path
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.EMFILE,
    errno.ENFILE, errno.ENOMEM, errno.EAGAIN,
)  # fmt: skip
REMEDIES = {
    errno.ENOSPC: "make room, or name another place",
    errno.EDQUOT: "make room, or name another place",
    errno.EACCES: "change the permissions, or name another place",
    errno.EPERM: "change the permissions, or name another place",
    errno.EROFS: "name another place",
}
MEMORY = "can't allocate memory|out of memory|Unable to allocate"  # in messages of torch and numpy


def as_user_error(error: BaseException, imports: Sequence[str], place: str = "", again: str = "") -> UserError | None:
    """Returns the UserError, not raised, for an exception of a command's work that a module of the user's or the
    machine has caused; None for any other, which is a bug of this package. The user's module is the cause if, of the
    calls on the way to the exception that lie in such a module or in this package, the innermost lies in the user's
    module; for the machine see `machine_error`.

    `imports` are the user's modules. `place` is where the command writes: it is named if the system names no path.
    `again` is the command to continue with afterwards.
    """
    frame = next((each for each in reversed(_frames(error)) if holds(imports, each[0]) or _is_ours(each[1])), None)
    if frame is not None and holds(imports, frame[0]):
        problem = "ends the program" if isinstance(error, SystemExit) else error_line(error)
        return UserError(f"{frame[1]}, line {frame[2]}", problem, f"correct it, then {again}" if again else "")
    return machine_error(error, place, again)


def machine_error(error: BaseException, place: str = "", again: str = "") -> UserError | None:
    """Returns the UserError, not raised, for a refusal of the system: of a disk, a path or memory. None for any other
    exception, for a UserError, and for a missing file of this package. `place` is where the command writes: it is named
    if the system names no path. `again` is the command to continue with afterwards, for the message."""
    if isinstance(error, UserError):
        return None
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and re.search(MEMORY, str(error))):
        problem = str(error).strip().partition("\n")[0] or "there is not enough of it"
        return UserError("memory", problem, "a smaller model, batch or length needs less")
    number, path = _refused(error)
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return UserError("~", "names no directory: HOME is not set", "name the path without ~, or set HOME")
    if isinstance(error, OSError) and "temporary directory" in str(error.strerror):
        return UserError("TMPDIR", str(error.strerror), "set it to a directory that can be written to")
    if number is None or not (path or number in MACHINE_ERRORS) or (number == errno.ENOENT and _is_ours(path)):
        return None
    remedy = REMEDIES.get(number, "")
    if again:
        remedy = f"{remedy}; then {again}" if remedy else f"then {again}"
    where = path or place or "a file"
    return UserError(where, os.strerror(number) + _link(Path(where)), remedy)


def config_error(error: BaseException) -> UserError | None:
    """Returns the UserError, not raised, for an exception that arose while Hydra composed the config; None for any
    other.

    It is recognised by its traceback: the innermost frame in this package lies in cli.py, which means that no command
    had begun. The cause is then the command line, or a config file that Hydra read.
    """
    ours = [each for each in _frames(error) if _is_ours(each[1])]
    if not ours or Path(ours[-1][1]).name != "cli.py":
        return None
    where = _config_file(error.__traceback__) or "the command line, or a config file"
    text = str(error).strip().partition("\n")[0]
    return UserError(where, f"cannot be read: {type(error).__name__}: {text[:200]}")


def _refused(error: BaseException) -> tuple[int | None, str]:
    """The number and the path of a system error: (None, "") if it is none. Libraries written in Rust give the number
    only in their text."""
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        names = [os.fsdecode(each) for each in (error.filename, error.filename2) if isinstance(each, str | bytes)]
        return error.errno, names[0] if names else ""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return (int(found[1]), "") if found else (None, "")


def _link(path: Path) -> str:
    """A note about a link in a path that leads nowhere, in parentheses; "" if there is none."""
    for each in (path, *path.parents):
        if each.is_symlink() and not each.exists():
            return f" ({each} is a link to {os.readlink(each)}, which is not there)"
    return ""


def _frames(error: BaseException) -> list[tuple[str, str, int]]:
    """(module, file, line) of each call on the way to an exception, the innermost last."""
    steps = traceback.walk_tb(error.__traceback__)
    return [(str(f.f_globals.get("__name__")), f.f_code.co_filename, line) for f, line in steps]


def _is_ours(file: str) -> bool:
    """Whether a file lies in the folder of this package."""
    return Path(file).is_relative_to(HOME)


def _config_file(step: TracebackType | None) -> str:
    """The config file that Hydra was reading, "" if it was reading none."""
    found = ""
    for frame, _ in traceback.walk_tb(step):
        if frame.f_code.co_name == "load_config" and "full_path" in frame.f_locals:
            found = str(frame.f_locals["full_path"])
    return found
