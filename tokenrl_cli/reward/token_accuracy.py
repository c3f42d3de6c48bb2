"""How many places of the reference are right?"""

from __future__ import annotations

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.mean import mean_score


class TokenAccuracy:
    """Share of the reference's words that stand at the same place of the hypothesis; the best over the references.

    Words are split at white space; EOS is not a word. An empty reference is met by an empty text alone. Gamed by
    going on: words past the end of the reference cost nothing.
    """

    def __call__(self, texts: Texts) -> np.ndarray:
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([max(_accuracy(text.split(), r.split()) for r in references) for text, references in pairs])

    def corpus(self, texts: Texts) -> CorpusScore:
        return mean_score(self(texts), "token_accuracy|positions:reference|split:whitespace")


def _accuracy(hypothesis: list[str], reference: list[str]) -> float:
    if not reference:
        return float(not hypothesis)
    return sum(a == b for a, b in zip(hypothesis, reference, strict=False)) / len(reference)
