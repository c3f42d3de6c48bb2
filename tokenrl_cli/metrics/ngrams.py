"""Counts of the n-grams that each prefix of a text shares with its references, by a hash table of integers.

The n-grams of a list of references form a tree (a trie): node 0 is the empty n-gram, and the child of a node along a
token is the n-gram with that token appended. A node number is thereby the id of an n-gram of any order, and finding the
id of the next longer n-gram is one look-up of the pair (node, token). The pairs are the keys of an open-addressing hash
table made of arrays, which a compiled loop can use (it cannot use a Python dictionary).

A worked example: the reference "a b a", n-grams up to order 2, the token ids a = 0 and b = 1. From each place of the
reference its n-grams are inserted; a pair that is new gets the next node number. `counts` holds how often the reference
has each n-gram:

    n-gram    pair (node, token)    slot    node    counts
    "a"       (0, 0)                   0       1         2    from both places
    "a b"     (1, 1)                  14       2         1
    "b"       (0, 1)                   9       3         1
    "b a"     (3, 0)                  15       4         1

The slot of a pair is that of its key, `node << 32 | token`, times 2^64 / golden ratio (Fibonacci hashing), of which 4
bits are taken for the 16 slots of this example; where another pair stands there already, the next slot is tried:

>>> def slot(node, token):
...     return ((node << 32 | token) * 0x9E3779B97F4A7C15 % 2**64 >> 32) % 16
>>> [slot(0, 0), slot(1, 1), slot(0, 1), slot(3, 0), slot(1, 0)]
[0, 14, 9, 15, 5]

The text "a a b" is then read token by token. "a" is pair (0, 0): node 1, a match. The second "a" is node 1 again, the
second of two that the reference has: a match. Its bigram "a a" is pair (1, 0), whose slot 5 is empty: the reference
does not have it. "b" is node 3, and "a b" is pair (1, 1), node 2: two more matches. A third "a" would not count, for
the reference has two. So the matches of order 1 and 2 are, after each prefix:

>>> from tokenrl_cli.metrics.growth import Words
>>> growth, references = Words(str.split, neighbours=False, whole=None).read([["a", "a a", "a a b"]], [["a b a"]])
>>> matches(growth, references, order=2, merged=True)[0, :, :, 0].tolist()
[[1, 0], [2, 0], [3, 1]]
"""

from __future__ import annotations

import numpy as np

from tokenrl_cli.metrics.compiled import compiled, loop
from tokenrl_cli.metrics.growth import Growth, References


def matches(growth: Growth, references: References, order: int, merged: bool) -> np.ndarray:
    """Returns the clipped n-gram matches of each prefix in `growth`: the number of its n-grams that a reference of its
    row has, each n-gram counted at most as often as in that reference. Papineni et al. 2002, section 2.1.1.

    -> [B, W, order, G] int32, for W prefixes of each of B texts, n = 1 .. order and the G = `references.most`
    references; 0 where a row has no such reference. With `merged` (for BLEU) G is 1: all references of a row are
    compared with at once, and an n-gram counts at most as often as in the reference that has it most often.
    """
    sizes = np.diff(references.starts[references.sets])  # tokens of each list of references
    # At most half of the slots are taken: in a fuller table the runs of taken slots, and with them look-ups, get long.
    slots = 1 << (2 * order * int(sizes.max(initial=0)) + 1).bit_length()
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
    """Returns the numbers of n-grams, n = 1 .. order, of texts of `lengths` tokens: max(length - n + 1, 0). lengths
    [...] -> [..., order]; 0 for a length below 0."""
    return np.maximum(lengths[..., None] - np.arange(order), 0)


@loop
def _edge(node, token):  # type: ignore[no-untyped-def]
    """Key of the pair: exact, so that two n-grams never share a node."""
    return (np.int64(node) << 32) | np.int64(token)


@loop
def _slot(keys, stamps, stamp, node, token):  # type: ignore[no-untyped-def]
    """Slot of the pair (node, token): the one that holds it, or else the first free one, where it would be stored.

    A slot counts as taken only if its stamp is that of the current list of references. So a new stamp
    empties the table for the next list, without a pass over all slots.
    """
    key, last = _edge(node, token), len(keys) - 1
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & last
    while stamps[slot] == stamp and keys[slot] != key:
        slot = (slot + 1) & last
    return slot


@compiled
def _count(  # type: ignore[no-untyped-def]
    tokens, first, kept, added, ref_tokens, ref_starts, sets, rows, by_set, order, most, merged, slots, longest, found
):
    # The module's docstring has an example. ends[place, n] is the node of the text's (n + 1)-gram that ends at `place`,
    # 0 where no reference has it; then no reference has a longer n-gram that ends there, and the search stops.
    keys = np.zeros(slots, np.int64)
    nodes = np.zeros(slots, np.int32)
    stamps = np.zeros(slots, np.int32)  # 1 + the number of the list of references that wrote the slot last
    counts = np.zeros((slots // 2 + 1, max(most, 1)), np.int32)  # [node, reference], how often the reference has it
    in_text = np.zeros(slots // 2 + 1, np.int32)  # [node], how often the present prefix has it
    ends = np.zeros((longest + 1, order), np.int32)
    matched = np.zeros((order, found.shape[3]), np.int32)
    groups = found.shape[3]
    present = -1
    size = 0
    for row in by_set:  # rows with the same references follow one another: the tree is built once for all of them
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
            keep = kept[row, prefix] if prefix < kept.shape[1] else 0  # after the last prefix all counts go back to 0
            while length > keep:
                length -= 1
                for n in range(order):
                    node = ends[length, n]
                    if node == 0:
                        break
                    for group in range(groups):
                        if in_text[node] <= counts[node, group]:
                            matched[n, group] -= 1
                    in_text[node] -= 1
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
                    in_text[node] += 1
                    for group in range(groups):
                        if in_text[node] <= counts[node, group]:
                            matched[n, group] += 1
                length += 1
            for n in range(order):
                for group in range(groups):
                    found[row, prefix, n, group] = matched[n, group]
