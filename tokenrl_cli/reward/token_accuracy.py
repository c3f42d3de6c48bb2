"""How many places of the reference are right?"""

from __future__ import annotations

import math

import numpy as np

from tokenrl_cli import __version__
from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.mean import mean_score


class TokenAccuracy:
    """Share of the reference's words that stand at the same position of the hypothesis, 0 to 1; of several references
    the best.

    Words are split at white space; EOS is not a word. Against an empty reference an empty text has 1, any other 0.
    Gamed by going on: words past the end of the reference cost nothing.
    """

    needs_references = True

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the share for each text, [B] float64, 0-1; NaN for a source without a reference."""
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        best = [max((_accuracy(text.split(), r.split()) for r in refs), default=math.nan) for text, refs in pairs]
        return np.array(best, dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the mean over the texts that have a reference, 0-1, with the score of each, [B], NaN without a
        reference. NaN where no text has one."""
        settings = "positions:reference|split:whitespace"
        return mean_score(self(texts), f"token_accuracy|{settings}|version:tokenrl {__version__}")


def _accuracy(hypothesis: list[str], reference: list[str]) -> float:
    if not reference:
        return float(not hypothesis)
    return sum(a == b for a, b in zip(hypothesis, reference, strict=False)) / len(reference)
