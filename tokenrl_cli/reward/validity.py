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
    """1 where the text is exactly one of the grammar's translations of its source, however improbable; else 0. Works
    with the data set `grammar` alone, whose column `meaning` it reads. The translations of the last `cached_sources`
    sources are cached."""

    needs_references = False

    def __init__(self, cached_sources: Size) -> None:
        self._translations = lru_cache(cached_sources)(_translations)

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns 1 or 0 for each text, [B] float64. Raises UserError where the column `meaning` is missing, or a value
        in it is no string that `Meaning.parse` reads."""
        pairs = zip(texts.hypotheses, meanings(texts, "validity"), strict=True)
        return np.array([text in self._translations(meaning) for text, meaning in pairs], dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the share of valid texts, 0-1, with the score of each, [B]. Raises UserError where the column
        `meaning` is missing, or a value in it is no string that `Meaning.parse` reads."""
        return mean_score(self(texts), "share of texts among the translations of their source")


def _translations(meaning: str) -> frozenset[str]:
    return frozenset(translations(Meaning.parse(meaning)))
