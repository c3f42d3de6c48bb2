"""Overlap of words with a reference, as summaries are scored."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts
from tokenrl_cli.metrics.edits import common_subsequences
from tokenrl_cli.metrics.growth import Words
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.metrics.ngrams import matches, totals
from tokenrl_cli.metrics.rouge import rouge


class Rouge:
    """rouge-score's number of each text, 0 to 1, against the reference with the best F, also where `measure` is
    precision or recall. Lin 2004.

    rouge1, rouge2 and rouge3 count n-grams, rougeL is the longest common subsequence. Text is lowercased and only a-z
    and 0-9 make words: other scripts score 0, and "naive" with a diaeresis is two words. `stemmer` compares English
    words without their endings. A text or a reference without n-grams has 0. `recall` is gamed by going on, `precision`
    by stopping early.
    """

    needs_references = True
    measures = ("variant", "measure")

    def __init__(
        self,
        variant: Literal["rouge1", "rouge2", "rouge3", "rougeL"],
        measure: Literal["fmeasure", "precision", "recall"],
        stemmer: bool,
    ) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self.variant, self.measure, self.stemmer = variant, measure, stemmer
        self.words = Words(DefaultTokenizer(stemmer).tokenize, False, None)

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64, 0-1; NaN for a source without a reference."""
        return self.prefix_scores(texts, [[text] for text in texts.hypotheses])[:, 0]

    def prefix_scores(self, texts: Texts, prefixes: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the score, 0 to 1, of every prefix, read as a whole text, [B, T + 1] float64: column t after t
        tokens, past the end of a row the score of its last prefix; NaN for a source without a reference. `prefixes`
        holds the T_b + 1 prefixes of each row b, and T is the largest T_b. Only the references of `texts` are read."""
        growth, references = self.words.read(prefixes, texts.references)
        if self.variant == "rougeL":
            shared, order = common_subsequences(growth, references), 1
        else:
            order = int(self.variant.removeprefix("rouge"))
            shared = matches(growth, references, order, merged=False)[:, :, -1]
        said = totals(growth.lengths, order)[..., -1]
        wanted = np.where(references.lengths < 0, -1, totals(references.lengths, order)[..., -1])
        return np.where(references.known, rouge(shared, said, wanted, self.measure), np.nan)

    def advice(self, texts: Texts, scores: np.ndarray) -> str:
        """Returns a sentence that names other rewards if any reference of `texts` has no word of a-z or 0-9; else an
        empty string. `scores` [N] are not read."""
        every = [text for references in texts.references for text in references]
        silent = sum(not self.words.tokenize(text) for text in every)
        if not silent:
            return ""
        return (
            f"rouge-score makes words of a-z and 0-9 alone, and {silent} of {len(every)} references have none: "
            "reward=chrf reads any script, and so does reward=bleu (reward.tokenize=13a with spaces, zh, char)"
        )

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the mean over the texts that have a reference, 0-1, with the score of each, [B], NaN without a
        reference. NaN where no text has one."""
        settings = f"{self.variant}|{self.measure}|stemmer:{'yes' if self.stemmer else 'no'}"
        return mean_score(self(texts), f"{settings}|version:rouge-score {version('rouge-score')}")
