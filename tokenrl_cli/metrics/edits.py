"""Edit distances and longest common subsequences of every prefix of a text with its references.

B rows (texts), W prefixes of each, G references of the row with the most. What is computed for one prefix is reused for
the next: a table row belongs to the first i tokens of a text, and stays valid while they do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenrl_cli.metrics.compiled import compiled
from tokenrl_cli.metrics.growth import Growth, References


def edit_distances(growth: Growth, references: References) -> np.ndarray:
    """Returns the edit distance of each prefix in `growth` to each reference of its row: the fewest insertions,
    deletions and substitutions of tokens that turn one into the other. Levenshtein 1966. -> [B, W, G] int32, for W
    prefixes of each of B texts and G = `references.most` references, 0 where a row has no such reference."""
    return _distances(growth, references, False)


def fewest_edits(growth: Growth, references: References) -> np.ndarray:
    """Returns the edit distance of each prefix in `growth` to the nearest prefix of each reference of its row, min_j
    D(y_<=t, r_<=j): the fewest errors that any text which begins with y_<=t can have. Optimal completion distillation,
    Sabour et al. 2018 (arXiv:1810.01398), section 3. -> [B, W, G] int32, for W prefixes of each of B texts and G =
    `references.most` references, 0 where a row has no such reference."""
    return _distances(growth, references, True)


@dataclass(frozen=True)
class EditWeights:
    """What each kind of error counts, 0 or more. An insertion is a token of the text that the reference does not have,
    a deletion one of the reference that the text does not have."""

    substitution: float
    deletion: float
    insertion: float


def weighted_distances(growth: Growth, references: References, weights: EditWeights) -> np.ndarray:
    """Returns the weighted edit distance of each prefix in `growth` to each reference of its row: the least sum of
    `weights` of insertions, deletions and substitutions of tokens that lead from one to the other (Wagner & Fischer
    1974). With all weights 1 it is `edit_distances`, which is faster. -> [B, W, G] float64, 0 where a row has no such
    reference."""
    return _weighed(growth, references, weights, False)


def least_weighted_edits(growth: Growth, references: References, weights: EditWeights) -> np.ndarray:
    """Returns the least sum of `weights` of the errors that any text can have which begins with each prefix y_<=t in
    `growth`: min_j D(y_<=t, r_<=j), as in `fewest_edits`, for what follows costs nothing where it is the rest of the
    reference. -> [B, W, G] float64, 0 where a row has no such reference."""
    return _weighed(growth, references, weights, True)


def common_subsequences(growth: Growth, references: References) -> np.ndarray:
    """Returns the length in tokens of the longest common subsequence of each prefix in `growth` and each reference of
    its row. -> [B, W, G] int32, for W prefixes of each of B texts and G = `references.most` references, 0 where a row
    has no such reference."""
    table = _table(growth, references, np.int32)
    found = np.zeros((*growth.kept.shape, references.most), np.int32)
    _subsequences(
        growth.tokens, growth.first, growth.kept, growth.added,
        references.tokens, references.starts, references.sets, references.rows, table, found,
    )  # fmt: skip
    return found


def prefix_distances(
    texts: np.ndarray, lengths: np.ndarray, references: np.ndarray, reference_lengths: np.ndarray
) -> np.ndarray:
    """Returns D(y_<t, r_<j), the edit distance of every prefix of each text to every prefix of its reference, from
    which `functional.completion.optimal_values` has the optimal values of tokens.

    texts [B, T] and references [B, R], one a row, int64 ids without EOS; lengths and reference_lengths [B], past which
    ids are not read -> [B, T + 1, R + 1] int32: entry t, j is that of the first t tokens of the text and the first j of
    the reference. Past the end of a reference it is T + R + 1, which is more than any distance, and so is all of a row
    past the end of its text.
    """
    width, size = texts.shape[1], references.shape[1]
    found = np.full((len(texts), width + 1, size + 1), width + size + 1, np.int32)
    _tabulate(texts, lengths, references, reference_lengths, found)
    return found


def _table(growth: Growth, references: References, kind: type) -> np.ndarray:
    """Zeros with a row for each number of tokens of a prefix, and for each reference of the row that has the most
    tokens in all its references a column for each number of its tokens."""
    sizes = np.diff(references.starts[references.sets]) + np.diff(references.sets)
    return np.zeros((growth.longest + 1, int(sizes.max(initial=0))), kind)


def _weighed(growth: Growth, references: References, weights: EditWeights, nearest: bool) -> np.ndarray:
    table = _table(growth, references, np.float64)
    found = np.zeros((*growth.kept.shape, references.most))
    _edit_weighed(
        growth.tokens, growth.first, growth.kept, growth.added,
        references.tokens, references.starts, references.sets, references.rows,
        float(weights.substitution), float(weights.deletion), float(weights.insertion), nearest, table, found,
    )  # fmt: skip
    return found


def _distances(growth: Growth, references: References, nearest: bool) -> np.ndarray:
    found = np.zeros((*growth.kept.shape, references.most), np.int32)
    longest = int(growth.lengths.max(initial=0))
    widest = int(np.diff(references.starts).max(initial=0))
    largest = max(int(growth.tokens.max(initial=0)), int(references.tokens.max(initial=0)))
    _edit(
        growth.tokens, growth.first, growth.kept, growth.added,
        references.tokens, references.starts, references.sets, references.rows,
        np.argsort(references.rows, kind="stable"), longest, widest, largest, nearest, found,
    )  # fmt: skip
    return found


@compiled
def _edit(  # type: ignore[no-untyped-def]
    tokens, first, kept, added, ref_tokens, ref_starts, sets, rows, by_set, longest, widest, largest, nearest, found
):
    # The table of distances D[i, j] (first i tokens of the text, first j of the reference) changes by -1, 0 or 1 from j
    # to j + 1. So row i is stored as two bit strings, up[i] (bit j: +1) and down[i] (bit j: -1), and a new token of the
    # text updates 64 places of the reference by a few operations on words (Myers 1999; blocks of 64 as in Hyyro 2003).
    # A cell-by-cell table would take up to 64 times the steps. A prefix that drops tokens goes on from an earlier row.
    one, full, top = np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(63)
    most = widest // 64 + 1
    up = np.zeros((longest + 1, most), np.uint64)
    down = np.zeros((longest + 1, most), np.uint64)
    distance = np.zeros(longest + 1, np.int32)
    index = np.zeros(largest + 1, np.int32)  # token id -> its row of `where`; 0: the reference does not have it
    where = np.zeros((widest + 1, most), np.uint64)  # bit j: the token is the reference's token j
    for group in range(found.shape[2]):
        present = -1
        for row in by_set:  # rows with the same reference follow one another: `where` is filled once for all of them
            reference = sets[rows[row]] + group
            if reference >= sets[rows[row] + 1]:
                continue
            begin, end = ref_starts[reference], ref_starts[reference + 1]
            size = end - begin
            blocks = (size + 63) // 64
            if reference != present:
                # Only the entries of the last reference are cleared: `index` is as long as the largest token id.
                if present >= 0:
                    for place in range(ref_starts[present], ref_starts[present + 1]):
                        index[ref_tokens[place]] = 0
                present = reference
                distinct = 0
                for place in range(begin, end):
                    token = ref_tokens[place]
                    if index[token] == 0:
                        distinct += 1
                        index[token] = distinct
                        for block in range(blocks):
                            where[distinct, block] = np.uint64(0)
                    where[index[token], (place - begin) // 64] |= one << np.uint64((place - begin) % 64)
            for block in range(blocks):
                up[0, block] = full
                down[0, block] = np.uint64(0)
            distance[0] = size
            last = one << np.uint64((size - 1) % 64)
            length = 0
            for prefix in range(kept.shape[1]):
                length = kept[row, prefix]
                for step in range(first[row, prefix], first[row, prefix] + added[row, prefix]):
                    word = index[tokens[step]]  # row 0 of `where` stays empty
                    carry = 1  # D[i + 1, 0] = D[i, 0] + 1: one more insertion against the empty reference
                    for block in range(blocks):
                        # The names of Myers: rise, fall = Pv, Mv; vertical, across = Xv, Xh; more, less = Ph, Mh.
                        rise, fall = up[length, block], down[length, block]
                        equal = where[word, block]
                        vertical = equal | fall
                        if carry < 0:
                            equal |= one
                        across = (((equal & rise) + rise) ^ rise) | equal
                        more = fall | ~(across | rise)
                        less = rise & across
                        into = carry
                        bit = last if block == blocks - 1 else one << top
                        carry = 1 if more & bit else (-1 if less & bit else 0)
                        more = more << one
                        less = less << one
                        if into < 0:
                            less |= one
                        elif into > 0:
                            more |= one
                        up[length + 1, block] = less | ~(vertical | more)
                        down[length + 1, block] = more & vertical
                    distance[length + 1] = distance[length] + carry
                    length += 1
                if nearest:
                    here = length  # D[length, 0]; the steps are added up along the row, and the least is kept
                    least = here
                    for place in range(size):
                        shift = np.uint64(place % 64)
                        here += np.int64((up[length, place // 64] >> shift) & one)
                        here -= np.int64((down[length, place // 64] >> shift) & one)
                        least = min(least, here)
                    found[row, prefix, group] = least
                else:
                    found[row, prefix, group] = distance[length]
        if present >= 0:
            for place in range(ref_starts[present], ref_starts[present + 1]):
                index[ref_tokens[place]] = 0


@compiled
def _edit_weighed(  # type: ignore[no-untyped-def]
    tokens, first, kept, added, ref_tokens, ref_starts, sets, rows, substitution, deletion, insertion, nearest, table,
    found,
):  # fmt: skip
    # table[i, j]: weighted distance of the first i tokens of the text to the first j of a reference. The references
    # stand side by side in a row, each with a column for its empty prefix. A row is computed from the one before it, so
    # a prefix that drops tokens goes on from an earlier row. Row 0 depends on the references alone.
    for row in range(kept.shape[0]):
        begin, end = sets[rows[row]], sets[rows[row] + 1]
        column = 0
        for reference in range(begin, end):
            for place in range(ref_starts[reference + 1] - ref_starts[reference] + 1):
                table[0, column] = place * deletion
                column += 1
        for prefix in range(kept.shape[1]):
            length = kept[row, prefix]
            for step in range(first[row, prefix], first[row, prefix] + added[row, prefix]):
                above, here = table[length], table[length + 1]
                length += 1
                column = 0
                for reference in range(begin, end):
                    here[column] = length * insertion
                    for place in range(ref_starts[reference], ref_starts[reference + 1]):
                        column += 1
                        wrong = 0.0 if ref_tokens[place] == tokens[step] else substitution
                        best = min(above[column] + insertion, here[column - 1] + deletion)
                        here[column] = min(best, above[column - 1] + wrong)
                    column += 1
            column = 0
            for reference in range(begin, end):
                last = column + ref_starts[reference + 1] - ref_starts[reference]
                least = table[length, last]
                if nearest:
                    for place in range(column, last):
                        least = min(least, table[length, place])
                found[row, prefix, reference - begin] = least
                column = last + 1


@compiled
def _subsequences(tokens, first, kept, added, ref_tokens, ref_starts, sets, rows, table, found):  # type: ignore[no-untyped-def]
    # table[i, j]: longest common subsequence of the first i tokens of the text and the first j of a reference. The
    # references stand side by side in a row, each with a column for its empty prefix. A row is computed from the one
    # before it, so a prefix that drops tokens goes on from an earlier row; row 0 stays 0.
    for row in range(kept.shape[0]):
        begin, end = sets[rows[row]], sets[rows[row] + 1]
        for prefix in range(kept.shape[1]):
            length = kept[row, prefix]
            for step in range(first[row, prefix], first[row, prefix] + added[row, prefix]):
                above, here = table[length], table[length + 1]
                length += 1
                column = 0
                for reference in range(begin, end):
                    left = 0
                    here[column] = 0
                    for place in range(ref_starts[reference], ref_starts[reference + 1]):
                        column += 1
                        same = ref_tokens[place] == tokens[step]
                        left = above[column - 1] + 1 if same else max(above[column], left)
                        here[column] = left
                    column += 1
            column = 0
            for reference in range(begin, end):
                column += ref_starts[reference + 1] - ref_starts[reference]
                found[row, prefix, reference - begin] = table[length, column]
                column += 1


@compiled
def _tabulate(texts, lengths, references, reference_lengths, found):  # type: ignore[no-untyped-def]
    # errors[j] is the edit distance of the first `step` tokens of the text to the first j tokens of the reference.
    for row in range(texts.shape[0]):
        size = reference_lengths[row]
        errors = np.arange(size + 1)
        for step in range(lengths[row] + 1):
            if step > 0:
                diagonal = errors[0]
                errors[0] = step
                for place in range(1, size + 1):
                    wrong = 0 if references[row, place - 1] == texts[row, step - 1] else 1
                    best = min(min(errors[place], errors[place - 1]) + 1, diagonal + wrong)
                    diagonal = errors[place]
                    errors[place] = best
            found[row, step, : size + 1] = errors
