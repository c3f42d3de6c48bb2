"""Reading audio: files of any format that libsndfile knows (wav, flac, ogg, mp3 ...), members of zip files, pieces of
long files, and files joined with silence between them; resampling, and loudness.

Samples are float32, full scale is -1 ... 1. Of several channels the mean is taken.
"""

from __future__ import annotations

import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tokenrl_cli.config.extras import require_extra
from tokenrl_cli.interfaces import Recording, UserError, Waveform

QUALITY = "HQ"  # of soxr, the resampler of the SoX program: its default, 20 bits of precision, linear phase
SILENT = 1e-4  # of full scale: a sound whose samples differ by less than this, three steps of 16 bits, is silent
BLOCK = 1 << 22  # samples that are read at once
LARGEST = 1 << 30  # bytes of a member of a zip file: what is larger is refused before it is unpacked
PAST = 0.05  # seconds that a piece may end past the end of its file: durations in manifests are rounded
UNKNOWN = 0xFFFFFFFF  # the length in the header of a wav file that was written before its length was known
CUT = "fetch or copy it again: a part is missing"
ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au")  # of the names of audio files


@dataclass(frozen=True)
class AudioFile:
    """A file with audio, or with `member` the file of that name in the zip file `path`."""

    path: Path
    member: str | None

    def __str__(self) -> str:
        return str(self.path if self.member is None else self.path / self.member)


@dataclass(frozen=True)
class Header:
    """What the header of an audio file says."""

    rate: int  # samples a second
    frames: int  # samples of each channel

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.frames / self.rate


def header(file: AudioFile) -> Header:
    """Returns what the header of a file says; its samples are not read. Raises UserError, which names the file, where
    it is missing, empty, not audio, has no samples, or is a wav file that holds less than its header says."""
    with _opened(file) as sound:
        return Header(sound.samplerate, sound.frames)


def read_audio(file: AudioFile, offset: float = 0.0, duration: float | None = None) -> Waveform:
    """Reads a file, or the piece of it that begins at `offset` and lasts `duration` seconds (None: to its end).

    A piece may end at most PAST (0.05 s) behind the end of the file, and is then shorter. Raises UserError, which names
    the file, where `header` does, and where the samples cannot be read, are fewer than the header says (which mp3 files
    do not say exactly), or are no finite numbers, or where the piece lies past the end.
    """
    with _opened(file) as sound:
        rate, total = sound.samplerate, sound.frames
        start, stop = piece(Header(rate, total), str(file), offset, duration)
        try:
            sound.seek(start)
            samples = _samples(sound, stop - start)
        except Exception as error:
            if not _of_soundfile(error):
                raise
            raise UserError(str(file), f"cannot be read to its end: {error}", CUT) from None
        if len(samples) < stop - start and (sound.format not in ("MP3", "MPEG") or not len(samples)):
            found = f"is cut short: {start + len(samples):,} samples of the {total:,} that its header says"
            raise UserError(str(file), found, CUT)
    if not np.isfinite(samples).all():
        raise UserError(str(file), "holds samples that are no finite numbers")
    return Waveform(np.ascontiguousarray(samples[:, 0] if samples.shape[1] == 1 else samples.mean(1)), rate)


def _samples(sound: Any, count: int) -> np.ndarray:
    """The next `count` samples of an open file [n, channels], fewer where it ends. They are read in blocks: a header
    may promise more than there is memory for."""
    blocks = [np.zeros((0, sound.channels), dtype=np.float32)]
    while count > 0:
        block = sound.read(min(count, BLOCK), dtype="float32", always_2d=True)
        blocks.append(block)
        count = count - len(block) if len(block) else 0
    return np.concatenate(blocks)


def recording_of(path: Path) -> Recording:
    """Returns the recording in an audio file, named by its path; the file is read when `Recording.read` is called."""
    return Recording(str(path), lambda: read_audio(AudioFile(path, None)))


def piece(header: Header, name: str, offset: float, duration: float | None) -> tuple[int, int]:
    """Returns the first sample of a piece of the file `name`, and the one after its last. Raises UserError where it has
    no sample, or ends more than PAST (0.05 s) behind the end of the file."""
    longest = 2 * header.seconds + 1  # beyond it nothing lies, and a product could be infinite
    start = round(min(offset, longest) * header.rate)
    stop = header.frames if duration is None else start + round(min(duration, longest) * header.rate)
    if start >= header.frames or stop > header.frames + PAST * header.rate or stop <= start:
        wanted = f"the piece at {offset:g} s" + ("" if duration is None else f" of {duration:g} s")
        raise UserError(name, f"lasts {header.seconds:.2f} s, and {wanted} does not lie within it")
    return start, min(stop, header.frames)


