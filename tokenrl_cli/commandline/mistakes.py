"""Whose mistake an exception is, decided by where it arose: the machine's, a module of the user's, the command line or
a config file. What is left is ours, and ends with a traceback.
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
from tokenrl_cli.usercode.modules import holds, told

HOME = Path(os.path.abspath(__file__)).parents[1]
STATES = (  # of a machine, whatever it was that met them; without a path, too
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.EMFILE,
    errno.ENFILE, errno.ENOMEM, errno.EAGAIN,
)  # fmt: skip
REMEDIES = {
    errno.ENOSPC: "make room, or name another place",
    errno.EDQUOT: "make room, or name another place",
    errno.EACCES: "give yourself the right to it, or name another place",
    errno.EPERM: "give yourself the right to it, or name another place",
    errno.EROFS: "name another place",
}
MEMORY = "can't allocate memory|out of memory|Unable to allocate"  # of torch and numpy


def mistake(error: BaseException, imports: Sequence[str], place: str = "", again: str = "") -> UserError | None:
    """What is to be told of an exception that arose in the work itself; None where it is ours.

    `imports` are the user's modules. `place` is where the command writes, named where the system names no path;
    `again` the command that goes on afterwards.
    """
    frame = next((each for each in reversed(_frames(error)) if holds(imports, each[0]) or _is_ours(each[1])), None)
    if frame is not None and holds(imports, frame[0]):
        said = "ends the program" if isinstance(error, SystemExit) else told(error)
        return UserError(f"{frame[1]}, line {frame[2]}", said, f"mend it, then {again}" if again else "")
    return of_the_machine(error, place, again)


def of_the_machine(error: BaseException, place: str = "", again: str = "") -> UserError | None:
    """A disk, a path, memory: what the system refused. None where it refused nothing, or a path of the package's."""
    if isinstance(error, UserError):
        return None
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and re.search(MEMORY, str(error))):
        said = str(error).strip().partition("\n")[0] or "there is not enough of it"
        return UserError("memory", said, "a smaller model, batch or length needs less")
    number, path = _refused(error)
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return UserError("~", "stands for no directory: HOME is not set", "name the path without ~, or set HOME")
    if isinstance(error, OSError) and "temporary directory" in str(error.strerror):
        return UserError("TMPDIR", str(error.strerror), "set it to a directory that can be written")
    if number is None or not (path or number in STATES) or (number == errno.ENOENT and _is_ours(path)):
        return None
    remedy = REMEDIES.get(number, "")
    if again:
        remedy = f"{remedy}; then {again}" if remedy else f"when that is mended: {again}"
    where = path or place or "a file"
    return UserError(where, os.strerror(number) + _link(Path(where)), remedy)


def before_the_work(error: BaseException) -> UserError | None:
    """Of an exception that arose before any work began: where none of our code had called what raised it but for the
    door to Hydra, it is a mistake in what was typed, or in a config file that was read."""
    ours = [each for each in _frames(error) if _is_ours(each[1])]
    if not ours or Path(ours[-1][1]).name != "cli.py":
        return None
    where = _config_file(error.__traceback__) or "the command line, or a config file"
    text = str(error).strip().partition("\n")[0]
    return UserError(where, f"cannot be read: {type(error).__name__}: {text[:200]}")


def _refused(error: BaseException) -> tuple[int | None, str]:
    """Number and path of an error of the system; libraries that are not Python's tell it in their text alone."""
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        names = [os.fsdecode(each) for each in (error.filename, error.filename2) if isinstance(each, str | bytes)]
        return error.errno, names[0] if names else ""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return (int(found[1]), "") if found else (None, "")


def _link(path: Path) -> str:
    """Of a path with a link in it that leads nowhere: which, and where to."""
    for each in (path, *path.parents):
        if each.is_symlink() and not each.exists():
            return f" ({each} is a link to {os.readlink(each)}, which is not there)"
    return ""


def _frames(error: BaseException) -> list[tuple[str, str, int]]:
    """(module, file, line) of each call on the way to an exception, the last one last."""
    steps = traceback.walk_tb(error.__traceback__)
    return [(str(f.f_globals.get("__name__")), f.f_code.co_filename, line) for f, line in steps]


def _is_ours(file: str) -> bool:
    """Of the package; what lies there is no file of the user's."""
    return Path(file).is_relative_to(HOME)


def _config_file(step: TracebackType | None) -> str:
    """The file that Hydra was reading, "" if none."""
    found = ""
    for frame, _ in traceback.walk_tb(step):
        if frame.f_code.co_name == "load_config" and "full_path" in frame.f_locals:
            found = str(frame.f_locals["full_path"])
    return found
