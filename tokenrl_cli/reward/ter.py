"""Translation edit rate."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.corpus import library_score


class Ter:
    """1 - sacrebleu's `TER.sentence_score` / 100: edits, shifts of blocks among them, over the mean length of the
    references (Snover et al. 2006); of several references the one with the fewest edits.

    At most 1; below 0, without a limit, for a text much longer than the references. An empty text has 0 against one
    reference, but above 0 where references differ in length: its edits are the words of the shortest, divided by the
    mean length. The parameters are sacrebleu's. Slow: the search for shifts is the library's own, and credit over
    prefixes scores each distinct prefix as a text by itself.
    """

    needs_references = True

    def __init__(self, normalized: bool, no_punct: bool, asian_support: bool, case_sensitive: bool) -> None:
        from sacrebleu.metrics.ter import TER

        self.library = TER(normalized, no_punct, asian_support, case_sensitive)

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64, at most 1; NaN for a source without a reference."""
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([self._score(text, references) for text, references in pairs], dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns corpus TER as sacrebleu's `corpus_score`, in percent of the references' length: 0 is perfect, lower
        is better, and it may be above 100. With the TER of each text on that scale, [B], NaN without a reference; such
        texts are left out. Raises UserError where no text has a reference."""
        return replace(library_score(self.library, texts, 100 - self(texts) * 100, ""), lower_is_better=True)

    def _score(self, text: str, references: list[str]) -> float:
        return 1 - self.library.sentence_score(text, references).score / 100 if references else math.nan
