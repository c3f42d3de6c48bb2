"""How many different things does the text say?"""

from __future__ import annotations

import numpy as np

from tokenrl_cli.config.ranges import Size
from tokenrl_cli.interfaces import Texts


class Distinct:
    """Number of distinct n-grams of a text divided by the number of its n-grams, n = `order` (Li et al. 2016,
    arXiv:1510.03055), each text by itself; 0 to 1.

    0 for a text without an n-gram, that is of fewer than `order` words. In evaluation it is the mean over texts; the
    paper counts over all texts together, which shows how much they differ from each other, and this does not. Gamed by
    short texts and by rare words.
    """

    needs_references = False

    def __init__(self, order: Size) -> None:
        self.order = order

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the share for each text, [B] float64, 0-1. Words are split at white space."""
        return np.array([self._score(text.split()) for text in texts.hypotheses], dtype=np.float64)

    def _score(self, words: list[str]) -> float:
        ngrams = [tuple(words[place : place + self.order]) for place in range(len(words) - self.order + 1)]
        return len(set(ngrams)) / len(ngrams) if ngrams else 0.0
