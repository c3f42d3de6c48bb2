"""Character n-gram F-score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from tokenrl_cli.config.ranges import Ge, Le, Order
from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.chrf import chrf
from tokenrl_cli.metrics.corpus import library_score
from tokenrl_cli.metrics.growth import Characters, Words
from tokenrl_cli.metrics.ngrams import matches, totals


class Chrf:
    """sacrebleu's `CHRF.sentence_score` / 100, 0 to 1; of several references the one with the best F. Popovic 2015,
    2017.

    F = (1 + beta^2) P R / (beta^2 P + R) of the mean precision P and the mean recall R over the orders of n-grams, of
    characters up to `char_order` and of words up to `word_order` (0: chrF without words; 2: chrF++). Recall has beta^2
    times the weight of precision: a longer text costs little, but it costs. Without `whitespace` an n-gram of
    characters spans words. An empty text has 0.
    """

    needs_references = True

    def __init__(
        self,
        char_order: Order,
        word_order: Annotated[int, Ge(0), Le(100)],
        beta: Order,
        whitespace: bool,
        lowercase: bool,
    ) -> None:
        from sacrebleu.metrics.chrf import CHRF

        self.library = CHRF(char_order, word_order, beta, lowercase, whitespace)
        self.units = [(Characters(str.lower if lowercase else None, squeezed=not whitespace), char_order)]
        if word_order:
            self.units.append((Words(self._tokens, False, None), word_order))  # type: ignore[arg-type]

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64, 0-1; NaN for a source without a reference."""
        return self.prefix_scores(texts, [[text] for text in texts.hypotheses])[:, 0]

    def prefix_scores(self, texts: Texts, prefixes: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the score, 0 to 1, of every prefix, read as a whole text, [B, T + 1] float64: column t after t
        tokens, past the end of a row the score of its last prefix; NaN for a source without a reference. `prefixes`
        holds the T_b + 1 prefixes of each row b, and T is the largest T_b. Only the references of `texts` are read."""
        matched, said, wanted = [], [], []
        for unit, order in self.units:
            growth, references = unit.read(prefixes, texts.references)
            matched.append(matches(growth, references, order, merged=False))
            said.append(totals(growth.lengths, order))
            there = totals(references.lengths, order).swapaxes(1, 2)
            wanted.append(np.where(references.lengths[:, None] < 0, -1, there))
        beta = self.library.beta
        score = chrf(np.concatenate(matched, 2), np.concatenate(said, 2), np.concatenate(wanted, 1), beta)
        return np.where(references.known, score / 100, np.nan)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns corpus chrF, 0-100, as sacrebleu's `corpus_score` gives it: the statistics of each text against its
        best reference, the one with the highest F, are summed. With 100 times the score of each text, [B], NaN without
        a reference. Texts without a reference are left out; raises UserError where no text has one."""
        beta = self.library.beta
        return library_score(self.library, texts, self(texts) * 100, "" if beta == 2 else f"|beta:{beta}")

    def _tokens(self, text: str) -> list[str]:
        return self.library._remove_punctuation(self.library._preprocess_segment(text))
