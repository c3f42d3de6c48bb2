"""n-grams that growing texts share with their references."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.metrics.compiled import compiled, loop
from tokenrl_cli.metrics.growth import Growth, References


def matches(growth: Growth, references: References, order: int, merged: bool) -> np.ndarray:
    """How many n-grams of each prefix are in each reference, each counted at most as often as it is there.

    -> [B, W, order, G] int32, n = 1 .. order; 0 where a row has no such reference. `merged`: compared with all
    references at once, an n-gram counting as often as in the reference that has it most (BLEU) -> G = 1.
    """
    sizes = np.diff(references.starts[references.sets])  # tokens of each list of references
    slots = 1 << (2 * order * int(sizes.max(initial=0)) + 1).bit_length()  # at most half full
    groups = 1 if merged else references.most
    found = np.zeros((*growth.kept.shape, order, groups), dtype=np.int32)
    by_set = np.argsort(references.rows, kind="stable")
    longest = int(growth.lengths.max(initial=0))
    _count(
        growth.tokens, growth.first, growth.kept, growth.added,
        references.tokens, references.starts, references.sets, references.rows, by_set,
        order, references.most, merged, slots, longest, found,
    )  # fmt: skip
    return found


def totals(lengths: np.ndarray, order: int) -> np.ndarray:
    """n-grams in a text of so many tokens: [...] -> [..., order]."""
    return np.maximum(lengths[..., None] - np.arange(order), 0)


@loop
def _edge(node, token):  # type: ignore[no-untyped-def]
    return (np.int64(node) << 32) | np.int64(token)


@loop
def _slot(keys, stamps, stamp, node, token):  # type: ignore[no-untyped-def]
    """Where the edge is in the table, or where it would be."""
    key, last = _edge(node, token), len(keys) - 1
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & last
    while stamps[slot] == stamp and keys[slot] != key:
        slot = (slot + 1) & last
    return slot


@compiled
def _count(  # type: ignore[no-untyped-def]
    tokens, first, kept, added, ref_tokens, ref_starts, sets, rows, by_set, order, most, merged, slots, longest, found
):
    # All n-grams of a list of references make a tree: a node is an n-gram, its children add one token to it. The edges
    # are kept in a hash table with exact keys (node, token). A text walks the tree: `ends[place, n]` is the node of its
    # (n + 1)-gram that ends at `place`, 0 where no reference has it, and then none has a longer one that ends there.
    keys = np.zeros(slots, np.int64)
    nodes = np.zeros(slots, np.int32)
    stamps = np.zeros(slots, np.int32)  # 1 + the list of references that wrote the slot
    counts = np.zeros((slots // 2 + 1, max(most, 1)), np.int32)  # [node, reference]
    held = np.zeros(slots // 2 + 1, np.int32)  # [node], how often the text has it
    ends = np.zeros((longest + 1, order), np.int32)
    matched = np.zeros((order, found.shape[3]), np.int32)
    groups = found.shape[3]
    present = -1
    size = 0
    for row in by_set:
        if rows[row] != present:
            present = rows[row]
            for node in range(size):
                for column in range(counts.shape[1]):
                    counts[node, column] = 0
            size = 1
            for reference in range(sets[present], sets[present + 1]):
                column = reference - sets[present]
                for begin in range(ref_starts[reference], ref_starts[reference + 1]):
                    node = 0
                    for place in range(begin, min(begin + order, ref_starts[reference + 1])):
                        slot = _slot(keys, stamps, present + 1, node, ref_tokens[place])
                        if stamps[slot] != present + 1:
                            stamps[slot] = present + 1
                            keys[slot] = _edge(node, ref_tokens[place])
                            nodes[slot] = size
                            size += 1
                        node = nodes[slot]
                        counts[node, column] += 1
            if merged:
                for node in range(size):
                    for column in range(1, most):
                        counts[node, 0] = max(counts[node, 0], counts[node, column])
        length = 0
        for prefix in range(kept.shape[1] + 1):
            keep = kept[row, prefix] if prefix < kept.shape[1] else 0  # at the end everything goes
            while length > keep:
                length -= 1
                for n in range(order):
                    node = ends[length, n]
                    if node == 0:
                        break
                    for group in range(groups):
                        if held[node] <= counts[node, group]:
                            matched[n, group] -= 1
                    held[node] -= 1
            if prefix == kept.shape[1]:
                break
            for place in range(first[row, prefix], first[row, prefix] + added[row, prefix]):
                for n in range(order):
                    ends[length, n] = 0
                for n in range(order):
                    if n > length:
                        break
                    parent = ends[length - 1, n - 1] if n > 0 else 0
                    if n > 0 and parent == 0:
                        break
                    slot = _slot(keys, stamps, present + 1, parent, tokens[place])
                    if stamps[slot] != present + 1:
                        break
                    node = nodes[slot]
                    ends[length, n] = node
                    held[node] += 1
                    for group in range(groups):
                        if held[node] <= counts[node, group]:
                            matched[n, group] += 1
                length += 1
            for n in range(order):
                for group in range(groups):
                    found[row, prefix, n, group] = matched[n, group]
