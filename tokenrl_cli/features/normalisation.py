"""The normalisation of frames, which all features share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tokenrl_cli.data.lines import shown
from tokenrl_cli.interfaces import UserError

FILE = "features.json"
SMALLEST = 1e-3  # a standard deviation below it counts as this: a value that never changes becomes 0, not 0 / 0

Kind = Literal["none", "utterance", "global"]


class Normalisation:
    """(frame - mean) / deviation, for each of `width` values by itself.

    With `utterance` mean and standard deviation are over the frames of the recording itself, with `global` over all
    frames of train, learned by `train`; `none` changes nothing. The variance is divided by the number of frames.
    `features` is the name of the features, and `settings` are those of their settings that change a frame: a saved
    file with others is refused, for a model that learned from one kind of frames makes nothing of another.
    """

    def __init__(self, kind: Kind, width: int, features: str, settings: dict[str, Any]) -> None:
        self.kind, self.width = kind, width
        self.described = {"features": features, "width": width, "normalisation": kind} | settings
        self.mean = np.zeros(width)
        self.deviation = np.ones(width)

    def train(self, frames: Iterable[np.ndarray]) -> None:
        """Learns mean and deviation from the frames [S, F] of the recordings of train, with `global`; with other kinds
        it reads none of them. Sums are float64."""
        if self.kind != "global":
            return
        count, total, squares = 0, np.zeros(self.width), np.zeros(self.width)
        for each in frames:
            wide = each.astype(np.float64)
            count += len(wide)
            total += wide.sum(0)
            squares += np.square(wide).sum(0)
        if count == 0:
            raise UserError("features", "there is nothing to take a mean of: train has no recordings")
        self.mean = total / count
        variance = np.maximum(squares / count - np.square(self.mean), 0)
        self.deviation = np.maximum(np.sqrt(variance), SMALLEST)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Returns the normalised frames [S, F] float32."""
        if self.kind == "none":
            return frames.astype(np.float32, copy=False)
        mean, deviation = self.mean, self.deviation
        if self.kind == "utterance":
            wide = frames.astype(np.float64)
            mean, deviation = wide.mean(0), np.maximum(wide.std(0), SMALLEST)
        normalised: np.ndarray = ((frames - mean) / deviation).astype(np.float32)
        return normalised

    def save(self, directory: Path) -> None:
        """Writes features.json to `directory`, which is made where it is missing."""
        directory.mkdir(parents=True, exist_ok=True)
        content = dict(self.described)
        if self.kind == "global":
            content |= {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        (directory / FILE).write_text(json.dumps(content, indent=0) + "\n", "utf-8")

    def load(self, directory: Path) -> None:
        """Replaces mean and deviation by those in features.json of `directory`. Raises UserError where the file cannot
        be read, is damaged, or is of other features."""
        path = directory / FILE
        try:
            content = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise UserError(str(path), f"cannot be read: {error.strerror or error}") from None
        except ValueError as error:
            raise UserError(str(path), f"is damaged: {error}") from None
        if not isinstance(content, dict):
            raise UserError(str(path), "is damaged: expected a JSON object")
        for key, value in self.described.items():
            if content.get(key) != value:
                problem = f"is of other features: its {key} is {shown(content.get(key))}, expected {shown(value)}"
                remedy = "" if key in ("features", "width") else f"features.{key}={shown(content.get(key))}"
                raise UserError(str(path), problem, remedy)
        if self.kind == "global":
            self.mean, self.deviation = self._numbers(content, "mean", path), self._numbers(content, "deviation", path)
            if not (self.deviation > 0).all():
                raise UserError(str(path), "is damaged: a standard deviation is not above 0")

    def _numbers(self, content: dict[str, Any], key: str, path: Path) -> np.ndarray:
        try:
            values = np.array(content.get(key), dtype=np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.shape != (self.width,) or not np.isfinite(values).all():
            raise UserError(str(path), f"is damaged: expected {self.width} numbers under {key!r}")
        return values
