"""Alignments of generated texts to references, token by token: the errors behind an error rate, and their counts.

Among the alignments with the fewest errors (Levenshtein 1966) the one with the fewest substitutions is taken, which is
the one with the most correct tokens, so that the four counts of a pair depend on no further choice; the costs of NIST's
sclite (substitution 4, deletion and insertion 3) choose the same among these. Where several remain, the one is taken
that, read from the end, has a pair of tokens before a deletion, and a deletion before an insertion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tokenrl_cli.metrics.compiled import compiled

OPERATIONS = "CSDI"  # correct, substitution, deletion (of a token of the reference), insertion (into the text)


@dataclass(frozen=True)
class Alignment:
    """A text aligned to a reference: one place for each operation, with the token of either side there."""

    operations: str  # one letter of OPERATIONS for each place
    reference: tuple[str | None, ...]  # its token at each place; None where the text has an insertion
    hypothesis: tuple[str | None, ...]  # that of the text; None where a token of the reference was deleted
    choice: int = 0  # which of the references this is

    @property
    def counts(self) -> Counts:
        """The number of places with each operation."""
        return Counts(*map(self.operations.count, OPERATIONS))


@dataclass(frozen=True)
class Counts:
    """Numbers of tokens: the sum over texts is the sum of each."""

    correct: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def length(self) -> int:
        """The number of tokens of the reference."""
        return self.correct + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together: the edit distance."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors over the length of the reference; where that is 0, the number of errors."""
        return self.errors / max(self.length, 1)


def added(several: Iterable[Counts]) -> Counts:
    """Returns the sum of counts; all 0 of none."""
    rows = [(each.correct, each.substitutions, each.deletions, each.insertions) for each in several]
    return Counts(*(int(sum(column)) for column in zip(*rows, strict=True))) if rows else Counts()


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> Alignment:
    """Returns the alignment of the tokens of a text to those of its reference, by the rule at the head of this module.
    Takes time and memory (one byte) for every pair of a token of either."""
    ids: dict[str, int] = {}
    rows, columns = (
        np.array([ids.setdefault(token, len(ids)) for token in tokens], np.int64) for tokens in (reference, hypothesis)
    )
    path = np.zeros(len(reference) + len(hypothesis), np.uint8)
    operations = "".join(OPERATIONS[code] for code in path[: _trace(rows, columns, path)][::-1])
    given, generated = iter(reference), iter(hypothesis)
    return Alignment(
        operations,
        tuple(None if each == "I" else next(given) for each in operations),
        tuple(None if each == "D" else next(generated) for each in operations),
    )


def align_best(references: Sequence[Sequence[str]], hypothesis: Sequence[str]) -> Alignment:
    """Returns the alignment of a text to that of its references, at least one, which gives the lowest rate of errors,
    the first of several. `choice` is the index of that reference."""
    found = [align(reference, hypothesis) for reference in references]
    best = min(range(len(found)), key=lambda index: found[index].counts.rate)
    return Alignment(found[best].operations, found[best].reference, found[best].hypothesis, best)


@dataclass(frozen=True)
class Confusions:
    """Which tokens went wrong, and how often: the most frequent first, among equals in the order of the alphabet."""

    substitutions: list[tuple[str, str, int]]  # token of the reference, token of the text, count
    deletions: list[tuple[str, int]]  # token of the reference, count
    insertions: list[tuple[str, int]]  # token of the text, count


def confusions(alignments: Iterable[Alignment]) -> Confusions:
    """Returns the errors of all alignments, counted by their tokens."""
    counted: dict[str, Counter[tuple[str | None, str | None]]] = {each: Counter() for each in OPERATIONS}
    for each in alignments:
        for operation, *pair in zip(each.operations, each.reference, each.hypothesis, strict=True):
            if operation != "C":
                counted[operation][pair[0], pair[1]] += 1

    def ordered(operation: str) -> list[tuple[str, str, int]]:
        rows = [(one or "", other or "", count) for (one, other), count in counted[operation].items()]
        return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))

    return Confusions(
        ordered("S"),
        [(token, count) for token, _, count in ordered("D")],
        [(token, count) for _, token, count in ordered("I")],
    )


@compiled
def _trace(reference, hypothesis, path):  # type: ignore[no-untyped-def]
    # cost[j]: of the first i tokens of the reference and the first j of the text, errors * unit + substitutions, which
    # compares errors first, for there are fewer than `unit` substitutions. back[i, j] is the last operation, an index
    # of OPERATIONS. `path` is filled from the end of the texts to their beginning; returned is how much of it.
    rows, columns = len(reference), len(hypothesis)
    unit = rows + columns + 1
    back = np.zeros((rows + 1, columns + 1), np.uint8)
    cost = np.arange(columns + 1) * unit
    back[0, :] = 3
    for i in range(1, rows + 1):
        diagonal = cost[0]
        cost[0] = i * unit
        back[i, 0] = 2
        for j in range(1, columns + 1):
            equal = reference[i - 1] == hypothesis[j - 1]
            best, operation = diagonal + (0 if equal else unit + 1), 0 if equal else 1
            diagonal = cost[j]
            if cost[j] + unit < best:
                best, operation = cost[j] + unit, 2
            if cost[j - 1] + unit < best:
                best, operation = cost[j - 1] + unit, 3
            cost[j] = best
            back[i, j] = operation
    i, j, size = rows, columns, 0
    while i > 0 or j > 0:
        operation = back[i, j]
        path[size] = operation
        size += 1
        if operation != 3:
            i -= 1
        if operation != 2:
            j -= 1
    return size
