"""Is the text one of the references?"""

from __future__ import annotations

import math

import numpy as np

from tokenrl_cli import __version__
from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.mean import mean_score


class ExactMatch:
    """1 where the hypothesis equals a reference, else 0. `strip` ignores white space at both ends, `lowercase` the case
    (by str.casefold)."""

    needs_references = True

    def __init__(self, lowercase: bool, strip: bool) -> None:
        self.lowercase, self.strip = lowercase, strip

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns 1 or 0 for each text, [B] float64; NaN for a source without a reference."""
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([self._score(text, references) for text, references in pairs], dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the share of texts that equal a reference, 0-1, of those whose source has one, with the score of
        each, [B], NaN without a reference. NaN where no text has one."""
        settings = f"case:{'lc' if self.lowercase else 'mixed'}|strip:{'yes' if self.strip else 'no'}"
        return mean_score(self(texts), f"exact_match|{settings}|version:tokenrl {__version__}")

    def _score(self, text: str, references: list[str]) -> float:
        return float(self._same(text) in map(self._same, references)) if references else math.nan

    def _same(self, text: str) -> str:
        text = text.strip() if self.strip else text
        return text.casefold() if self.lowercase else text
