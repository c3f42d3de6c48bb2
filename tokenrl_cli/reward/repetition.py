"""How little a text repeats itself."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.config.ranges import Size
from tokenrl_cli.interfaces import Texts


class Repetition:
    """Share of the text's words that do not belong to a repeated n-gram, n = `order`: one that occurred earlier in the
    text; 0 to 1, and 1 where nothing repeats.

    With `order` 1 the complement of rep/l of Welleck et al. 2019 (arXiv:1908.04319), of the generated words and over
    all that came before; the complement of their seq-rep-n is the reward distinct. 1 for a text of at most `order`
    words, so alone it is gamed by short texts.
    """

    needs_references = False

    def __init__(self, order: Size) -> None:
        self.order = order

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64, from 0 to 1."""
        return np.array([self._score(text.split()) for text in texts.hypotheses], dtype=np.float64)

    def _score(self, words: list[str]) -> float:
        seen: set[tuple[str, ...]] = set()
        again: set[int] = set()
        for place in range(len(words) - self.order + 1):
            ngram = tuple(words[place : place + self.order])
            if ngram in seen:
                again.update(range(place, place + self.order))
            seen.add(ngram)
        return 1 - len(again) / max(len(words), 1)
