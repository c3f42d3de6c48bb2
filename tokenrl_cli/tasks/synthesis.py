"""A small speech synthesiser: the ten digits, spoken by several voices, as samples. It sounds like a robot, and needs
numpy alone.

The method is the source-filter model of speech (Fant 1960, Acoustic Theory of Speech Production): a source, which is a
train of pulses at the pitch where the phone is voiced and noise where it is not, passes through a filter whose
resonances are the formants. A word is a sequence of phones with target values, as in the synthesiser of Klatt (1980,
Journal of the Acoustical Society of America 67), and all values move from one target to the next, so that neighbours
change each other. The filter is applied to short overlapping frames by their Fourier transform: no loop runs over
samples.

Formants of vowels are the means of men measured by Peterson and Barney (1952, Journal of the Acoustical Society of
America 24, table II); those of consonants are close to the tables of Klatt (1980). A voice multiplies them by one
factor, which stands for the length of its vocal tract.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

RATE = 8000  # samples a second
HOP = 64  # samples between frames, 8 ms
WINDOW = 2 * HOP  # samples of a frame: two Hann windows that overlap by half sum to 1
TRANSFORM = 4 * HOP  # points of the Fourier transform: the rest has room for the response of the filter
FREQUENCIES = np.fft.rfftfreq(TRANSFORM, 1 / RATE).astype(np.float32)  # [129] Hz
COSINES = np.cos(2 * np.pi * FREQUENCIES / RATE)
POWERS = np.stack([np.ones_like(COSINES), COSINES, COSINES**2])  # [3, 129]
WEIGHTS = (np.sin(np.pi * np.arange(WINDOW) / WINDOW) ** 2).astype(np.float32)  # the Hann window
BANDWIDTHS = (80.0, 100.0, 140.0)  # Hz, of the three formants; a fourth one would lie above RATE / 2 for some voices
TILT = 600.0  # Hz, above which the spectrum of the voiced source falls by 6 dB an octave
MOVING = 0.4  # share of a phone at its start, and at its end, in which formants move
FADING = 0.25  # the same for the loudness of the sources


@dataclass(frozen=True)
class Phone:
    """Target values of a phone."""

    formants: tuple[float, float, float]  # Hz
    seconds: float  # at a speed of 1
    voiced: float = 1.0  # amplitude of the pulses
    noise: float = 0.0  # amplitude of the noise
    centre: float = 0.0  # Hz, middle of the noise band
    width: float = 1.0  # Hz, standard deviation of the noise band


PHONES = {
    "i": Phone((270, 2290, 3010), 0.11),
    "I": Phone((390, 1990, 2550), 0.09),
    "E": Phone((530, 1840, 2480), 0.10),
    "A": Phone((730, 1090, 2440), 0.11),
    "V": Phone((640, 1190, 2390), 0.11),
    "O": Phone((570, 840, 2410), 0.11),
    "U": Phone((440, 1020, 2240), 0.09),
    "u": Phone((300, 870, 2240), 0.15),
    "r": Phone((310, 1060, 1380), 0.08, voiced=0.7),
    "w": Phone((290, 610, 2150), 0.08, voiced=0.6),
    "n": Phone((280, 1340, 2470), 0.09, voiced=0.45),
    "v": Phone((220, 1100, 2080), 0.07, voiced=0.35, noise=0.12, centre=2500, width=1500),
    "z": Phone((240, 1390, 2530), 0.09, voiced=0.3, noise=0.5, centre=3700, width=700),
    "s": Phone((320, 1390, 2530), 0.11, voiced=0.0, noise=0.9, centre=3800, width=600),
    "f": Phone((340, 1100, 2080), 0.10, voiced=0.0, noise=0.2, centre=2800, width=1600),
    "T": Phone((320, 1290, 2540), 0.09, voiced=0.0, noise=0.14, centre=3200, width=1400),
    "t-": Phone((400, 1600, 2600), 0.05, voiced=0.0),  # the closure of a stop, and its burst
    "t": Phone((400, 1600, 2600), 0.03, voiced=0.0, noise=0.9, centre=3300, width=900),
    "k-": Phone((300, 1990, 2850), 0.06, voiced=0.0),
    "k": Phone((300, 1990, 2850), 0.03, voiced=0.0, noise=0.8, centre=2000, width=400),
    " ": Phone((500, 1500, 2500), 0.0, voiced=0.0),  # a pause
}

WORDS = {
    "zero": ("z", "I", "r", "O", "U"),
    "one": ("w", "V", "n"),
    "two": ("t-", "t", "u"),
    "three": ("T", "r", "i"),
    "four": ("f", "O", "r"),
    "five": ("f", "A", "I", "v"),
    "six": ("s", "I", "k-", "k", "s"),
    "seven": ("s", "E", "v", "E", "n"),
    "eight": ("E", "I", "t-", "t"),
    "nine": ("n", "A", "I", "n"),
}


@dataclass(frozen=True)
class Voice:
    """Who speaks."""

    pitch: float  # Hz, on average
    tract: float  # factor of all formants: above 1 for a vocal tract shorter than that of men on average
    breath: float  # amplitude of the noise in voiced phones, relative to the pulses
    speed: float  # factor; 2 speaks twice as fast


VOICES = (
    Voice(105, 0.96, 0.02, 0.95),
    Voice(118, 1.00, 0.05, 1.05),
    Voice(134, 1.03, 0.02, 1.15),
    Voice(152, 0.98, 0.08, 0.90),
    Voice(185, 1.12, 0.06, 1.00),
    Voice(205, 1.16, 0.03, 1.10),
    Voice(222, 1.10, 0.10, 0.95),
    Voice(255, 1.22, 0.08, 1.10),  # as of a child: outside the range of the others
)


@dataclass(frozen=True)
class Utterance:
    """Everything that was drawn of an utterance; `sound` makes its samples, the same ones at each call."""

    phones: tuple[str, ...]
    seconds: tuple[float, ...]  # of each phone
    jitter: tuple[float, ...]  # factor of the formants of each phone
    pitches: tuple[float, ...]  # Hz, at the middle of each phone
    voice: Voice
    noise: float  # dB, ratio of the power of speech to that of the background noise
    colour: float  # -1 to 1: the background noise is the louder at high frequencies, or at low ones
    peak: float  # the largest absolute value of the samples, at most 1
    seed: int  # of all noise

    @property
    def samples(self) -> int:
        """Number of samples, a multiple of HOP."""
        return HOP * round(sum(self.seconds) * RATE / HOP)


def spoken(words: Sequence[str], voice: Voice, noise: float, draws: Random) -> Utterance:
    """Returns one way of saying words, keys of WORDS, at least one of them. Drawn at random are speed, length and
    formants of each phone, melody, loudness and pauses, of which there may be none between two words. `noise` is the
    ratio of the power of speech to that of the background noise in dB."""
    speed = voice.speed * draws.uniform(0.85, 1.2)
    level, fall = voice.pitch * draws.uniform(0.9, 1.1), draws.uniform(0.0, 0.25)
    phones, seconds, accents = [" "], [draws.uniform(0.06, 0.2)], [1.0]
    for i, word in enumerate(words):
        if i and draws.random() < 0.6:
            phones.append(" ")
            seconds.append(draws.uniform(0.02, 0.15))
            accents.append(1.0)
        stretch, accent = draws.uniform(0.8, 1.2) / speed, draws.uniform(0.9, 1.15)
        for name in WORDS[word]:
            phones.append(name)
            seconds.append(PHONES[name].seconds * stretch * draws.uniform(0.8, 1.25))
            accents.append(accent * draws.uniform(0.97, 1.03))
    phones.append(" ")
    seconds.append(draws.uniform(0.06, 0.2))
    accents.append(1.0)
    count = len(phones)
    return Utterance(
        tuple(phones),
        tuple(seconds),
        tuple(draws.uniform(0.94, 1.06) for _ in phones),
        tuple(level * accent * (1 - fall * i / count) for i, accent in enumerate(accents)),
        voice,
        noise,
        draws.uniform(-0.5, 0.9),
        draws.uniform(0.1, 0.9),
        draws.getrandbits(63),
    )


def sound(utterance: Utterance) -> np.ndarray:
    """Returns the samples [utterance.samples] float32 of an utterance at RATE, within -peak and peak."""
    draws = Random(utterance.seed)
    samples = utterance.samples
    frames = samples // HOP + 1
    tracks = _tracks(utterance, np.arange(frames) * HOP / RATE)
    voiced, rough = _filters(tracks, utterance.voice)
    pulses = _pulses(np.repeat(tracks.pitch, HOP)[:samples])
    spectrum = _frames(pulses, frames) * voiced + _frames(_noise(samples, draws), frames) * rough
    speech = _added(spectrum, samples)
    background = _noise(samples + 1, draws)
    background = background[1:] + utterance.colour * background[:-1]
    background *= np.sqrt(np.mean(speech**2) / np.mean(background**2)) * 10 ** (-utterance.noise / 20)
    mixed = speech + background
    loud: np.ndarray = (mixed * (utterance.peak / np.abs(mixed).max())).astype(np.float32)
    return loud


@dataclass(frozen=True)
class _Tracks:
    """Values over time, one for each of n frames."""

    formants: np.ndarray  # [n, 3] Hz
    pitch: np.ndarray  # [n] Hz
    voiced: np.ndarray  # [n] amplitudes
    noise: np.ndarray  # [n]
    centre: np.ndarray  # [n] Hz
    width: np.ndarray  # [n] Hz


def _tracks(utterance: Utterance, times: np.ndarray) -> _Tracks:
    """Values at `times` in seconds: constant in the middle of each phone, and moving in a line between these."""
    lengths = np.array(utterance.seconds)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    targets = [PHONES[name] for name in utterance.phones]
    # A phone without noise has no band: the band stays where its neighbours have it, or it would sweep up from 0 Hz.
    noisy = [i for i, target in enumerate(targets) if target.noise] or [0]

    def track(values: Sequence[float] | np.ndarray, moving: float, phones: Sequence[int] | slice) -> np.ndarray:
        first, last = (starts + moving * lengths)[phones], (ends - moving * lengths)[phones]
        known = np.asarray(values, dtype=np.float64)[phones]
        moved: np.ndarray = np.interp(times, np.stack([first, last], 1).reshape(-1), np.repeat(known, 2))
        return moved

    whole = slice(None)
    jitter = np.array(utterance.jitter)
    formants = [track(jitter * [target.formants[i] for target in targets], MOVING, whole) for i in range(3)]
    return _Tracks(
        np.stack(formants, 1) * utterance.voice.tract,
        track(utterance.pitches, 0.5, whole),
        track([target.voiced for target in targets], FADING, whole),
        track([target.noise for target in targets], FADING, whole),
        track([target.centre for target in targets], FADING, noisy),
        track([target.width for target in targets], FADING, noisy),
    )


def _filters(tracks: _Tracks, voice: Voice) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes [n, 129] by which each frame's spectrum of the pulses, and of the noise, is multiplied."""
    # 1 / |1 - p/z + q/z^2|^2 on the unit circle is 1 / a polynomial of the cosine of the frequency.
    q = np.exp(-2 * np.pi * np.array(BANDWIDTHS) / RATE)
    p = 2 * np.sqrt(q) * np.cos(2 * np.pi * tracks.formants / RATE)  # [n, 3]
    polynomials = np.stack([(1 - q) ** 2 + p**2, -2 * p * (1 + q), np.broadcast_to(4 * q, p.shape)], 2)
    polynomials /= ((1 - p + q) ** 2)[:, :, None]  # 1 at 0 Hz
    first, second, third = polynomials.astype(np.float32).transpose(1, 0, 2) @ POWERS  # [n, 129] each
    tract = 1 / np.sqrt(first * second * third * (1 + (FREQUENCIES / TILT) ** 2))
    voiced, noise, centre, width = (
        values.astype(np.float32)[:, None] for values in (tracks.voiced, tracks.noise, tracks.centre, tracks.width)
    )
    voiced_tract = tract * voiced
    band = np.exp(-0.5 * ((FREQUENCIES - centre) / width) ** 2)
    return voiced_tract, noise * band + np.float32(voice.breath) * voiced_tract


