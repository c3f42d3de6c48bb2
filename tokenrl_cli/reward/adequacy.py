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
    """1 where the text says every content of its source and nothing else, in any order; else 0.

    The rule is `grammar.adequate`; a valid text is adequate, an adequate one may have its words in a wrong order.
    """

    needs_references = False

    def __init__(self, cached_sources: Size) -> None:
        self._contents = lru_cache(cached_sources)(_contents)

    def __call__(self, texts: Texts) -> np.ndarray:
        """[B] of 0 and 1."""
        pairs = zip(texts.hypotheses, meanings(texts, "adequacy"), strict=True)
        return np.array([adequate(self._contents(meaning), text) for text, meaning in pairs], dtype=np.float64)

    def corpus(self, texts: Texts) -> CorpusScore:
        """The share of adequate texts."""
        return mean_score(self(texts), "share of texts with every content of their source")


def _contents(meaning: str) -> list[Content]:
    return contents(Meaning.parse(meaning))
