from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.sounds import noise, written
from tokenrl_cli.data.audio import (
    AudioFile,
    Header,
    header,
    joined,
    loudness_changed,
    read_audio,
    require_sound,
    resampled,
)
from tokenrl_cli.interfaces import UserError, Waveform


def plain(path: Path) -> AudioFile:
    return AudioFile(path, None)


@pytest.mark.parametrize(("name", "exact"), [("a.wav", True), ("a.flac", True), ("a.ogg", False), ("a.mp3", False)])
def test_every_format_is_read(tmp_path: Path, name: str, exact: bool) -> None:
    seconds = np.arange(8000) / 8000
    samples = (0.3 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)
    samples = np.round(samples * 32768).astype(np.float32) / 32768
    sound = read_audio(plain(written(tmp_path / name, samples)))
    assert sound.rate == 8000
    assert sound.samples.dtype == np.float32
    assert sound.samples.ndim == 1
    if exact:
        np.testing.assert_array_equal(sound.samples, samples)
    else:  # a lossy format: nearly the same loudness, and nearly as long
        assert np.sqrt(np.mean(sound.samples**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)
        assert abs(len(sound.samples) - 8000) < 2000


def test_a_header_that_promises_more_than_memory_holds_is_read_as_far_as_there_is_sound(tmp_path: Path) -> None:
    """The 36 bits of the number of samples in the header of a flac file, all of them 1."""
    path = written(tmp_path / "a.flac")
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.flac: (is cut short|cannot be read to its end)"):
        read_audio(plain(path))


def test_a_member_that_would_fill_the_memory_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(100_000))
    monkeypatch.setattr("tokenrl_cli.data.audio.LARGEST", 99_999)
    with pytest.raises(UserError, match=r"a\.wav: is 100,000 bytes when unpacked"):
        read_audio(AudioFile(tmp_path / "a.zip", "a.wav"))


def test_channels_are_averaged(tmp_path: Path) -> None:
    both = np.stack([noise(seed=1), noise(seed=2)], 1)
    sound = read_audio(plain(written(tmp_path / "a.wav", both)))
    np.testing.assert_allclose(sound.samples, both.mean(1), atol=1e-7)


def test_a_piece_is_read(tmp_path: Path) -> None:
    samples = noise(1.0)
    file = plain(written(tmp_path / "a.wav", samples))
    np.testing.assert_array_equal(read_audio(file, 0.25, 0.5).samples, samples[2000:6000])
    np.testing.assert_array_equal(read_audio(file, 0.75).samples, samples[6000:])
    np.testing.assert_array_equal(read_audio(file, 0.75, 0.29).samples, samples[6000:])  # rounded in a manifest


@pytest.mark.parametrize(("offset", "duration"), [(1.0, None), (0.5, 0.6), (0.5, 0.0), (3.0, 0.1)])
def test_a_piece_outside_the_file_is_refused(tmp_path: Path, offset: float, duration: float | None) -> None:
    with pytest.raises(UserError, match=r"a\.wav: lasts 1\.00 s, and the piece at .* does not lie within it"):
        read_audio(plain(written(tmp_path / "a.wav", noise(1.0))), offset, duration)


