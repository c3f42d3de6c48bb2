"""The synthesiser of speech."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from tokenrl_cli.tasks import synthesis
from tokenrl_cli.tasks.synthesis import PHONES, RATE, VOICES, WORDS, Utterance, Voice, sound, spoken

CLEAN = 90.0  # dB


def held(phone: str, pitch: float = 100.0, tract: float = 1.0) -> np.ndarray:
    """One second of a phone."""
    voice = Voice(pitch, tract, 0.0, 1.0)
    return sound(Utterance((phone,), (1.0,), (1.0,), (pitch,), voice, CLEAN, 0.0, 0.5, 1))


def power(samples: np.ndarray, frequency: float, width: float = 100.0) -> float:
    """Power within `width` Hz of a frequency, in dB."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / RATE) - frequency) < width
    return float(10 * np.log10(spectrum[near].sum()))


@pytest.mark.parametrize("tract", [1.0, 1.2])
@pytest.mark.parametrize("vowel", ["i", "E", "A"])
def test_a_vowel_is_loudest_at_its_formants(vowel: str, tract: float) -> None:
    samples = held(vowel, tract=tract)
    first, second, third = (tract * formant for formant in PHONES[vowel].formants)
    if vowel != "A":  # the first two formants of that one are too close for a valley
        assert power(samples, second) > power(samples, (first + second) / 2) + 10
    assert power(samples, third) > power(samples, third + 300) + 5
    assert max(power(samples, first), power(samples, second)) > power(samples, 3900) + 15


@pytest.mark.parametrize("pitch", [90.0, 200.0, 260.0])
def test_a_voice_has_its_pitch(pitch: float) -> None:
    samples = held("i", pitch)
    similar = np.correlate(samples, samples, "full")[len(samples) :]
    assert RATE / (1 + int(similar[20:120].argmax()) + 20) == pytest.approx(pitch, rel=0.03)


def test_s_is_noise_at_high_frequencies_and_a_closed_mouth_is_silent() -> None:
    assert power(held("s"), 3700) > power(held("s"), 1000) + 30
    draws = Random(1)
    utterance = replace(spoken(["eight"], VOICES[0], CLEAN, draws), noise=CLEAN)
    ends = np.cumsum(utterance.seconds)
    closed = utterance.phones.index("t-")
    middle = int(RATE * (ends[closed - 1] + ends[closed]) / 2)
    samples = sound(utterance)
    assert np.abs(samples[middle - 40 : middle + 40]).max() < 0.05 * np.abs(samples).max()


def test_pieces_of_a_signal_add_up_to_the_signal() -> None:
    signal = np.random.default_rng(1).standard_normal(10 * synthesis.HOP)
    again = synthesis._added(synthesis._frames(signal, 11), len(signal))
    assert again == pytest.approx(signal, abs=1e-5)


@pytest.mark.parametrize("decibels", [0.0, 10.0])
def test_the_background_has_the_power_that_was_asked_for(decibels: float) -> None:
    utterance = spoken(["one", "six", "two"], VOICES[2], decibels, Random(3))
    noisy, clean = sound(utterance), sound(replace(utterance, noise=CLEAN))
    scale = (noisy @ clean) / (clean @ clean)
    rest = noisy - scale * clean
    ratio = 10 * np.log10((scale * clean) @ (scale * clean) / (rest @ rest))
    assert ratio == pytest.approx(decibels, abs=0.5)


def test_words_take_no_other_phones_than_there_are_and_each_has_its_own() -> None:
    assert {phone for phones in WORDS.values() for phone in phones} <= PHONES.keys()
    assert len(set(WORDS.values())) == len(WORDS) == 10


def test_words_are_spoken_in_their_order_with_pauses_around() -> None:
    utterance = spoken(["six", "one"], VOICES[0], 20.0, Random(1))
    assert [phone for phone in utterance.phones if phone != " "] == [*WORDS["six"], *WORDS["one"]]
    assert utterance.phones[0] == utterance.phones[-1] == " "
    lengths = {len(field) for field in (utterance.phones, utterance.seconds, utterance.jitter, utterance.pitches)}
    assert len(lengths) == 1


def test_a_faster_voice_takes_less_time() -> None:
    slow, fast = (spoken(["six", "one"], replace(VOICES[0], speed=speed), 20.0, Random(1)) for speed in (0.8, 1.6))
    assert sum(slow.seconds[1:-1]) > 1.5 * sum(fast.seconds[1:-1])


def test_the_last_voice_lies_outside_the_range_of_the_others() -> None:
    *others, last = VOICES
    assert last.tract > max(voice.tract for voice in others)
    assert last.pitch > max(voice.pitch for voice in others)
