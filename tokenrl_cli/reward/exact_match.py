"""Is the text one of the references?"""

from __future__ import annotations

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.mean import mean_score


class ExactMatch:
    """1 where the hypothesis equals a reference, else 0."""

    def __init__(self, lowercase: bool, strip: bool) -> None:
        self.lowercase, self.strip = lowercase, strip

    def __call__(self, texts: Texts) -> np.ndarray:
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([float(self._same(text) in map(self._same, references)) for text, references in pairs])

    def corpus(self, texts: Texts) -> CorpusScore:
        return mean_score(self(texts), f"exact_match|lowercase:{self.lowercase}|strip:{self.strip}")

    def _same(self, text: str) -> str:
        text = text.strip() if self.strip else text
        return text.casefold() if self.lowercase else text