def test_a_member_of_a_zip_is_read(tmp_path: Path) -> None:
    written(tmp_path / "a.wav")
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.wav", "deep/a.wav")
    np.testing.assert_array_equal(read_audio(AudioFile(tmp_path / "z.zip", "deep/a.wav")).samples, noise())
    with pytest.raises(UserError, match=r"z\.zip/b\.wav: there is no b\.wav in the zip file"):
        header(AudioFile(tmp_path / "z.zip", "b.wav"))
    damaged = bytearray((tmp_path / "z.zip").read_bytes())
    damaged[300:340] = bytes(40)
    (tmp_path / "y.zip").write_bytes(damaged)
    with pytest.raises(UserError, match="cannot be unpacked"):
        read_audio(AudioFile(tmp_path / "y.zip", "deep/a.wav"))
    (tmp_path / "x.zip").write_bytes(b"no zip file at all")
    with pytest.raises(UserError, match="cannot be unpacked"):
        read_audio(AudioFile(tmp_path / "x.zip", "deep/a.wav"))


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "there is no such file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "cut short": (half, r"is cut short: 2,\d\d\d bytes that its header says are missing"),
    "cut in its header": (lambda path: path.write_bytes(path.read_bytes()[:20]), "is cut short"),
    "not audio": (lambda path: path.write_text("id\taudio\n" * 99), "is no audio that can be read"),
    "no samples": (lambda path: written(path, noise()[:0]), "holds no sound"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_wav_is_refused_by_its_header(tmp_path: Path, fault: str) -> None:
    path = written(tmp_path / "a.wav")
    assert header(plain(path)) == Header(8000, 2400)
    spoil, message = FAULTS[fault]
    spoil(path)
    with pytest.raises(UserError, match=rf"a\.wav: {message}"):
        header(plain(path))


def test_a_flac_that_is_cut_short_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.flac", noise(2.0))
    half(path)
    with pytest.raises(UserError, match=r"a\.flac: (is cut short|cannot be read to its end)"):
        read_audio(plain(path))


def test_a_wav_of_unknown_length_is_read(tmp_path: Path) -> None:
    """Programs that write to a pipe cannot go back to their header."""
    path = written(tmp_path / "a.wav")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = b"\xff" * 4
    path.write_bytes(content)
    np.testing.assert_array_equal(read_audio(plain(path)).samples, noise())


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    samples = noise()
    samples[7] = np.nan
    with pytest.raises(UserError, match="no finite numbers"):
        read_audio(plain(written(tmp_path / "a.wav", samples, subtype="FLOAT")))


@pytest.mark.parametrize(
    ("samples", "silent"), [(np.zeros(9), True), (np.full(9, 0.5), True), (noise(loud=0.001), False)]
)
def test_silence_is_found(samples: np.ndarray, silent: bool) -> None:
    waveform = Waveform(samples.astype(np.float32), 8000)
    if silent:
        with pytest.raises(UserError, match="a: is silent"):
            require_sound(waveform, "a")
    else:
        require_sound(waveform, "a")


def test_files_are_joined_with_zeros_between_them() -> None:
    one, two = Waveform(noise(seed=1), 8000), Waveform(noise(seed=2), 8000)
    found = joined([one, two, one], [20.06, 0])
    np.testing.assert_array_equal(found.samples, np.concatenate([one.samples, np.zeros(160), two.samples, one.samples]))
    assert len(joined([one, Waveform(noise(0.2, 16000), 16000)], [0]).samples) == 2400 + 1600


def test_resampling_keeps_a_tone_and_speed_raises_it() -> None:
    tone = np.sin(2 * np.pi * 500 * np.arange(16000) / 16000).astype(np.float32)

    def pitch(waveform: Waveform) -> float:
        spectrum = np.abs(np.fft.rfft(waveform.samples))
        return float(spectrum.argmax() * waveform.rate / len(waveform.samples))

    given = Waveform(tone, 16000)
    assert resampled(given, 16000) is given
    slower = resampled(given, 8000)
    assert (slower.rate, len(slower.samples), slower.samples.dtype) == (8000, 8000, np.float32)
    assert pitch(slower) == pytest.approx(500, abs=1)
    faster = resampled(given, 16000, 1.25)
    assert len(faster.samples) == 12800
    assert pitch(faster) == pytest.approx(625, abs=2)


def test_loudness_is_a_root_mean_square() -> None:
    found = loudness_changed(noise(), 0.1)
    assert np.sqrt(np.mean(found**2)) == pytest.approx(0.1, rel=1e-5)
    assert loudness_changed(np.zeros(4, np.float32), 0.1).tolist() == [0.0] * 4
