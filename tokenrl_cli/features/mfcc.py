"""Frames that the data set holds, such as cepstra, with their changes over time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np

from tokenrl_cli.config.ranges import Ge, Le, Size, Speeds, Weight
from tokenrl_cli.data.frames import FrameStore
from tokenrl_cli.features.normalisation import Kind, Normalisation
from tokenrl_cli.interfaces import Recording, UserError


class GivenMfcc:
    """Frames that a data set holds, `inputs` values each, with `orders` times as many values appended: the deltas of
    each value, their deltas, and so on. F = inputs * (1 + orders).

        d_t = sum_(n = 1 ... N) n (c_(t+n) - c_(t-n)) / (2 sum_(n = 1 ... N) n^2),  N = `window`

    where c before the first frame is c_0 and after the last the last one (The HTK Book 3.4, equation 5.16). Frames are
    then normalised (`features/normalisation.py`). At another speed the given values are read between the frames, by
    linear interpolation, at S / speed places: the pace changes and the pitch does not. `memory` and `disk` (MiB) bound
    what is kept, as in LogMel.
    """

    def __init__(
        self,
        inputs: Size,
        window: Annotated[int, Ge(1), Le(100)],
        orders: Annotated[int, Ge(0), Le(3)],
        normalisation: Kind,
        speeds: Speeds,
        memory: Weight,
        disk: Weight,
    ) -> None:
        self.inputs, self.window, self.orders, self.speeds = inputs, window, orders, speeds
        self.width = inputs * (1 + orders)
        settings = {"inputs": inputs, "window": window, "orders": orders}
        self._normalised = Normalisation(normalisation, self.width, "mfcc", settings)
        self._store = FrameStore(memory, disk)

    def train(self, recordings: Iterable[Recording]) -> None:
        """Learns the mean and the standard deviation of each value over the recordings of train, with
        normalisation=global; with others it reads none of them."""
        self._normalised.train(self._with_deltas(each, 1.0) for each in recordings)
        self._store.clear()

    def frames(self, recording: Recording, speed: float = 1.0) -> np.ndarray:
        """Returns the frames [S, F] float32 of a recording at `speed` times its pace. They cannot be written to. Raises
        UserError where the recording cannot be read, is sound, or has frames of another width."""
        return self._store.frames(recording, speed, self._computed)

    def save(self, directory: Path) -> None:
        """Writes features.json to `directory`, which is made where it is missing."""
        self._normalised.save(directory)

    def load(self, directory: Path) -> None:
        """Reads features.json of `directory`. Raises UserError where it is missing, damaged or of other features."""
        self._normalised.load(directory)
        self._store.clear()

    def _computed(self, recording: Recording, speed: float) -> np.ndarray:
        return self._normalised(self._with_deltas(recording, speed))

    def _with_deltas(self, recording: Recording, speed: float) -> np.ndarray:
        given = recording.read()
        if not isinstance(given, np.ndarray):
            problem = "is sound, and features=mfcc reads frames that were computed earlier"
            raise UserError(recording.name, problem, "features=logmel, or arrays in place of audio")
        if given.ndim != 2 or given.shape[1] != self.inputs or not len(given):
            problem = f"holds an array of shape {list(given.shape)}, expected frames [S, {self.inputs}]"
            width = given.shape[-1] if given.ndim == 2 else self.inputs
            raise UserError(recording.name, problem, f"features.inputs={width}")
        orders = [paced(given.astype(np.float64), speed)]
        for _ in range(self.orders):
            orders.append(deltas(orders[-1], self.window))
        return np.concatenate(orders, axis=1).astype(np.float32)


def deltas(frames: np.ndarray, window: int) -> np.ndarray:
    """Returns the slope [S, F] of each value of frames [S, F] over +- `window` frames, by linear regression: the
    formula of GivenMfcc."""
    padded = np.pad(frames, ((window, window), (0, 0)), mode="edge")
    last = len(frames) + window
    steps = range(1, window + 1)
    differences = [n * (padded[window + n : last + n] - padded[window - n : last - n]) for n in steps]
    slope: np.ndarray = np.sum(differences, axis=0) / (2 * sum(n * n for n in steps))
    return slope


def paced(frames: np.ndarray, speed: float) -> np.ndarray:
    """Returns frames [S, F] at `speed` times their pace, [max(1, round(S / speed)), F], by linear interpolation."""
    if speed == 1:
        return frames
    places = np.minimum(np.arange(max(1, round(len(frames) / speed))) * speed, len(frames) - 1)
    below = np.floor(places).astype(np.int64)
    share = (places - below)[:, None]
    between: np.ndarray = frames[below] * (1 - share) + frames[np.minimum(below + 1, len(frames) - 1)] * share
    return between
