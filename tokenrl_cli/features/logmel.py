"""Log-mel features: the logarithm of the energy in bands of frequency, 100 times a second."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from tokenrl_cli.config.extras import require_extra
from tokenrl_cli.config.ranges import Fraction, Ge, Le, Positive, Size, Speeds, Weight
from tokenrl_cli.data.audio import loudness_changed, resampled
from tokenrl_cli.data.frames import FrameStore
from tokenrl_cli.features.normalisation import Kind, Normalisation
from tokenrl_cli.interfaces import Recording, SettingError, UserError, Waveform
from tokenrl_cli.streams import generator

FULL_SCALE = 32768  # Kaldi's samples are 16-bit integers, ours are -1 ... 1
FLOOR = float(np.finfo(np.float32).eps)  # energies below it count as this


class LogMel:
    """Log-mel energies [S, bins] of a waveform as Kaldi computes them, with F = `bins`.

    The waveform is resampled to `rate`, played at the speed that is called for, and scaled to `loudness`; then to the
    range of 16 bits, x * 32768, and noise is added: `dither` * N(0, 1), drawn from the name of the recording, the same
    for every call (Kaldi draws it for each frame anew). Of each window of W = rate * window_ms / 1000 samples, one
    every rate * hop_ms / 1000:

        x_n <- x_n - mean(x);  x_n <- x_n - c x_(n-1), with c = `pre_emphasis`
        x_n <- x_n (0.5 - 0.5 cos(2 pi n / (W - 1)))^0.85            (the "povey" window)
        P_k = |FFT(x)_k|^2, x padded with zeros to the next power of two
        frame_m = log(max(sum_k w_mk P_k, 1.19e-7))

    with triangles w_m of equal width on the scale mel(f) = 1127 log(1 + f / 700) between `low` and `high` Hz, each
    rising from the centre of the one before it and falling to that of the next, linear in mel. Source: Kaldi,
    feat/feature-window.cc and feat/mel-computations.cc, with their defaults. With `snip_edges` there are
    1 + (n - W) // hop frames, of whole windows only; without, one for each hop, and the signal is mirrored at its ends.
    A recording shorter than a window is padded with zeros to one.

    Frames are then normalised (`features/normalisation.py`). They are kept in memory up to `memory` MiB, then in a
    temporary file up to `disk` MiB, and what has no room is computed anew. Raises SettingError for settings that
    contradict each other.
    """

    def __init__(
        self,
        rate: Annotated[int, Ge(1000), Le(192_000)],
        window_ms: Positive,
        hop_ms: Positive,
        bins: Size,
        low: Weight,
        high: Positive | None,
        pre_emphasis: Fraction,
        dither: Weight,
        snip_edges: bool,
        loudness: Positive | None,
        normalisation: Kind,
        speeds: Speeds,
        memory: Weight,
        disk: Weight,
    ) -> None:
        self.rate, self.width, self.speeds = rate, bins, speeds
        self.window, self.hop = int(rate * window_ms / 1000), int(rate * hop_ms / 1000)
        if self.hop < 1 or self.window < 2:
            raise SettingError("hop_ms" if self.hop < 1 else "window_ms", "is less than one sample", "a longer one")
        if not low < (high or rate / 2) <= rate / 2:
            problem = f"must lie above {{here}}.low={low:g} and at most at half the rate, {rate / 2:g} Hz"
            raise SettingError("high" if high else "low", problem)
        if any(speed != 1 for speed in speeds):
            require_extra("speech", "speeds", "soxr")
        self.pre_emphasis, self.dither, self.snip_edges, self.loudness = pre_emphasis, dither, snip_edges, loudness
        self._shape = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / (self.window - 1))) ** 0.85
        self._size = 1 << (self.window - 1).bit_length()
        self._mel = mel_triangles(bins, rate, self._size, low, high or rate / 2).astype(np.float32)
        if not self._mel.any(1).all():
            problem = f"{bins} are too many: some would hold no frequency of a window of {window_ms:g} ms"
            raise SettingError("bins", problem, "fewer bins, or a longer {here}.window_ms")
        settings = {
            "rate": rate, "window_ms": window_ms, "hop_ms": hop_ms, "low": low, "high": high,
            "pre_emphasis": pre_emphasis, "snip_edges": snip_edges, "loudness": loudness,
        }  # fmt: skip
        self._normalised = Normalisation(normalisation, bins, "logmel", settings)
        self._store = FrameStore(memory, disk)

    def train(self, recordings: Iterable[Recording]) -> None:
        """Learns the mean and the standard deviation of each bin over the recordings of train, with
        normalisation=global; with others it reads none of them."""
        self._normalised.train(self._energies(each, 1.0) for each in recordings)
        self._store.clear()

    def frames(self, recording: Recording, speed: float = 1.0) -> np.ndarray:
        """Returns the frames [S, bins] float32 of a recording played `speed` times as fast, pitch included. They cannot
        be written to. Raises UserError where the recording cannot be read, or holds frames already."""
        return self._store.frames(recording, speed, self._computed)

    def save(self, directory: Path) -> None:
        """Writes features.json to `directory`, which is made where it is missing."""
        self._normalised.save(directory)

    def load(self, directory: Path) -> None:
        """Reads features.json of `directory`. Raises UserError where it is missing, damaged or of other features."""
        self._normalised.load(directory)
        self._store.clear()

    def _computed(self, recording: Recording, speed: float) -> np.ndarray:
        return self._normalised(self._energies(recording, speed))

    def _energies(self, recording: Recording, speed: float) -> np.ndarray:
        """Log-mel energies [S, bins] float32, not normalised."""
        sound = recording.read()
        if not isinstance(sound, Waveform):
            problem = "holds frames, which were computed earlier, and features=logmel reads sound"
            raise UserError(recording.name, problem, "features=mfcc, or audio in place of arrays")
        samples = resampled(sound, self.rate, speed).samples
        if self.loudness is not None:
            samples = loudness_changed(samples, self.loudness)
        if not len(samples):  # one sample at a high rate is none at a low one
            samples = np.zeros(1, dtype=np.float32)
        samples = samples * np.float32(FULL_SCALE)
        if self.dither:
            draws = generator(0, f"dither/{recording.name}/{float(speed)}")
            samples = samples + np.float32(self.dither) * torch.randn(len(samples), generator=draws).numpy()
        return self._log_mel(samples)

    def _log_mel(self, samples: np.ndarray) -> np.ndarray:
        windows = self._windows(samples)  # [S, W]
        windows = windows - windows.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
        emphasised = windows.copy()
        emphasised[:, 1:] -= np.float32(self.pre_emphasis) * windows[:, :-1]  # the window is 0 at the first
        emphasised *= self._shape.astype(np.float32)
        spectrum = torch.fft.rfft(torch.from_numpy(emphasised), self._size)  # numpy's takes two to four times as long
        power = (spectrum.real.square() + spectrum.imag.square()).numpy()
        energies: np.ndarray = np.log(np.maximum(power @ self._mel.T, np.float32(FLOOR)))
        return energies

    def _windows(self, samples: np.ndarray) -> np.ndarray:
        """Windows [S, W] of samples [n], overlapping views where `snip_edges` allows it."""
        if len(samples) < self.window and self.snip_edges:
            samples = np.pad(samples, (0, self.window - len(samples)))
        if self.snip_edges:
            return np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.hop]
        count = max(1, (len(samples) + self.hop // 2) // self.hop)
        starts = self.hop * np.arange(count) + self.hop // 2 - self.window // 2
        places = (starts[:, None] + np.arange(self.window)) % (2 * len(samples))  # mirrored, again and again
        windows: np.ndarray = samples[np.minimum(places, 2 * len(samples) - 1 - places)]
        return windows


def mel(hertz: np.ndarray | float) -> np.ndarray | float:
    """Returns 1127 log(1 + f / 700) of frequencies f [...] in Hz, in the same shape: the scale of O'Shaughnessy (1987)
    in natural logarithms, as Kaldi has it."""
    scaled: np.ndarray | float = 1127 * np.log1p(np.asarray(hertz) / 700)
    return scaled


def mel_triangles(bins: int, rate: int, size: int, low: float, high: float) -> np.ndarray:
    """Returns the weights [bins, size // 2 + 1] of the frequencies k * rate / size of a Fourier transform in triangles
    of equal width on the mel scale between `low` and `high` Hz."""
    edges = np.linspace(mel(low), mel(high), bins + 2)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    scale = mel(np.arange(size // 2 + 1) * rate / size)
    weights: np.ndarray = np.maximum(
        np.minimum((scale - left) / (centre - left), (right - scale) / (right - centre)), 0
    )
    return weights
