"""The embedded data set of speech."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from tokenrl_cli.data.splits import splits_of
from tokenrl_cli.dataset.tones import Tones
from tokenrl_cli.interfaces import Example, Recording, SettingError, Waveform
from tokenrl_cli.tasks.synthesis import RATE, VOICES, WORDS


def tones(**changes: Any) -> Tones:
    values = {"noise": [5.0, 20.0], "corpus_seed": 1, "train_size": 300, "val_size": 20, "test_size": 30}
    return Tones(**({"max_source_length": 600, "overlong": "truncate"} | values | changes))


def read(example: Example) -> Waveform:
    assert isinstance(example.source, Recording)
    waveform = example.source.read()
    assert isinstance(waveform, Waveform)
    return waveform


def test_an_example_is_a_function_of_the_corpus_seed_the_split_and_the_index() -> None:
    one, same, other = tones(), tones(), tones(corpus_seed=2)
    backwards = [same.example("train", i) for i in reversed(range(10))][::-1]
    assert [one.example("train", i) for i in range(10)] == backwards
    for i in range(10):
        example = one.example("train", i)
        samples = read(example).samples
        assert samples.tobytes() == read(example).samples.tobytes() == read(backwards[i]).samples.tobytes()
        for further in (one.example("train", i + 1), one.example("test_seen", i), other.example("train", i)):
            assert samples.tobytes() != read(further).samples.tobytes()


def test_names_are_unique_and_say_the_split_and_the_voice() -> None:
    data = tones()
    names = [str(data.example(split, i).source) for split in data.splits() for i in range(20)]
    assert len(set(names)) == len(names) == 80
    example = data.example("val", 7)
    assert str(example.source) == f"tones/val/7 voice {example.columns['speaker']}"


def test_sound_is_finite_within_full_scale_and_as_long_as_its_column_says() -> None:
    data = tones(noise=[-5.0, 30.0])
    for i in range(40):
        example = data.example("train", i)
        waveform = read(example)
        assert (waveform.rate, waveform.samples.dtype, waveform.samples.ndim) == (RATE, np.float32, 1)
        assert np.isfinite(waveform.samples).all()
        assert 0.05 < np.abs(waveform.samples).max() <= 1
        assert example.columns["seconds"] == len(waveform.samples) / RATE
        assert 0.4 < example.columns["seconds"] < 4


def test_the_voice_of_test_is_in_no_other_split() -> None:
    data = tones()
    speakers = {split: {data.example(split, i).columns["speaker"] for i in range(300)} for split in data.splits()}
    assert speakers.pop("test") == {len(VOICES)}
    assert all(found == set(range(1, len(VOICES))) for found in speakers.values())


def test_texts_are_two_to_five_digits_that_are_as_frequent_as_each_other() -> None:
    data = tones()
    texts = [data.example("train", i).references[0].split() for i in range(2000)]
    assert {len(words) for words in texts} == {2, 3, 4, 5}
    counts = Counter(word for words in texts for word in words)
    assert set(counts) == set(WORDS)
    assert max(counts.values()) < 1.2 * min(counts.values())
    example = data.example("train", 0)
    assert example.references == example.demonstrations


def test_every_split_has_its_size() -> None:
    data = tones()
    assert splits_of(data) == ["train", "val", "test", "test_seen"]
    assert [data.size(split) for split in data.splits()] == [300, 20, 30, 30]
    with pytest.raises(KeyError):
        data.size("dev")


@pytest.mark.parametrize("noise", [[], [5.0], [20.0, 5.0], [1.0, 2.0, 3.0]])
def test_noise_that_is_no_range_is_refused(noise: list[float]) -> None:
    with pytest.raises(SettingError, match="lowest, highest"):
        tones(noise=noise)
