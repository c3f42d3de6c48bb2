"""Errors of words, characters or phones: how speech recognition is scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tokenrl_cli import __version__
from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.aggregates import Rate
from tokenrl_cli.metrics.edits import edit_distances, fewest_edits
from tokenrl_cli.metrics.growth import Characters, References, Words

NAMES = {"words": "wer", "characters": "cer", "phones": "per"}
SPACES = re.compile(r"\s\s+")
NOT_SPACE = re.compile(r"[^\S ]")


class ErrorRate:
    """1 - errors / length of the reference, errors being insertions, deletions and substitutions (Levenshtein 1966), in
    units of words, characters or phones. Its numbers are logged as wer, cer or per.

    With one reference the rate is jiwer's `wer` (unit words) or `cer` (characters); of several references the one with
    the smallest rate. As in jiwer, words are what spaces divide (a single tab does not), characters include inner white
    space, and where the reference is empty the rate is the number of insertions. Phones are what any white space
    divides.

    At most 1. 0 for an empty text (1 if a reference is empty, too), and below 0, without a limit, for a text much
    longer than the reference.
    """

    needs_references = True
    measures = ("unit",)

    def __init__(self, unit: Literal["words", "characters", "phones"]) -> None:
        self.unit, self.name = unit, NAMES[unit]
        readers: dict[str, Words | Characters] = {
            "words": Words(_words, False, lambda text: NOT_SPACE.search(text) is not None),
            "characters": Characters(str.strip, squeezed=False),
            "phones": Words(str.split, False, None),
        }
        self.reader = readers[unit]

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64, at most 1; NaN for a source without a reference."""
        return self.prefix_scores(texts, [[text] for text in texts.hypotheses])[:, 0]

    def prefix_scores(self, texts: Texts, prefixes: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the score, at most 1, of every prefix, read as a whole text, against the whole reference, [B, T + 1]
        float64: column t after t tokens, past the end of a row the score of its last prefix; NaN for a source without a
        reference. `prefixes` holds the T_b + 1 prefixes of each row b, and T is the largest T_b. Only the references of
        `texts` are read."""
        growth, references = self.reader.read(prefixes, texts.references)
        return _best(edit_distances(growth, references), references)

    def completion_scores(self, texts: Texts, prefixes: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the best score, at most 1, that a text which begins with each prefix can still get (optimal
        completion), [B, T + 1] float64. `prefixes` holds the T_b + 1 prefixes of each row b, and T is the largest T_b.
        The last prefix of a row counts as finished: column T_b, and all columns after it, hold its score as a whole
        text. The last word of a prefix counts as complete. NaN for a source without a reference. Only the references of
        `texts` are read."""
        growth, references = self.reader.read(prefixes, texts.references)
        scores = _best(edit_distances(growth, references), references)
        reachable = _best(fewest_edits(growth, references), references)
        last = np.array([len(strings) - 1 for strings in prefixes])[:, None]
        return np.where(np.arange(scores.shape[1]) < last, reachable, scores)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns jiwer's rate, all errors over the length of all references, each text against its best reference: a
        share, not a percentage; 0 is perfect, lower is better, and it may be above 1. With the rate of each text, [B],
        NaN without a reference. Texts without a reference are left out; where none has one the rate is NaN."""
        growth, references = self.reader.read([[text] for text in texts.hypotheses], texts.references)
        errors = edit_distances(growth, references)
        best = _rates(errors, references).argmin(-1)
        errors, lengths = (np.take_along_axis(each, best, -1)[:, 0] for each in (errors[:, 0], references.lengths))
        known = references.known[:, 0]
        statistics = np.where(known[:, None], np.stack([errors, lengths], -1), 0).astype(np.float64)
        sentences = np.where(known, _rate(errors, lengths), np.nan)
        signature = f"{self.name}|refs:best|empty:insertions|version:tokenrl {__version__}, as jiwer 4"
        rate = Rate()(statistics.sum(0)) if known.any() else np.nan
        return CorpusScore(rate, signature, sentences, statistics, Rate(), lower_is_better=True)

    def tokens(self, text: str) -> list[str]:
        """Returns the words, characters or phones of a text, between which errors are counted."""
        if self.unit == "characters":
            return list(text.strip())
        return _words(text) if self.unit == "words" else text.split()


def _words(text: str) -> list[str]:
    return [word for word in SPACES.sub(" ", text).strip().split(" ") if word]


def _rate(errors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    rate: np.ndarray = errors / np.maximum(lengths, 1)  # of an empty reference: the number of insertions
    return rate


def _rates(errors: np.ndarray, references: References) -> np.ndarray:
    """[B, W, G], infinite where there is no such reference."""
    lengths = references.lengths[:, None, :]
    return np.where(lengths < 0, np.inf, _rate(errors, lengths))


def _best(errors: np.ndarray, references: References) -> np.ndarray:
    return np.where(references.known, 1.0 - _rates(errors, references).min(-1), np.nan)
