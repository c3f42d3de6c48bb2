"""The embedded data set of speech: spoken digits, made by a synthesiser."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Annotated, Literal

from tokenrl_cli import streams
from tokenrl_cli.config.ranges import Count, Ge, Le
from tokenrl_cli.interfaces import Example, Recording, SettingError, Waveform
from tokenrl_cli.tasks import synthesis

Decibels = Annotated[float, Ge(-20), Le(100)]
SHORTEST, LONGEST = 2, 5  # words of an utterance


class Tones:
    """Utterances of 2 to 5 digits, spoken by the voices of `tokenrl_cli.tasks.synthesis` with background noise; the
    target is the words, such as "three one four".

    The splits train, val and test_seen have the same voices, test one that is in no other split, with a shorter vocal
    tract than theirs. The ratio of speech to noise in dB is drawn anew for each utterance, uniformly from `noise`
    [lowest, highest]: with more noise the task is harder. Example i is a pure function of (corpus_seed, split, i), its
    sound is made whenever it is read. The columns are `speaker`, the number of the voice from 1, and `seconds`. Raises
    SettingError where `noise` is not two numbers in ascending order.
    """

    def __init__(
        self,
        noise: list[Decibels],
        corpus_seed: int,
        train_size: Count,
        val_size: Count,
        test_size: Count,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        if len(noise) != 2 or noise[0] > noise[1]:
            raise SettingError("noise", f"must be [lowest, highest] in dB, got {list(noise)}", "{here}.noise=[5,20]")
        self.max_source_length, self.overlong, self.corpus_seed = max_source_length, overlong, corpus_seed
        self.lowest, self.highest = noise
        self.sizes = {"train": train_size, "val": val_size, "test": test_size, "test_seen": test_size}

    def splits(self) -> list[str]:
        """Returns "train", "val", "test" and "test_seen"."""
        return list(self.sizes)

    def size(self, split: str) -> int | None:
        """Returns the number of examples of a split, as configured; never None. Raises KeyError for a split other than
        those of `splits`."""
        return self.sizes[split]

    def example(self, split: str, index: int) -> Example:
        """Returns example `index` of a split, a pure function of (corpus_seed, split, index), made anew at each call.
        Neither `split` nor `index` is checked."""
        draws = Random(streams.derive(self.corpus_seed, f"tones/{split}", index))
        unseen = len(synthesis.VOICES) - 1
        speaker = unseen if split == "test" else draws.randrange(unseen)
        words = draws.choices(list(synthesis.WORDS), k=draws.randint(SHORTEST, LONGEST))
        noise = draws.uniform(self.lowest, self.highest)
        utterance = synthesis.spoken(words, synthesis.VOICES[speaker], noise, draws)
        name = f"tones/{split}/{index} voice {speaker + 1}"
        columns = {"speaker": speaker + 1, "seconds": utterance.samples / synthesis.RATE}
        text = " ".join(words)
        source = Recording(name, partial(_read, utterance))
        return Example(f"{split}-{index}", source, [text], [text], columns)


def _read(utterance: synthesis.Utterance) -> Waveform:
    return Waveform(synthesis.sound(utterance), synthesis.RATE)
