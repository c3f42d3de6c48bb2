from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kaldi_native_fbank
import numpy as np
import pytest

from tests.sounds import logmel, noise, recording
from tokenrl_cli.features.logmel import mel_triangles
from tokenrl_cli.interfaces import Features, Recording, SettingError, UserError, Waveform


def kaldi(samples: np.ndarray, rate: int, bins: int, low: float, high: float, hop_ms: float, snip: bool) -> np.ndarray:
    """Log-mel energies of Kaldi's own code."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.frame_shift_ms = hop_ms
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = snip
    options.mel_opts.num_bins = bins
    options.mel_opts.low_freq, options.mel_opts.high_freq = low, high
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(rate, (samples * 32768).tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


@pytest.mark.parametrize(
    ("rate", "bins", "low", "high", "hop_ms", "snip"),
    [
        (8000, 20, 20.0, None, 10.0, True),
        (8000, 40, 20.0, None, 10.0, False),
        (16000, 80, 20.0, 7600.0, 10.0, True),
        (16000, 40, 0.0, 8000.0, 12.5, False),
        (11025, 23, 64.0, 4000.0, 10.0, True),
    ],
)
def test_frames_are_those_of_kaldi(
    rate: int, bins: int, low: float, high: float | None, hop_ms: float, snip: bool
) -> None:
    samples = noise(0.5, rate)
    settings: dict[str, Any] = {"bins": bins, "low": low, "high": high, "hop_ms": hop_ms, "snip_edges": snip}
    found = logmel(rate=rate, **settings).frames(recording(samples, rate))
    expected = kaldi(samples, rate, bins, low, high or 0.0, hop_ms, snip)
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_other_pre_emphasis_and_windows_are_kaldis_too() -> None:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither = 8000, 0
    options.frame_opts.preemph_coeff, options.frame_opts.frame_length_ms = 0.5, 40.0
    options.mel_opts.num_bins = 20
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(8000, (noise() * 32768).tolist())
    found = logmel(pre_emphasis=0.5, window_ms=40.0).frames(recording(noise()))
    np.testing.assert_allclose(found[3], computer.get_frame(3), atol=1e-4)


def test_silence_is_the_floor_of_energy() -> None:
    found = logmel().frames(recording(np.zeros(800, np.float32)))
    np.testing.assert_allclose(found, np.log(np.finfo(np.float32).eps))


@pytest.mark.parametrize(("samples", "snip", "frames"), [(1, True, 1), (1, False, 1), (200, True, 1), (280, True, 2)])
def test_a_short_recording_has_at_least_one_frame(samples: int, snip: bool, frames: int) -> None:
    found = logmel(snip_edges=snip).frames(recording(np.full(samples, 0.5, np.float32)))
    assert found.shape == (frames, 20)
    assert np.isfinite(found).all()


def test_triangles_meet_at_their_centres() -> None:
    weights = mel_triangles(20, 16000, 512, 20.0, 8000.0)
    inner = weights[:, weights.argmax(1).min() + 1 : weights.argmax(1).max()]
    np.testing.assert_allclose(inner.sum(0), 1)


# ------------------------------------------------------------------------------------------------- what is done before


def test_noise_belongs_to_the_name_of_a_recording() -> None:
    samples = noise()
    quiet, noisy = logmel().frames(recording(samples)), logmel(dither=50.0).frames(recording(samples))
    assert np.abs(quiet - noisy).max() > 0.01
    np.testing.assert_array_equal(noisy, logmel(dither=50.0).frames(recording(samples)))
    other = logmel(dither=50.0).frames(recording(samples, name="b"))
    assert np.abs(other - noisy).max() > 0.01


def test_loudness_makes_loud_and_quiet_recordings_alike() -> None:
    samples = noise(loud=0.5)
    features = logmel(loudness=0.1)
    loud, quiet = features.frames(recording(samples)), features.frames(recording(samples / 8, name="b"))
    np.testing.assert_allclose(loud, quiet, atol=1e-4)
    assert np.abs(logmel().frames(recording(samples / 8)) - logmel().frames(recording(samples))).min() > 4


def test_another_rate_is_resampled_and_speed_shortens() -> None:
    features = logmel(speeds=[0.8, 1.0])
    assert len(features.frames(recording(noise(1.0, 16000), 16000))) == 98
    assert len(features.frames(recording(noise(1.0)), 0.8)) == 123
    assert len(features.frames(recording(noise(1.0)), 1.25)) == 78


def test_frames_that_are_given_are_refused() -> None:
    with pytest.raises(UserError, match=r"a: holds frames(.|\n)*features=mfcc"):
        logmel().frames(Recording("a", lambda: np.zeros((3, 20), np.float32)))


# ---------------------------------------------------------------------------------------- normalised, saved and stored


def test_an_utterance_is_normalised_by_itself() -> None:
    found = logmel(normalisation="utterance").frames(recording(noise()))
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-4)


def test_mean_and_deviation_of_train_are_saved(tmp_path: Path) -> None:
    recordings = [recording(noise(seed=i), name=str(i)) for i in range(3)]
    features = logmel(normalisation="global")
    assert isinstance(features, Features)
    features.frames(recordings[0])  # with another mean: not used any more after `train`
    features.train(iter(recordings))
    plain = np.concatenate([logmel().frames(each) for each in recordings])
    expected = (plain - plain.mean(0)) / plain.std(0)
    found = np.concatenate([features.frames(each) for each in recordings])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    features.save(tmp_path / "new")
    loaded = logmel(normalisation="global")
    before = loaded.frames(recordings[0])
    loaded.load(tmp_path / "new")
    np.testing.assert_array_equal(loaded.frames(recordings[0]), features.frames(recordings[0]))
    assert np.abs(before - loaded.frames(recordings[0])).max() > 1, "frames of before are not used any more"
    features.save(tmp_path / "again")
    assert (tmp_path / "new/features.json").read_bytes() == (tmp_path / "again/features.json").read_bytes()


def test_without_global_normalisation_train_reads_nothing() -> None:
    def never() -> Waveform:
        raise AssertionError

    logmel(normalisation="utterance").train([Recording("a", never)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "cannot be read"),
        ("{", "is damaged"),
        ("[]", "is damaged: expected a JSON object"),
        ({"width": 21}, "is of other features"),
        ({"features": "mfcc"}, 'is of other features: its features is "mfcc"'),
        ({"rate": 16000}, "is of other features: its rate is 16000, expected 8000\n  features.rate=16000"),
        ({"hop_ms": 20.0}, "is of other features: its hop_ms is 20.0"),
        ({"loudness": 0.1}, "is of other features: its loudness is 0.1"),
        ({"mean": [0.0]}, "expected 20 numbers under 'mean'"),
        ({"deviation": [0.0] * 20}, "not above 0"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    features = logmel(normalisation="global")
    features.save(tmp_path)
    path = tmp_path / "features.json"
    if change is None:
        path.unlink()
    else:
        good = json.loads(path.read_text("utf-8"))
        path.write_text(change if isinstance(change, str) else json.dumps(good | change), "utf-8")
    with pytest.raises(UserError, match=rf"features\.json: .*{message}"):
        features.load(tmp_path)


@pytest.mark.parametrize(("memory", "disk", "reads"), [(1.0, 0.0, 1), (0.0, 1.0, 1), (0.0, 0.0, 3)])
def test_frames_are_computed_once_where_there_is_room(memory: float, disk: float, reads: int) -> None:
    calls: list[int] = []

    def read() -> Waveform:
        calls.append(1)
        return Waveform(noise(), 8000)

    features = logmel(memory=memory, disk=disk, dither=1.0)
    found = [features.frames(Recording("a", read)) for _ in range(3)]
    assert len(calls) == reads
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    with pytest.raises(ValueError, match="read-only"):
        found[0][0, 0] = 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"bins": 120}, "bins"),
        ({"high": 5000.0}, "high"),
        ({"low": 4000.0}, "low"),
        ({"low": 300.0, "high": 200.0}, "high"),
        ({"hop_ms": 0.1}, "hop_ms"),
        ({"window_ms": 0.1}, "window_ms"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change: dict[str, Any], key: str) -> None:
    with pytest.raises(SettingError) as error:
        logmel(**change)
    assert error.value.where == key


def test_a_sound_of_which_resampling_leaves_nothing_is_one_frame() -> None:
    assert logmel(snip_edges=False).frames(recording(np.full(1, 0.5, np.float32), rate=48_000)).shape == (1, 20)
