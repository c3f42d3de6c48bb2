"""How much of the embedded task's known gap a policy has closed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tokenrl_cli.config.ranges import Size
from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.aggregates import Mean
from tokenrl_cli.reward.meaning import meanings
from tokenrl_cli.tasks.ceiling import Ceiling, ceiling, expected_bleu
from tokenrl_cli.tasks.grammar import Meaning, translations


class GapClosed:
    """(b - greedy) / (best - greedy), with b the expected sentence BLEU of the text, exact over all translations of its
    source, and greedy and best the expected BLEU of the two translations that `ceiling` finds.

    0 is the greedy output of the grammar's own distribution, which is what perfect likelihood training generates; 1 is
    the best of the grammar's own translations. A text worse than the first is below 0, without a limit. NaN for a
    source without a gap (best = greedy). Works with the data set `grammar` alone, whose column `meaning` it reads. The
    two numbers of the last `cached_sources` sources are cached.
    """

    needs_references = False

    def __init__(self, cached_sources: Size) -> None:
        self._ceiling = lru_cache(cached_sources)(_ceiling)

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64; NaN for a source without a gap. Raises UserError where the
        column `meaning` is missing, or a value in it is no string that `Meaning.parse` reads."""
        return _share(*self._measure(texts))

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the sum of the gains b - greedy over the sum of the gaps best - greedy, so that sources count by how
        much there is to gain; NaN where the gaps sum to 0. With the score of each text, [B], NaN for a source without a
        gap, whose gain is in the sum all the same. Raises UserError where the column `meaning` is missing, or a
        value in it is no string that `Meaning.parse` reads."""
        measured = self._measure(texts)
        statistics = np.stack(measured, -1)
        signature = "exact expected sentence BLEU: (text - true greedy) / (best translation - true greedy)"
        return CorpusScore(Mean()(statistics.sum(0)), signature, _share(*measured), statistics, Mean())

    def _measure(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        rows = list(zip(texts.hypotheses, meanings(texts, "gap_closed"), strict=True))
        known = [self._ceiling(meaning) for _, meaning in rows]
        said = [expected_bleu([text], translations(Meaning.parse(meaning)))[0] for text, meaning in rows]
        greedy, best = (np.array([getattr(c, name) for c in known]) for name in ("greedy", "best"))
        return np.array(said) - greedy, best - greedy


def _share(gained: np.ndarray, gap: np.ndarray) -> np.ndarray:
    return np.where(gap > 1e-9, gained / np.maximum(gap, 1e-9), np.nan)


def _ceiling(meaning: str) -> Ceiling:
    return ceiling(Meaning.parse(meaning))