def joined(parts: Sequence[Waveform], gaps_ms: Sequence[float]) -> Waveform:
    """Returns waveforms one after another, with round(rate * ms / 1000) zeros between two of them; `gaps_ms` has one
    item less than `parts`. The rate is that of the first, and the others are resampled to it."""
    rate = parts[0].rate
    pieces = [parts[0].samples]
    for part, gap in zip(parts[1:], gaps_ms, strict=True):
        pieces += [np.zeros(round(rate * gap / 1000), dtype=np.float32), resampled(part, rate).samples]
    return Waveform(np.concatenate(pieces) if len(pieces) > 1 else pieces[0], rate)


def resampled(waveform: Waveform, rate: int, speed: float = 1.0) -> Waveform:
    """Returns a waveform at another rate, played `speed` times as fast, pitch included, by soxr with the quality "HQ".
    The same samples come back where nothing changes. Raises UserError where soxr is needed and not installed."""
    given = waveform.rate * speed
    if given == rate:
        return waveform
    require_extra("speech", "features.rate" if speed == 1 else "features.speeds", "soxr")
    import soxr

    samples = soxr.resample(waveform.samples, given, rate, quality=QUALITY).astype(np.float32, copy=False)
    return Waveform(samples, rate)


def loudness_changed(samples: np.ndarray, rms: float) -> np.ndarray:
    """Returns samples [n] float32 scaled so that their root mean square is `rms`, 1 being full scale; peaks may pass
    it. Samples that are all 0 come back as they are."""
    now = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    return samples if now == 0 else samples * np.float32(rms / now)


def require_sound(waveform: Waveform, name: str) -> None:
    """Raises UserError where a sound is silent: its samples are all equal, or differ by less than SILENT (1e-4 of full
    scale)."""
    samples = waveform.samples
    if len(samples) == 0 or float(samples.max() - samples.min()) < SILENT:
        raise UserError(name, f"is silent: its samples differ by less than {SILENT:g} of full scale")


# ---------------------------------------------------------------------------------------------------- opening a file


@contextmanager
def _opened(file: AudioFile) -> Iterator[Any]:
    """An open soundfile.SoundFile. Raises UserError as `header` says."""
    require_extra("speech", str(file), "soundfile")
    import soundfile

    with _stream(file) as stream:
        size = stream.seek(0, os.SEEK_END)
        if size == 0:
            raise UserError(str(file), "is empty: expected audio", CUT)
        stream.seek(0)
        missing = _missing(stream, size)
        if missing:
            raise UserError(str(file), f"is cut short: {missing:,} bytes that its header says are missing", CUT)
        stream.seek(0)
        try:
            sound = soundfile.SoundFile(stream)
        except soundfile.LibsndfileError as error:
            problem = f"is no audio that can be read: {error.error_string}"
            raise UserError(str(file), problem, "wav, flac, ogg and mp3 are read") from None
        with sound:
            if sound.frames < 1:
                raise UserError(str(file), "holds no sound: its header says 0 samples")
            yield sound


def _of_soundfile(error: Exception) -> bool:
    import soundfile

    return isinstance(error, soundfile.SoundFileError)


@contextmanager
def _stream(file: AudioFile) -> Iterator[BinaryIO]:
    """The bytes of a file. A zip file stays open, for the next of its members."""
    if file.member is not None:
        yield io.BytesIO(_member(file.path, file.member))
        return
    try:
        stream = file.path.open("rb")
    except FileNotFoundError:
        raise UserError(str(file), "there is no such file") from None
    except ValueError:  # of a name with a NUL byte
        raise UserError(repr(str(file)), "is no name of a file") from None
    except OSError as error:
        raise UserError(str(file), f"cannot be read: {error.strerror or error}") from None
    with stream:
        yield stream


def _member(path: Path, member: str) -> bytes:
    try:
        archive = _archive(path, os.getpid())
        if (size := archive.getinfo(member).file_size) > LARGEST:
            raise UserError(f"{path}/{member}", f"is {size:,} bytes when unpacked, more than {LARGEST:,}", "unpack it")
        return archive.read(member)
    except KeyError:
        raise UserError(f"{path}/{member}", f"there is no {member} in the zip file") from None
    except FileNotFoundError:
        raise UserError(str(path), "there is no such file") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{path}/{member}", f"cannot be unpacked: {error}", "fetch or pack the zip file again"
        ) from None
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=8)
def _archive(path: Path, _process: int) -> zipfile.ZipFile:
    """An open zip file, one for each process: forked ones would share its position in the file."""
    return zipfile.ZipFile(path)


def _missing(stream: BinaryIO, size: int) -> int:
    """How many bytes a wav file of `size` bytes lacks of what its header says; 0 for other formats. libsndfile itself
    reads what there is, without a word."""
    start = stream.read(12)
    if start[:4] != b"RIFF" or start[8:12] != b"WAVE":
        return 0
    place = 12
    while place + 8 <= size:
        stream.seek(place)
        kind, length = struct.unpack("<4sI", stream.read(8))
        if kind == b"data":
            return 0 if length == UNKNOWN else max(0, place + 8 + int(length) - size)
        place += 8 + length + length % 2
    return max(1, place - size)
