"""Whether a text says what its source says."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tokenrl_cli.config.ranges import Size
from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.reward.meaning import meanings
from tokenrl_cli.tasks.grammar import Content, Meaning, adequate, contents


class Adequacy:
    """1 where the text expresses every content of its source and nothing else, in any word order; else 0.

    The rule is `grammar.adequate`: every text with `Validity` 1 is adequate, and an adequate one may have its words in
    a wrong order. Works with the data set `grammar` alone, whose column `meaning` it reads. The contents of the last
    `cached_sources` sources are cached.
    """

    needs_references = False

    def __init__(self, cached_sources: Size) -> None:
        self._contents = lru_cache(cached_sources)(_contents)

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns 1 or 0 for each text, [B] float64. Raises UserError where the column `meaning` is missing, or a value
        in it is no string that `Meaning.parse` reads."""
        pairs = zip(texts.hypotheses, meanings(texts, "adequacy"), strict=True)
        return np.array([adequate(self._contents(meaning), text) for text, meaning in pairs], dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the share of adequate texts, 0-1, with the score of each, [B]. Raises UserError where the column
        `meaning` is missing, or a value in it is no string that `Meaning.parse` reads."""
        return mean_score(self(texts), "share of texts with every content of their source")


def _contents(meaning: str) -> list[Content]:
    return contents(Meaning.parse(meaning))
