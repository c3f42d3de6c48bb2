"""Errors of words, characters or phones: how speech recognition is scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tokenrl_cli import __version__
from tokenrl_cli.config.extras import require_extra
from tokenrl_cli.config.ranges import Weight
from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.aggregates import Rate
from tokenrl_cli.metrics.edits import (
    EditWeights,
    edit_distances,
    fewest_edits,
    least_weighted_edits,
    weighted_distances,
)
from tokenrl_cli.metrics.growth import REMEMBERED, Characters, Growth, References, Words
from tokenrl_cli.metrics.text_normalisation import TextNormalisation

NAMES = {"words": "wer", "characters": "cer", "phones": "per"}
SPACES = re.compile(r"\s\s+")
NOT_SPACE = re.compile(r"[^\S ]")
ALIKE = EditWeights(1.0, 1.0, 1.0)  # each error counts 1, and errors can be counted 64 at a time


class ErrorRate:
    """1 - errors / length of the reference, errors being insertions, deletions and substitutions (Levenshtein 1966), in
    units of words, characters or phones. Its numbers are logged as wer, cer or per.

    With one reference the rate is jiwer's `wer` (unit words) or `cer` (characters); of several references the one with
    the smallest rate. As in jiwer, words are what spaces divide (a single tab does not), characters include inner white
    space, and where the reference is empty the rate is the number of insertions. Phones are what any white space
    divides.

    `substitution`, `deletion` and `insertion` are what an error of each kind counts; with other weights than 1 the
    errors are the least weighted sum of errors that leads from one text to the other. `lowercase`, `punctuation` and
    `numbers` change hypotheses, prefixes and references before errors are counted, see `TextNormalisation`; the
    constructor raises UserError for `numbers` "words" where the package num2words is missing.

    At most 1. For an empty text 1 - `deletion` (1 if a reference is empty, too), and below 0, without a limit, for a
    text much longer than the reference.
    """

    needs_references = True
    measures = ("unit", "substitution", "deletion", "insertion")

    def __init__(
        self,
        unit: Literal["words", "characters", "phones"],
        substitution: Weight,
        deletion: Weight,
        insertion: Weight,
        lowercase: bool,
        punctuation: Literal["keep", "remove"],
        numbers: Literal["keep", "words"],
    ) -> None:
        if numbers == "words":
            require_extra("speech", "numbers", "num2words")
        self.unit, self.name = unit, NAMES[unit]
        self.weights = EditWeights(substitution, deletion, insertion)
        self.normalised = TextNormalisation(lowercase, punctuation, numbers)
        self.changed: dict[str, str] = {}  # references, by the text as it was given
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
        growth, references = self._read(prefixes, texts)
        return _best(self._errors(growth, references), references)

    def completion_scores(self, texts: Texts, prefixes: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the best score, at most 1, that a text which begins with each prefix can still get (optimal
        completion), [B, T + 1] float64. `prefixes` holds the T_b + 1 prefixes of each row b, and T is the largest T_b.
        The last prefix of a row counts as finished: column T_b, and all columns after it, hold its score as a whole
        text. The last word of a prefix counts as complete. NaN for a source without a reference. Only the references of
        `texts` are read."""
        growth, references = self._read(prefixes, texts)
        scores = _best(self._errors(growth, references), references)
        reachable = _best(self._least_errors(growth, references), references)
        last = np.array([len(strings) - 1 for strings in prefixes])[:, None]
        return np.where(np.arange(scores.shape[1]) < last, reachable, scores)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the rate, all errors over the length of all references, each text against its best reference: a
        share, not a percentage; 0 is perfect, lower is better, and it may be above 1. With the rate of each text, [B],
        NaN without a reference. Texts without a reference are left out; where none has one the rate is NaN. It is
        jiwer's rate if all weights are 1 and texts are not changed."""
        growth, references = self._read([[text] for text in texts.hypotheses], texts)
        errors = self._errors(growth, references)
        best = _rates(errors, references).argmin(-1)
        errors, lengths = (np.take_along_axis(each, best, -1)[:, 0] for each in (errors[:, 0], references.lengths))
        known = references.known[:, 0]
        statistics = np.where(known[:, None], np.stack([errors, lengths], -1), 0).astype(np.float64)
        sentences = np.where(known, _rate(errors, lengths), np.nan)
        rate = Rate()(statistics.sum(0)) if known.any() else np.nan
        return CorpusScore(rate, self.signature, sentences, statistics, Rate(), lower_is_better=True)

    @property
    def signature(self) -> str:
        """How the rate is computed: what errors count, and what was done to the texts before."""
        weights = self.weights
        errors = f"substitution:{weights.substitution:g}|deletion:{weights.deletion:g}|insertion:{weights.insertion:g}"
        version = f"version:tokenrl {__version__}, as jiwer 4"
        return f"{self.name}|refs:best|{errors}|{self.normalised.signature}|empty:insertions|{version}"

    def _read(self, prefixes: Sequence[Sequence[str]], texts: Texts) -> tuple[Growth, References]:
        references: Sequence[Sequence[str]] = texts.references
        if self.normalised.changes:
            if len(self.changed) > REMEMBERED:
                self.changed.clear()
            for text in {text for each in references for text in each} - self.changed.keys():
                self.changed[text] = self.normalised(text)
            references = [[self.changed[text] for text in each] for each in references]
        return self.reader.read(self.normalised.each(prefixes), references)

    def _errors(self, growth: Growth, references: References) -> np.ndarray:
        """Of each prefix against each reference, [B, W, G]."""
        if self.weights == ALIKE:
            return edit_distances(growth, references)
        return weighted_distances(growth, references, self.weights)

    def _least_errors(self, growth: Growth, references: References) -> np.ndarray:
        """Those that a text can have at least which begins with each prefix, [B, W, G]."""
        if self.weights == ALIKE:
            return fewest_edits(growth, references)
        return least_weighted_edits(growth, references, self.weights)

    def tokens(self, text: str) -> list[str]:
        """Returns the words, characters or phones of a text, between which errors are counted: those of the text as it
        is after `lowercase`, `punctuation` and `numbers`."""
        text = self.normalised(text)
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
