"""Sentence BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tokenrl_cli.config.ranges import Order, Positive
from tokenrl_cli.interfaces import CorpusScore, SettingError, Texts
from tokenrl_cli.metrics.bleu import bleu, nearest_lengths
from tokenrl_cli.metrics.corpus import library_score
from tokenrl_cli.metrics.growth import Words
from tokenrl_cli.metrics.ngrams import matches


class Bleu:
    """sacrebleu's `BLEU.sentence_score` / 100 of each text against all its references, 0 to 1. Papineni et al. 2002.

    An empty text has 0, and so has one without a word of its references, under every smoothing. A short text that is
    right is kept from 1 by the brevity penalty, a long one by its precision. `smoothing_value` None is sacrebleu's
    default of that `smoothing`; with `effective_order` only the orders count that the text has n-grams of. Raises
    SettingError for a `smoothing_value` beside the smoothing "none" or "exp", which take none.
    """

    needs_references = True

    def __init__(
        self,
        max_order: Order,
        smoothing: Literal["none", "floor", "add-k", "exp"],
        smoothing_value: Positive | None,
        effective_order: bool,
        tokenize: Literal["13a", "none", "char", "intl", "zh"],
        lowercase: bool,
    ) -> None:
        from sacrebleu.metrics.bleu import BLEU

        if smoothing_value is not None and smoothing not in ("floor", "add-k"):
            raise SettingError("smoothing_value", f"{smoothing} takes none, got {smoothing_value}", "null")
        force = True  # no advice on text that looks tokenized: a policy says what it says
        self.order, self.smoothing, self.effective_order = max_order, smoothing, effective_order
        self.value = smoothing_value if smoothing_value is not None else BLEU.SMOOTH_DEFAULTS[smoothing] or 0.0
        self.library = BLEU(lowercase, force, tokenize, smoothing, smoothing_value, max_order, False)
        whole = (lambda text: "-\n" in text) if tokenize == "13a" else None  # there it makes one word of two
        self.words = Words(self._tokens, tokenize in ("intl", "zh"), whole)

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64, 0-1; NaN for a source without a reference."""
        return self.prefix_scores(texts, [[text] for text in texts.hypotheses])[:, 0]

    def prefix_scores(self, texts: Texts, prefixes: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the score, 0 to 1, of every prefix, read as a whole text, [B, T + 1] float64: column t after t
        tokens, past the end of a row the score of its last prefix; NaN for a source without a reference. `prefixes`
        holds the T_b + 1 prefixes of each row b, and T is the largest T_b. Only the references of `texts` are read."""
        growth, references = self.words.read(prefixes, texts.references)
        matched = matches(growth, references, self.order, merged=True)[..., 0]
        nearest = nearest_lengths(growth.lengths, references)
        score = bleu(matched, growth.lengths, nearest, self.smoothing, self.value, self.effective_order) / 100
        return np.where(references.known, score, np.nan)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns corpus BLEU, 0-100, as sacrebleu's `corpus_score`, which has no effective order, with 100 times the
        score of each text, [B], NaN without a reference. Texts without a reference are left out; raises UserError where
        no text has one."""
        return library_score(self.library, texts, self(texts) * 100, "" if self.order == 4 else f"|order:{self.order}")

    def advice(self, texts: Texts, scores: np.ndarray) -> str:
        """Returns a sentence that names the setting `tokenize`, if any reference of `texts` has, so tokenized, fewer
        words than `max_order`; else an empty string. `scores` [N] are not read."""
        every = [text for references in texts.references for text in references]
        short = sum(len(self._tokens(text)) < self.order for text in every)
        if not short:
            return ""
        tokenize = str(self.library.get_signature().info["tok"])
        return (
            f"tokenize={tokenize} makes fewer than {self.order} words of {short} of {len(every)} references, and "
            "corpus BLEU is 0 without an n-gram so long: tokenize=zh or char where words have no spaces between them"
        )

    def _tokens(self, text: str) -> list[str]:
        tokens: list[str] = self.library._preprocess_segment(text).split()
        return tokens
