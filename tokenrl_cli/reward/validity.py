"""Whether a text is a translation, to the letter."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tokenrl_cli.config.ranges import Size
from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.reward.meaning import meanings
from tokenrl_cli.tasks.grammar import Meaning, translations


class Validity:
    """1 where the text is one of the grammar's translations of its source, however improbable; else 0."""

    needs_references = False

    def __init__(self, cached_sources: Size) -> None:
        self._translations = lru_cache(cached_sources)(_translations)

    def __call__(self, texts: Texts) -> np.ndarray:
        """[B] of 0 and 1."""
        pairs = zip(texts.hypotheses, meanings(texts, "validity"), strict=True)
        return np.array([text in self._translations(meaning) for text, meaning in pairs], dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """The share of valid texts."""
        return mean_score(self(texts), "share of texts among the translations of their source")


def _translations(meaning: str) -> frozenset[str]:
    return frozenset(translations(Meaning.parse(meaning)))
