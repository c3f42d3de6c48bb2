"""The directory of a run: its lock, its links, its checkpoint folders, and the rules for every change in it.

These rules keep a run usable at whatever moment its process is killed:

1. A file that is replaced (config.yaml, results.json, manifest.json) is written next to its place under a hidden name,
   synced to disk, and renamed: its name stands for the old content or the new one, never for a part.
2. A checkpoint has its name only while it is whole. It is built as `.NAME.part` and gets its name by one rename. To be
   removed it is first renamed to `.NAME.gone`; then its files are deleted.
3. A name is never reused: a second checkpoint at the same step gets a name of its own, such as 000012-2. So there is no
   moment at which the old one is gone and the new one is not yet there.
4. `last`, `best` and `warm_start` are links. A link is replaced by a rename, only after its new target exists, and a
   target is never removed while a link points to it. So no link ever points nowhere.
5. To make a checkpoint smaller its manifest, which lists its files, is replaced first; only then are the files deleted
   that it does not list any more.
6. Names that begin with a dot and end in .part, .gone or .link are leftovers. The process that holds the lock removes
   them.

So everything whose name has no leading dot is whole, and a run is resumed from the newest checkpoint. The state in that
checkpoint also says where the links point: they are set from it on resume.

A run may come from an untrusted source: no link in it is followed, neither to read nor to write, but for `last`, `best`
and `warm_start`, which must name a checkpoint beside them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tokenrl_cli.files import disk
from tokenrl_cli.interfaces import UserError

CONFIG = "config.yaml"  # the settings of the run since its start or its last resume
CHECKPOINTS = "checkpoints"
LINKS = ("last", "best", "warm_start")
LOCK = ".lock"
MANIFEST = "manifest.json"  # lists the files of a checkpoint; written last
ANOTHER = "take another checkpoint of the run"
LEFTOVER = re.compile(r"\..+\.(part|gone|link)")
NAME = re.compile(r"(\d{6,18})(?:-([1-9]\d{0,8}))?")  # step, and a number if there are several checkpoints of one step
UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # no locks there


def checkpoint_names(folder: Path) -> list[str]:
    """Returns the names of the checkpoints in the folder RUN/checkpoints, the oldest first; [] if there is no such
    folder. Entries with other names, such as the links and hidden files, are left out; what a checkpoint holds is not
    checked."""
    found = [each.name for each in folder.iterdir() if NAME.fullmatch(each.name)] if folder.is_dir() else []
    return sorted(found, key=order)


def order(name: str) -> tuple[int, int]:
    """Returns the sort key of a checkpoint name: its step, then its number among those of that step (1 for a name
    without a number). `name` must be one that `checkpoint_names` may return."""
    match = NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2] or 1)


def link_target(folder: Path, link: str) -> str | None:
    """Returns the name of the checkpoint that `link`, "last", "best" or "warm_start", points to in `folder`, which is
    RUN/checkpoints. The checkpoint may be missing. None if no link has that name, also if a folder has it, as in a copy
    made by a program that follows links. Raises UserError if the link points to anything but the name of a checkpoint
    in the same folder."""
    place = folder / link
    if not place.is_symlink():
        return None
    target = os.readlink(place)
    if not NAME.fullmatch(target):
        problem = f"points to {target}, must name a checkpoint beside it"
        raise UserError(str(place), problem, "name a checkpoint itself")
    return target


def find(place: Path, prefer: Sequence[str] = ("best", "last")) -> Path:
    """Returns the directory of a checkpoint, absolute and without links. `place` is a run, its folder of checkpoints,
    RUN/checkpoints/NAME, where NAME may also be a link such as `best`, or a copy of a checkpoint that lies elsewhere.

    A run stands for the first of the links `prefer` that it has, or else for its newest checkpoint. Raises UserError if
    there is no checkpoint, if the chosen one has no manifest, or if a folder of the run is a link. Its files are not
    verified; `checkpoint.load` does that.
    """
    place = place.absolute()
    # the name of the link is replaced first: resolving the path would follow any link
    if place.parent.name == CHECKPOINTS and place.name in LINKS:
        place = place.parent / (link_target(place.parent, place.name) or place.name)
    if place.parent.name == CHECKPOINTS:
        require_own(place.parent.parent)
    if (place / MANIFEST).is_file():
        return place.resolve()
    if NAME.fullmatch(place.name) and place.is_dir() and not (place / CHECKPOINTS).is_dir():
        raise UserError(str(place / MANIFEST), "is missing: this is no complete checkpoint", ANOTHER)
    if (place / CHECKPOINTS).is_dir():
        require_own(place)
        place = place / CHECKPOINTS
    links = [link_target(place, name) or (name if (place / name / MANIFEST).is_file() else None) for name in prefer]
    found = [name for name in (*links, *reversed(checkpoint_names(place))) if name is not None]
    if not found:
        raise UserError(str(place), "holds no complete checkpoint", "give a run directory or one of its checkpoints/")
    if not (place / found[0] / MANIFEST).is_file():
        raise UserError(str(place / found[0] / MANIFEST), "is missing: this is no complete checkpoint", ANOTHER)
    return (place / found[0]).resolve()


def new_checkpoint(run: Path, step: int) -> tuple[Path, Path]:
    """Makes an empty hidden folder in which to build a checkpoint; returns it and the path to which `publish` should
    rename it: RUN/checkpoints/<step in six digits>, with -2, -3 ... if that exists. Makes RUN/checkpoints if it is
    missing."""
    folder = run / CHECKPOINTS
    if not folder.is_dir():
        disk.change(os.makedirs, folder)
    taken = {each.name for each in folder.iterdir()}
    name, number = f"{step:06d}", 1
    while name in taken:
        number += 1
        name = f"{step:06d}-{number}"
    part = folder / f".{name}.part"
    disk.discard(part)
    disk.change(os.mkdir, part)
    return part, folder / name


def publish(part: Path, place: Path) -> None:
    """Renames `part`, a complete file or folder that is synced to disk already, to `place`, its final path, and syncs
    the folder around that. Replaces a file there; raises OSError if there is a folder with files."""
    disk.change(os.rename, part, place)
    disk.sync(place.parent)


def remove_checkpoint(place: Path) -> None:
    """Removes a checkpoint: renames it to a hidden name, then deletes it. No link may point to it: that is not
    checked."""
    gone = place.parent / f".{place.name}.gone"
    disk.discard(gone)
    disk.change(os.rename, place, gone)
    disk.discard(gone)


def set_link(run: Path, link: str, name: str) -> None:
    """Points the link RUN/checkpoints/LINK at the checkpoint NAME beside it, in place of an older link, in one atomic
    step. The checkpoint must exist: that is not checked. If a folder stands in the place of the link, a copy made by a
    program that follows links, that is removed first."""
    folder = run / CHECKPOINTS
    place, new = folder / link, folder / f".{link}.link"
    if place.is_symlink() and os.readlink(place) == name:
        return
    disk.discard(new)
    disk.change(os.symlink, name, new)
    if place.is_dir() and not place.is_symlink():
        remove_checkpoint(place)  # a copy of a checkpoint, made by a program that follows links
    disk.change(os.rename, new, place)
    disk.sync(folder)


def require_own(run: Path, *folders: str) -> None:
    """Raises UserError if one of `folders`, paths relative to a run, is a link, so that its files lie elsewhere.
    Without `folders` these are checked: checkpoints, .hydra and each checkpoint, but not eval. The run itself may be a
    link."""
    saved = [f"{CHECKPOINTS}/{name}" for name in checkpoint_names(run / CHECKPOINTS)]
    for name in folders or (CHECKPOINTS, ".hydra", *saved):
        if (run / name).is_symlink():
            target = os.readlink(run / name)
            raise UserError(str(run / name), f"is a link to {target}: no link of a run is followed", "remove it")


# -------------------------------------------------------------------------------------------------------- the writer


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the lock of a run, an existing directory, while the block runs, so that no other process writes to it;
    first removes what a killed process has left (`remove_leftovers`).

    The system releases the lock however the process ends; the file .lock stays. Raises UserError if the lock is held
    already, by another process or by this one, or if a folder of the run is a link. On a file system without locks a
    warning is printed, and the block runs unprotected.
    """
    require_own(run)
    descriptor = disk.opened(run / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise UserError(str(run), f"{holder} is writing to this run", "wait until it ends, or stop it") from None
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                raise
            reason = f"cannot be locked on this file system ({error.strerror})"
            print(f"tokenrl: {run} {reason}: start nothing else in it", file=sys.stderr)
        # the content is only for the message of another process: the lock itself is in the system, not in the file
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        remove_leftovers(run)
        yield
    finally:
        os.close(descriptor)


def remove_traces(run: Path) -> None:
    """Removes the files of a run that ended before its first step: config.yaml, .hydra, train.log and the lock; and its
    directory, unless it holds other files or is the current one. Missing files are no error."""
    for name in (CONFIG, ".hydra", "train.log", LOCK):
        disk.discard(run / name)
    if run.resolve() != Path.cwd():
        with suppress(OSError):  # it holds other files
            disk.change(os.rmdir, run)


def remove_leftovers(run: Path) -> None:
    """Removes what a killed process has left unfinished: hidden names that end in .part, .gone or .link, in the run, in
    its folder of checkpoints and in each checkpoint. Call it only while holding the lock."""
    checkpoints = run / CHECKPOINTS
    for folder in (run, checkpoints, *(checkpoints / name for name in checkpoint_names(checkpoints))):
        for each in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
            if LEFTOVER.fullmatch(each.name):
                disk.discard(each)
