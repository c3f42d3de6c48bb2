"""Expected BLEU on the embedded grammar task of a policy that models the data perfectly, and the best that is possible.

The first is the greedy output of the grammar's own distribution, which is what likelihood training converges to; the
second the translation with the highest expected sentence BLEU. The difference is what RL can gain. Both are exact: the
expectation is a sum over all translations, weighted by the grammar's probabilities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokenrl_cli.tasks.grammar import Meaning, tokens, translations

ORDERS = (1, 2, 3, 4)
Tokens = tuple[str, ...]


@dataclass(frozen=True)
class Ceiling:
    """Expected sentence BLEU, 0 to 1, of two translations of one meaning, and their texts; see `ceiling`."""

    greedy: float  # of the greedy output of the true distribution
    best: float  # the highest of all of the grammar's translations
    greedy_text: str
    best_text: str


def ceiling(meaning: Meaning) -> Ceiling:
    """Computes the expected sentence BLEU, 0 to 1, of two translations of one meaning: of the greedy output of the
    grammar's distribution over `translations(meaning)`, and of that one of these translations whose expected BLEU is
    highest (the first of equals). The expectation is over one reference drawn from the same distribution. Nothing is
    sampled: it is summed over all translations. Raises KeyError for a word that the lexicon does not have."""
    distribution = translations(meaning)
    texts = list(distribution)
    expected = expected_bleu(texts, distribution)
    greedy, best = texts.index(greedy_text(distribution)), int(np.argmax(expected))
    return Ceiling(float(expected[greedy]), float(expected[best]), texts[greedy], texts[best])


def greedy_text(distribution: Mapping[str, float]) -> str:
    """Returns the text that greedy decoding of a distribution over whole texts (text -> probability, at least one)
    gives: at each step the most probable next token given the tokens so far, until the most probable is the end. Of
    equally probable tokens the one that comes first in the mapping is taken. Texts are split by `grammar.tokens`."""
    left = [(tokens(text), text, probability) for text, probability in distribution.items()]
    position = 0
    while True:
        masses: dict[str, float] = {}  # "" is the end
        for words, _, probability in left:
            token = words[position] if position < len(words) else ""
            masses[token] = masses.get(token, 0.0) + probability
        token = max(masses, key=lambda t: masses[t])
        if not token:
            return next(text for words, text, _ in left if len(words) == position)
        left = [row for row in left if len(row[0]) > position and row[0][position] == token]
        position += 1


def expected_bleu(hypotheses: Sequence[str], references: Mapping[str, float]) -> np.ndarray:
    """Returns the expected sentence BLEU of each of H hypotheses, sum_r p(r) BLEU(hypothesis, r), with one reference r
    drawn from `references` (text -> probability, together 1). -> [H], 0 to 1. Texts are split by `grammar.tokens`."""
    probabilities = np.array(list(references.values()))
    split = [tokens(text) for text in hypotheses]
    expected: np.ndarray = sentence_bleu(split, [tokens(text) for text in references]) @ probabilities
    return expected


def sentence_bleu(hypotheses: Sequence[Tokens], references: Sequence[Tokens]) -> np.ndarray:
    """Returns the sentence BLEU of each of H hypotheses against each of R references alone. -> [H, R], 0 to 1.

    As sacrebleu's sentence BLEU (Papineni et al. 2002), orders 1 to 4, with exponential smoothing and effective order,
    of texts that are split into tokens already. 0 for a text without any matching token.
    """
    length, other = (np.array([len(words) for words in side], dtype=np.float64) for side in (hypotheses, references))
    logs, orders = np.zeros((len(length), len(other))), np.zeros((len(length), 1))
    smoothing, any_match = np.ones_like(logs), np.zeros(logs.shape, dtype=bool)
    for order in ORDERS:
        matches = _matches(hypotheses, references, order)
        total = np.maximum(length - order + 1, 0)[:, None]
        counts = total > 0
        missed = counts & (matches == 0)
        # Exponential smoothing: the first order without a match counts as 1/2 match, the second as 1/4, ...
        smoothing = np.where(missed, 2 * smoothing, smoothing)
        precision = np.where(missed, 1 / smoothing, matches) / np.maximum(total, 1)
        logs += np.where(counts, np.log(np.where(counts, precision, 1.0)), 0.0)
        orders += counts
        any_match |= matches > 0
    # The brevity penalty, and 0 for a text without any match, whatever the smoothing.
    ratio = other[None, :] / np.maximum(length, 1)[:, None]
    brevity = np.exp(np.minimum(0.0, 1 - ratio))
    return np.where(any_match, brevity * np.exp(logs / np.maximum(orders, 1)), 0.0)


def _matches(hypotheses: Sequence[Tokens], references: Sequence[Tokens], order: int) -> np.ndarray:
    """Clipped n-gram matches of H hypotheses and R references, n = `order`. -> [H, R]

    min(a, b) = sum over k >= 1 of [a >= k] [b >= k]: with one column for each pair (n-gram, k), the matches of all
    pairs of texts are one matrix product of 0s and 1s, without a loop over H * R pairs.
    """
    columns: dict[tuple[Tokens, int], int] = {}  # (n-gram, k) -> the column that is 1 where the count exceeds k

    def indicators(texts: Sequence[Tokens]) -> list[list[int]]:
        rows = []
        for words in texts:
            counts = Counter(words[i : i + order] for i in range(len(words) - order + 1))
            pairs = [(gram, k) for gram, count in counts.items() for k in range(count)]
            rows.append([columns.setdefault(pair, len(columns)) for pair in pairs])
        return rows

    places = [indicators(hypotheses), indicators(references)]
    dense = [np.zeros((len(rows), len(columns))) for rows in places]
    for matrix, rows in zip(dense, places, strict=True):
        for row, columns_of_row in zip(matrix, rows, strict=True):
            row[columns_of_row] = 1.0
    product: np.ndarray = dense[0] @ dense[1].T
    return product
