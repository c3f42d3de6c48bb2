"""The directory of a run, and the only code that changes it.

What holds whenever the process is killed, and by which order:

1. A file that is replaced (config.yaml, results.json, manifest.json) is written beside its place under a hidden name,
   synced, and renamed: its name means the old content or the new, never a part.
2. A checkpoint has its name while it is whole and no longer. It is built as `.NAME.part` and gets its name by one
   rename; it loses it by one rename, to `.NAME.gone`, before the first of its files is removed.
3. No name is taken from something whole to be given to something else: what is saved again at the same step gets a
   name of its own, 000012-2. So there is no moment between "the old one is away" and "the new one is there".
4. `last`, `best` and `warm_start` are links. They are replaced by a rename, only after what they will name is there,
   and what they name is never removed while they name it. So none ever points nowhere.
5. A checkpoint is made smaller by replacing its manifest, which says what belongs to it; only then the files go that
   it does not name any more.
6. Names that begin with a dot and end in .part, .gone or .link belong to nobody. Whoever holds the lock removes them.

So everything that has a name without a dot is whole, and the newest of it is what a run goes on from. All that the
links say stands in the state of the newest checkpoint, too: they are set again from it when a run goes on.

A run may be somebody else's: no link in it is followed, neither to read nor to write.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokenrl_cli.files import disk
from tokenrl_cli.interfaces import UserError

CONFIG = "config.yaml"  # what is true of the run from its start or its last resume on
CHECKPOINTS = "checkpoints"
LINKS = ("last", "best", "warm_start")
LOCK = ".lock"
MANIFEST = "manifest.json"  # of a checkpoint, written last
ANOTHER = "take another checkpoint of the run"
LEFTOVER = re.compile(r"\..+\.(part|gone|link)")
NAME = re.compile(r"(\d{6,18})(?:-([1-9]\d{0,8}))?")  # step, and which of several of it
UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # the file system cannot


def names(folder: Path) -> list[str]:
    """Of the checkpoints in RUN/checkpoints, the oldest first: by step, then by when they got their names."""
    found = [each.name for each in folder.iterdir() if NAME.fullmatch(each.name)] if folder.is_dir() else []
    return sorted(found, key=order)


def order(name: str) -> tuple[int, int]:
    match = NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2] or 1)


def linked(folder: Path, link: str) -> str | None:
    """The name of the checkpoint that `last`, `best` or `warm_start` points to; None where there is no such link, as in
    a copy made by what follows links."""
    place = folder / link
    if not place.is_symlink():
        return None
    target = os.readlink(place)
    if not NAME.fullmatch(target):
        problem = f"points to {target}, must name a checkpoint beside it"
        raise UserError(str(place), problem, "name a checkpoint itself")
    return target


def find(place: Path, prefer: Sequence[str] = ("best", "last")) -> Path:
    """The checkpoint directory that a run, RUN/checkpoints/NAME or a checkpoint directory means.

    A run means the first of the links `prefer` that it has, else its newest. UserError where that has no manifest.
    """
    place = place.absolute()
    if place.parent.name == CHECKPOINTS and place.name in LINKS:
        place = place.parent / (linked(place.parent, place.name) or place.name)
    if place.parent.name == CHECKPOINTS:
        require_own(place.parent.parent)
    if (place / MANIFEST).is_file():
        return place.resolve()
    if NAME.fullmatch(place.name) and place.is_dir() and not (place / CHECKPOINTS).is_dir():
        raise UserError(str(place / MANIFEST), "is missing: this is no complete checkpoint", ANOTHER)
    if (place / CHECKPOINTS).is_dir():
        require_own(place)
        place = place / CHECKPOINTS
    links = [linked(place, name) or (name if (place / name / MANIFEST).is_file() else None) for name in prefer]
    found = [name for name in (*links, *reversed(names(place))) if name is not None]
    if not found:
        raise UserError(str(place), "holds no complete checkpoint", "give a run directory or one of its checkpoints/")
    if not (place / found[0] / MANIFEST).is_file():
        raise UserError(str(place / found[0] / MANIFEST), "is missing: this is no complete checkpoint", ANOTHER)
    return (place / found[0]).resolve()


def building(run: Path, step: int) -> tuple[Path, Path]:
    """An empty hidden folder to build a checkpoint in, and the place that it will get."""
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
    """What was built and synced gets its name."""
    disk.change(os.rename, part, place)
    disk.sync(place.parent)


def drop(place: Path) -> None:
    """Takes a checkpoint away that no link names."""
    gone = place.parent / f".{place.name}.gone"
    disk.discard(gone)
    disk.change(os.rename, place, gone)
    disk.discard(gone)


def point(run: Path, link: str, name: str) -> None:
    """RUN/checkpoints/LINK -> NAME."""
    folder = run / CHECKPOINTS
    place, new = folder / link, folder / f".{link}.link"
    if place.is_symlink() and os.readlink(place) == name:
        return
    disk.discard(new)
    disk.change(os.symlink, name, new)
    if place.is_dir() and not place.is_symlink():
        drop(place)  # a copy of what a link named
    disk.change(os.rename, new, place)
    disk.sync(folder)


def require_own(run: Path, *folders: str) -> None:
    """Refuses a run whose folders are links: all in them would lie elsewhere. Without `folders` those that it has."""
    saved = [f"{CHECKPOINTS}/{name}" for name in names(run / CHECKPOINTS)]
    for name in folders or (CHECKPOINTS, ".hydra", *saved):
        if (run / name).is_symlink():
            target = os.readlink(run / name)
            raise UserError(str(run / name), f"is a link to {target}: no link of a run is followed", "remove it")


# -------------------------------------------------------------------------------------------------------- the writer


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Makes this process the only one that writes to a run, until it ends however it ends, and removes leftovers."""
    require_own(run)
    descriptor = disk.opened(run / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise UserError(str(run), f"{holder} writes to this run", "wait until it ends, or stop it") from None
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                raise
            told = f"tokenrl: {run} cannot be locked on this file system ({error.strerror}): start nothing else in it"
            print(told, file=sys.stderr)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        tidy(run)
        yield
    finally:
        os.close(descriptor)


def forget(run: Path) -> None:
    """Takes away what a run that never began has left: its config, Hydra's record, its log and the lock. What else is
    there, a folder that was made for it, too, stays."""
    for name in (CONFIG, ".hydra", "train.log", LOCK):
        disk.discard(run / name)


def tidy(run: Path) -> None:
    """Removes what a killed process left unfinished."""
    checkpoints = run / CHECKPOINTS
    for folder in (run, checkpoints, *(checkpoints / name for name in names(checkpoints))):
        for each in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
            if LEFTOVER.fullmatch(each.name):
                disk.discard(each)
