"""The store of frames that were computed: in memory up to a bound, then in a file without a name up to another."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Hashable
from typing import IO

import numpy as np

from tokenrl_cli.interfaces import Recording

MIB = 2**20


class FrameStore:
    """Arrays [S, F] float32 by key: those that come first stay in memory, as long as they fit into `memory` MiB, later
    ones go to a temporary file of at most `disk` MiB, and what fits nowhere is not kept. Nothing is replaced, and only
    `clear` removes. The file has no name and ends with the process."""

    def __init__(self, memory: float, disk: float) -> None:
        self._bounds = int(memory * MIB), int(disk * MIB)
        self._file: IO[bytes] | None = None
        self.clear()

    def clear(self) -> None:
        """Removes all arrays, and the file."""
        if self._file is not None:
            self._file.close()
        self._room, self._disk = self._bounds
        self._kept: dict[Hashable, np.ndarray] = {}
        self._places: dict[Hashable, tuple[int, tuple[int, ...]]] = {}  # where in the file, and the shape
        self._file = None
        self._end = 0  # of the file

    def frames(
        self, recording: Recording, speed: float, compute: Callable[[Recording, float], np.ndarray]
    ) -> np.ndarray:
        """Returns the frames [S, F] of a recording at a speed: those that are kept, else what `compute` returns, which
        is kept if there is room. They cannot be written to."""
        key = recording.name, float(speed)
        found = self.get(key)
        return self.put(key, compute(recording, speed)) if found is None else found

    def get(self, key: Hashable) -> np.ndarray | None:
        """Returns the frames [S, F] that were put under `key`, which cannot be written to; None where they are not
        kept."""
        if key in self._kept:
            return self._kept[key]
        if key not in self._places or self._file is None:
            return None
        place, shape = self._places[key]
        size = 4 * int(np.prod(shape))
        found = os.pread(self._file.fileno(), size, place)
        return np.frombuffer(found, dtype=np.float32).reshape(shape) if len(found) == size else None

    def put(self, key: Hashable, frames: np.ndarray) -> np.ndarray:
        """Keeps an array [S, F] float32 under `key` if there is room, and returns it, locked against writing. A key
        that is there already is left as it is. Where the disk is full nothing further goes to it."""
        frames.flags.writeable = False
        if key in self._kept or key in self._places:
            return frames
        if frames.nbytes <= self._room:
            self._room -= frames.nbytes
            self._kept[key] = frames
        elif self._end + frames.nbytes <= self._disk:
            self._write(key, frames)
        return frames

    def _write(self, key: Hashable, frames: np.ndarray) -> None:
        content = np.ascontiguousarray(frames).tobytes()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="tokenrl-frames-", buffering=0)  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            written = os.pwrite(self._file.fileno(), content, self._end)
        except OSError:  # no room, or no place for temporary files: frames are then computed anew
            self._disk = 0
            return
        if written < len(content):
            self._disk = 0
            return
        self._places[key] = self._end, frames.shape
        self._end += written
