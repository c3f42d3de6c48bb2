"""What perfect likelihood training says on the embedded task, what would be best to say, and the gap between them.

Everything is exact: the expectation of sentence BLEU is over all translations, with the grammar's probabilities.
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
    """Expected sentence BLEU of two texts for one source, 0 to 1."""

    greedy: float  # the greedy path of the true distribution
    best: float  # the best of the grammar's own translations
    greedy_text: str
    best_text: str


def ceiling(meaning: Meaning) -> Ceiling:
    said = translations(meaning)
    texts = list(said)
    expected = expected_bleu(texts, said)
    greedy, best = texts.index(greedy_text(said)), int(np.argmax(expected))
    return Ceiling(float(expected[greedy]), float(expected[best]), texts[greedy], texts[best])


def greedy_text(distribution: Mapping[str, float]) -> str:
    """Token by token the most probable next one, the end of the text included; ties go to the first in the mapping."""
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
    """[H]: the mean sentence BLEU of each hypothesis, over a single reference drawn from `references`, 0 to 1."""
    probabilities = np.array(list(references.values()))
    said = [tokens(text) for text in hypotheses]
    expected: np.ndarray = sentence_bleu(said, [tokens(text) for text in references]) @ probabilities
    return expected


def sentence_bleu(hypotheses: Sequence[Tokens], references: Sequence[Tokens]) -> np.ndarray:
    """[H, R]: BLEU of each hypothesis against each reference alone, 0 to 1.

    sacrebleu's sentence BLEU with exponential smoothing and effective order, on texts cut into tokens.
    """
    length, other = (np.array([len(words) for words in side], dtype=np.float64) for side in (hypotheses, references))
    logs, orders = np.zeros((len(length), len(other))), np.zeros((len(length), 1))
    smoothing, any_match = np.ones_like(logs), np.zeros(logs.shape, dtype=bool)
    for order in ORDERS:
        matches = _matches(hypotheses, references, order)
        total = np.maximum(length - order + 1, 0)[:, None]
        counts = total > 0
        missed = counts & (matches == 0)
        smoothing = np.where(missed, 2 * smoothing, smoothing)
        precision = np.where(missed, 1 / smoothing, matches) / np.maximum(total, 1)
        logs += np.where(counts, np.log(np.where(counts, precision, 1.0)), 0.0)
        orders += counts
        any_match |= matches > 0
    ratio = other[None, :] / np.maximum(length, 1)[:, None]
    brevity = np.exp(np.minimum(0.0, 1 - ratio))
    return np.where(any_match, brevity * np.exp(logs / np.maximum(orders, 1)), 0.0)


def _matches(hypotheses: Sequence[Tokens], references: Sequence[Tokens], order: int) -> np.ndarray:
    """[H, R]: n-grams in common, clipped: min(a, b) is the sum over k >= 1 of [a >= k][b >= k], a matrix product."""
    columns: dict[tuple[Tokens, int], int] = {}

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