def _pulses(pitch: np.ndarray) -> np.ndarray:
    """A pulse wherever the phase, the sum of pitch [n] Hz over time, passes a whole number: [n], of the mean power of
    the noise. A pulse between two samples is shared by them."""
    phase = np.cumsum(pitch / RATE)
    passed = np.flatnonzero(np.diff(np.floor(phase)))
    share = (np.floor(phase[passed + 1]) - phase[passed]) / (phase[passed + 1] - phase[passed])
    pulses = np.zeros(len(pitch))
    height = np.sqrt(RATE / pitch[passed])
    pulses[passed] += (1 - share) * height
    pulses[passed + 1] += share * height
    return pulses


def _noise(count: int, draws: Random) -> np.ndarray:
    """White noise [count] of mean power 1, uniform."""
    return np.frombuffer(draws.randbytes(2 * count), dtype="<i2") * np.float32(np.sqrt(3) / 2**15)


def _frames(signal: np.ndarray, frames: int) -> np.ndarray:
    """Spectra [frames, 129] of pieces of a signal under a Hann window; piece i is centred on sample i * HOP."""
    halves = np.zeros((frames + 1, HOP), dtype=np.float32)
    halves.reshape(-1)[HOP : HOP + len(signal)] = signal
    pieces = np.zeros((frames, TRANSFORM), dtype=np.float32)
    pieces[:, HOP : 2 * HOP] = halves[:frames] * WEIGHTS[:HOP]
    pieces[:, 2 * HOP : 3 * HOP] = halves[1:] * WEIGHTS[HOP:]
    return np.fft.rfft(pieces)


def _added(spectra: np.ndarray, samples: int) -> np.ndarray:
    """The signal [samples] whose pieces have these spectra: the inverse of `_frames`, where no filter is between."""
    frames = len(spectra)
    pieces = np.fft.irfft(spectra, TRANSFORM).reshape(frames, 4, HOP)
    whole = np.zeros((frames + 3, HOP), dtype=np.float32)
    for part in range(4):  # quarter `part` of a piece lies `part` hops after its start
        whole[part : part + frames] += pieces[:, part]
    return whole.reshape(-1)[2 * HOP : 2 * HOP + samples]
