"""Is the text as long as it should be?"""

from __future__ import annotations

import math

import numpy as np

from tokenrl_cli.interfaces import Texts


class Length:
    """min(m, n) / max(m, n) of the numbers of words m of the text and n of the reference, 0 to 1; of several references
    the one that gives the most.

    1 for the length of a reference, 0 for an empty text, and against an empty reference 1 for an empty text, else 0. A
    guard beside a reward that length can game; alone it is gamed by any words, as many as the reference has.
    """

    needs_references = True

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64, 0-1; NaN for a source without a reference. Words are split at
        white space."""
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        best = [max((_ratio(text, reference) for reference in refs), default=math.nan) for text, refs in pairs]
        return np.array(best, dtype=np.float64)


def _ratio(text: str, reference: str) -> float:
    fewer, more = sorted((len(text.split()), len(reference.split())))
    return fewer / more if more else 1.0
