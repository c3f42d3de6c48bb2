"""Frames that were computed earlier, in npz files beside the manifests that list their examples."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tokenrl_cli.interfaces import UserError

OFFSETS = "offsets"


class Arrays:
    """The frames of the `count` examples of a manifest: NAME.npz beside NAME.jsonl[.gz] holds [frames, F] under `key`
    and `offsets` [count + 1]: example k has the frames offsets[k] to offsets[k + 1]. They stay in memory as they are
    stored. Raises UserError where the file is missing, damaged, or does not fit the manifest."""

    def __init__(self, manifest: Path, key: str, count: int) -> None:
        plain = manifest.with_suffix("") if manifest.suffix == ".gz" else manifest
        self.path = plain.with_suffix(".npz")
        stored = _loaded(self.path)
        for name in (key, OFFSETS):
            if name not in stored:
                problem = f"has no array {name!r}, only {', '.join(stored) or 'none'}"
                raise UserError(str(self.path), problem, f"dataset.arrays names the frames; {OFFSETS!r} is always read")
        self.frames, self.offsets = stored[key], stored[OFFSETS]
        if self.frames.ndim != 2 or self.frames.dtype.kind != "f":
            found = f"{self.frames.dtype} of shape {list(self.frames.shape)}"
            raise UserError(str(self.path), f"expected frames [frames, F] of floats under {key!r}, got {found}")
        if self.offsets.shape != (count + 1,) or self.offsets.dtype.kind not in "iu":
            found = f"{self.offsets.dtype} of shape {list(self.offsets.shape)}"
            expected = f"expected {count + 1:,} integers under {OFFSETS!r} for the {count:,} examples of {manifest}"
            raise UserError(str(self.path), f"{expected}, got {found}")
        steps = np.diff(self.offsets.astype(np.int64))
        if (steps < 0).any() or self.offsets[0] < 0 or self.offsets[-1] > len(self.frames):
            problem = f"expected {OFFSETS!r} that rise, from 0 on and to at most {len(self.frames):,} frames"
            raise UserError(str(self.path), problem)

    def check(self, k: int, place: str, known: Any) -> None:
        """Raises UserError, which names `place`, where example k has no frames, all its frames are the same, or one
        holds a value that is no finite number. `known` is not read."""
        self.read(k, place)

    def read(self, k: int, place: str) -> np.ndarray:
        """Returns the frames [S, F] float32 of example k. Raises as `check` does."""
        start, stop = int(self.offsets[k]), int(self.offsets[k + 1])
        frames = self.frames[start:stop].astype(np.float32)
        problem = ""
        if not len(frames):
            problem = "has no frames"
        elif not np.isfinite(frames).all():
            problem = "holds values that are no finite numbers"
        elif len(frames) > 1 and (frames == frames[0]).all():
            problem = "is silent: all its frames are the same"
        if problem:
            raise UserError(place, f"{self.path}, frames {start:,} to {stop:,}: {problem}")
        return frames


def _loaded(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:  # np.load would leave a damaged file open
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise UserError(str(path), "is no npz file: it holds one array without a name")
            with stored:
                return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise UserError(str(path), "there is no such file", "it lies beside the manifest of the same name") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, OSError) as error:
        raise UserError(str(path), f"cannot be read as an npz file: {error}", "fetch or make it again") from None
