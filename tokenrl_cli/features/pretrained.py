"""What the feature extractor of a pretrained checkpoint for speech computes, by `transformers` itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tokenrl_cli import hub
from tokenrl_cli.config.extras import require_extra
from tokenrl_cli.config.ranges import Speeds, Text, Weight
from tokenrl_cli.data.audio import resampled
from tokenrl_cli.data.frames import FrameStore
from tokenrl_cli.interfaces import Recording, SettingError, UserError, Waveform

FILE = hub.EXTRACTORS[0]
MELS, WAVES = "WhisperFeatureExtractor", "Wav2Vec2FeatureExtractor"  # the classes that can be used


class Pretrained:
    """The frames [S, F] that a pretrained checkpoint for speech reads, of a waveform at the rate of its extractor.

    Of Whisper these are log-mel energies, F = 80 or 128, one frame every 10 ms. The extractor computes them of the
    recording with silence up to 30 s; here the S frames are kept whose windows touch the recording, and the others,
    which are all equal, are not computed: `model=hf_speech` puts them back. The frames kept are those of the extractor
    but for rounding. Noise that the extractor would draw (`dither`) is switched off. A recording of more than 30 s
    has all its frames.

    Of wav2vec2 and HuBERT a frame is one sample, F = 1, normalised as the checkpoint says (`do_normalize`).

    Nothing is read before `train` or `load`: until then `width` is 0 and `extractor` is "". `here` is the path of the
    block in the config. Frames are kept within `memory` and `disk` (MiB), as in LogMel.
    """

    def __init__(
        self,
        path: Text,
        speeds: Speeds,
        memory: Weight,
        disk: Weight,
        here: str,
    ) -> None:
        require_extra("hf", "path", "transformers")
        self.path, self.speeds, self.here = path, speeds, here
        self.width, self.extractor = 0, ""
        self._engine: Any = None
        self._store = FrameStore(memory, disk)

    def train(self, recordings: Iterable[Recording]) -> None:
        """Reads the extractor of the checkpoint at `path`, which is downloaded where it is a name on the hub, and none
        of the recordings. Raises UserError where the checkpoint has no extractor that can be used."""
        try:
            self._assign(hub.feature_extractor(hub.directory(self.path, "path"), "path"), self.path)
        except SettingError as error:
            raise error.placed(self.here, "features") from None

    def _assign(self, engine: Any, shown: str) -> None:
        name = type(engine).__name__
        if name not in (MELS, WAVES):
            problem = f"the feature extractor of {shown} is a {name}, which cannot be used"
            raise SettingError("path", problem, "choose a checkpoint of Whisper, wav2vec2 or HuBERT")
        self.extractor, self.width, self._engine = name, engine.feature_size, engine
        self._store.clear()
        if name == MELS:
            engine.dither = 0.0

    def frames(self, recording: Recording, speed: float = 1.0) -> np.ndarray:
        """Returns the frames [S, F] float32 of a recording played `speed` times as fast, pitch included. They cannot be
        written to. Raises UserError where the recording cannot be read, or holds frames already."""
        if self._engine is None:
            self.train(())
        return self._store.frames(recording, speed, self._computed)

    def _computed(self, recording: Recording, speed: float) -> np.ndarray:
        sound = recording.read()
        if not isinstance(sound, Waveform):
            problem = "holds frames, which were computed earlier, and features=pretrained reads sound"
            raise UserError(recording.name, problem, "features=mfcc, or audio in place of arrays")
        rate = self._engine.sampling_rate
        samples = resampled(sound, rate, speed).samples
        if self.extractor == MELS:
            return self._mels(samples)
        values = self._engine(samples, sampling_rate=rate, return_tensors="np")["input_values"][0]
        return np.array(values, dtype=np.float32).reshape(-1, 1)

    def _mels(self, samples: np.ndarray) -> np.ndarray:
        """Window t covers the samples from t * hop - n_fft / 2 on, n_fft of them; past the end they are silence."""
        engine, count = self._engine, len(samples)
        hop, window = engine.hop_length, engine.n_fft
        length = hop * math.ceil((count + window) / hop)  # the last window that is kept meets no end
        if count <= engine.n_samples:
            length = min(length, engine.n_samples)
        kept = min(math.ceil((count + window / 2) / hop), length // hop)
        options = {"padding": "max_length", "max_length": length, "return_tensors": "np"}
        features = engine(samples, sampling_rate=engine.sampling_rate, **options)["input_features"][0]  # [F, length]
        return np.ascontiguousarray(features.T[:kept], dtype=np.float32)

    def save(self, directory: Path) -> None:
        """Writes the settings of the extractor to preprocessor_config.json in `directory`, which is made where it is
        missing: so a saved run does not need the checkpoint's. Reads the extractor first, if nothing did before."""
        if self._engine is None:
            self.train(())
        directory.mkdir(parents=True, exist_ok=True)
        (directory / FILE).write_text(self._engine.to_json_string(), "utf-8")

    def load(self, directory: Path) -> None:
        """Replaces the extractor by the one that `save` wrote to `directory`; `path` is not read. Raises UserError
        where the file is missing or damaged, or describes an extractor that cannot be used."""
        try:
            self._assign(hub.feature_extractor(directory, "path"), str(directory))
        except SettingError as error:
            raise UserError(str(directory / FILE), error.problem, "use another checkpoint") from None
