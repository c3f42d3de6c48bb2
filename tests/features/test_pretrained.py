"""Features of a checkpoint's extractor: those of transformers itself, without the silence up to 30 s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenrl_cli.features.pretrained import Pretrained
from tokenrl_cli.interfaces import Features, OfExtractor, Recording, UserError, Waveform

transformers = pytest.importorskip("transformers")


def place_of(folder: Path, kind: str) -> Path:
    """The directory of a checkpoint with an extractor, and a config alone."""
    folder.mkdir()
    if kind == "whisper":
        transformers.WhisperFeatureExtractor(feature_size=80, dither=0.1).save_pretrained(folder)
        transformers.WhisperConfig().save_pretrained(folder)
    else:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
        transformers.Wav2Vec2Config().save_pretrained(folder)
    return folder


def features(place: Path) -> Pretrained:
    made = Pretrained(str(place), [1.0], 64.0, 64.0, "features")
    made.train(())
    return made


def sound(count: int, rate: int = 16000, loud: float = 0.3) -> Recording:
    noise = loud * np.random.default_rng(count).standard_normal(count).astype(np.float32)
    noise[count // 3 : count // 2] *= 1e-3
    return Recording(f"{count}/{rate}/{loud}", lambda: Waveform(noise, rate))


@pytest.mark.parametrize("count", [1, 159, 160, 399, 16000, 47917, 479_900, 480_000])
@pytest.mark.parametrize("loud", [0.3, 1e-6])
def test_frames_of_whisper_are_those_of_its_extractor_and_what_is_left_out_is_silence(
    tmp_path: Path, count: int, loud: float
) -> None:
    """With the model's formula for silence; of sound so quiet, too, that no value lies 8 below the loudest."""
    made, recording = features(place_of(tmp_path / "at", "whisper")), sound(count, loud=loud)
    frames = made.frames(recording)
    samples: Any = recording.read()
    wanted = transformers.WhisperFeatureExtractor()(samples.samples, sampling_rate=16000)["input_features"][0].T
    assert frames.dtype == np.float32
    assert len(frames) == min(3000, -(-(count + 200) // 160))
    assert np.abs(frames - wanted[: len(frames)]).max() < 1e-5
    silence = max(frames.max() - 2.0, -1.5)
    assert len(wanted) == len(frames) or np.abs(wanted[len(frames) :] - silence).max() < 1e-6


def test_a_recording_beyond_30_seconds_has_all_its_frames(tmp_path: Path) -> None:
    assert len(features(place_of(tmp_path / "at", "whisper")).frames(sound(496_000))) == 3102


def test_frames_of_a_waveform_are_the_normalised_samples(tmp_path: Path) -> None:
    made, recording = features(place_of(tmp_path / "at", "wav2vec2")), sound(5000)
    frames, samples = made.frames(recording), recording.read()
    assert (made.width, frames.shape) == (1, (5000, 1))
    assert abs(frames.mean()) < 1e-4
    assert abs(frames.std() - 1) < 1e-3
    assert isinstance(samples, Waveform)
    wanted = transformers.Wav2Vec2FeatureExtractor()(samples.samples, sampling_rate=16000)["input_values"][0]
    assert np.abs(frames[:, 0] - wanted).max() < 1e-6


def test_other_rates_are_resampled(tmp_path: Path) -> None:
    pytest.importorskip("soxr")
    made = features(place_of(tmp_path / "at", "wav2vec2"))
    assert made.frames(sound(4000, rate=8000)).shape == (8000, 1)
    assert made.frames(sound(4000, rate=8000), 2.0).shape == (4000, 1)


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_saved_features_need_no_checkpoint(tmp_path: Path, kind: str) -> None:
    made = features(place_of(tmp_path / "at", kind))
    made.save(tmp_path / "saved")
    other = Pretrained("none", [1.0], 64.0, 64.0, "features")
    assert isinstance(other, Features)
    assert isinstance(other, OfExtractor)
    other.load(tmp_path / "saved")
    assert (other.width, other.extractor) == (made.width, made.extractor)
    assert other.frames(sound(3000)).tobytes() == made.frames(sound(3000)).tobytes()
    before = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
    other.save(tmp_path / "saved")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}


def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"features.path: .* has no feature extractor"):
        features(empty)
    with pytest.raises(UserError, match=r"preprocessor_config.json: .* has no feature extractor"):
        Pretrained("none", [1.0], 64.0, 64.0, "features").load(empty)
    transformers.ClapFeatureExtractor().save_pretrained(empty)
    with pytest.raises(UserError, match=r"is a ClapFeatureExtractor, which cannot be used"):
        features(empty)
    (empty / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match=r"features.path: the feature extractor of .* cannot be read"):
        features(empty)
    given = Recording("frames", lambda: np.zeros((3, 13), dtype=np.float32))
    with pytest.raises(UserError, match=r"frames: holds frames, .* features=pretrained reads sound"):
        features(place_of(tmp_path / "at", "whisper")).frames(given)
