"""Corpus scores of sacrebleu's metrics, with the per-sentence statistics that a bootstrap resamples."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts, UserError
from tokenrl_cli.metrics.aggregates import sacrebleu_of


def library_score(metric: Any, texts: Texts, sentences: np.ndarray, appendix: str) -> CorpusScore:
    """Computes `metric.corpus_score` of a BLEU, CHRF or TER object of sacrebleu, on its own scale (TER may be above
    100), as a CorpusScore with the statistics [n, k] of each of the n texts.

    sentences [n]: the score of each text alone, on that scale, which is stored as it is. `appendix` is appended to the
    library's signature, for settings that the library leaves out of it. Texts without a reference have statistics 0 and
    change nothing. `lower_is_better` is False, for TER, too: the caller sets it. Raises UserError where no text has a
    reference.
    """
    rows = [i for i, references in enumerate(texts.references) if references]
    if not rows:
        raise UserError("metrics", "no text has a reference to be compared with")
    # sacrebleu takes references by column: the k-th reference of every text, None where a text has fewer.
    width = max(len(texts.references[i]) for i in rows)
    columns = [[texts.references[i][k] if k < len(texts.references[i]) else None for i in rows] for k in range(width)]
    found = np.array(metric._extract_corpus_statistics([texts.hypotheses[i] for i in rows], columns), dtype=np.float64)
    statistics = np.zeros((len(texts.references), found.shape[1]))
    statistics[rows] = found
    aggregate = sacrebleu_of(metric)
    signature = f"{metric.get_signature()}{appendix}"
    return CorpusScore(aggregate(statistics.sum(0)), signature, sentences, statistics, aggregate)
