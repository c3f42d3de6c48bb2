"""Edit distance, its optimal completion and its optimal token values, against brute force."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.values import completion_values
from tokenrl_cli.metrics.edits import (
    EditWeights,
    common_subsequences,
    edit_distances,
    fewest_edits,
    least_weighted_edits,
    prefix_distances,
    weighted_distances,
)
from tokenrl_cli.metrics.growth import Words

LETTERS = "abc"
PREFIXES = ["".join(p) for n in range(5) for p in itertools.product(LETTERS, repeat=n)]  # 121
REFERENCES = ["abca", "aab", "c", "bb", "abcab"]


def distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def weighted(text: str, reference: str, weights: EditWeights) -> float:
    """By the definition: the cheapest of all ways to turn one into the other."""

    @cache
    def least(i: int, j: int) -> float:
        if i == 0 or j == 0:
            return i * weights.insertion + j * weights.deletion
        wrong = 0.0 if text[i - 1] == reference[j - 1] else weights.substitution
        ways = least(i - 1, j) + weights.insertion, least(i, j - 1) + weights.deletion, least(i - 1, j - 1) + wrong
        return min(ways)

    return least(len(text), len(reference))


def subsequence(a: str, b: str) -> int:
    """Length of the longest common subsequence, by trying every subsequence of the shorter text."""
    a, b = sorted((a, b), key=len)
    for n in range(len(a), 0, -1):
        for kept in itertools.combinations(a, n):
            rest = iter(b)
            if all(letter in rest for letter in kept):
                return n
    return 0


def grown(text: str) -> list[str]:
    return [text[:t] for t in range(len(text) + 1)]


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_fewest_errors_still_possible_are_those_of_the_best_completion(reference: str) -> None:
    suffixes = ["".join(p) for n in range(len(reference) + 1) for p in itertools.product(LETTERS, repeat=n)]
    growth, references = Words(list, False, None).read(
        [grown(text) for text in PREFIXES], [[reference]] * len(PREFIXES)
    )
    found = fewest_edits(growth, references)[:, -1, 0]
    assert found.tolist() == [min(distance(text + suffix, reference) for suffix in suffixes) for text in PREFIXES]


# All alike; one of each dearer; one of each free; a substitution dearer than a deletion and an insertion; all free.
WEIGHTS = [
    EditWeights(*each)
    for each in [(1, 1, 1), (2, 1, 1), (1, 1.5, 0.25), (0.5, 0.3, 2), (1, 0, 1), (1, 1, 0), (0, 1, 1), (3, 1, 1)]
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weighted_distances_and_the_least_of_all_completions_are_those_of_the_definition(weights: EditWeights) -> None:
    """121 texts over 3 letters, each with its prefixes, against 3 references and the empty one side by side; every
    completion by up to as many letters as the reference has."""
    references = [*REFERENCES[1:4], ""]
    growth, read = Words(list, False, None).read([grown(text) for text in PREFIXES], [references] * len(PREFIXES))
    found, least = weighted_distances(growth, read, weights), least_weighted_edits(growth, read, weights)
    if weights == EditWeights(1, 1, 1):
        assert (found == edit_distances(growth, read)).all()
        assert (least == fewest_edits(growth, read)).all()
    for place, reference in enumerate(references):
        suffixes = ["".join(p) for n in range(len(reference) + 1) for p in itertools.product(LETTERS, repeat=n)]
        exact = {text: weighted(text, reference, weights) for text in PREFIXES}
        best = {text: min(weighted(text + s, reference, weights) for s in suffixes) for text in PREFIXES}
        for row, text in enumerate(PREFIXES):
            until = grown(text)
            assert found[row, : len(until), place] == pytest.approx([exact[each] for each in until], abs=1e-12)
            assert least[row, : len(until), place] == pytest.approx([best[each] for each in until], abs=1e-12)


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_optimal_token_values_are_those_of_the_best_completion(reference: str) -> None:
    """Oracle O26: Q*(p, a) = -min_s D(p a s, r) over all suffixes s; Q*(p, EOS) = -D(p, r)."""
    suffixes = ["".join(p) for n in range(len(reference) + 1) for p in itertools.product(LETTERS, repeat=n)]
    for text in PREFIXES[::3]:
        ids, goal = ([LETTERS.index(letter) + 1 for letter in each] for each in (text, reference))
        values = completion_values(ids, goal, 4, padding=[3])  # padded by a real id
        best = [min(distance(text + letter + suffix, reference) for suffix in suffixes) for letter in LETTERS]
        assert values[-1].tolist() == [-distance(text, reference), *(-float(each) for each in best)]


def test_distances_of_a_ragged_batch_are_those_of_each_row_alone_and_stop_at_its_ends() -> None:
    texts, lengths = np.array([[1, 2, 3], [2, 1, 1]]), np.array([3, 1])
    references, sizes = np.array([[1, 2, 3, 3], [2, 2, 1, 1]]), np.array([4, 2])
    found = prefix_distances(texts, lengths, references, sizes)
    assert found[1, :2, :3].tolist() == [[0, 1, 2], [1, 0, 1]]
    assert (found[:1] == prefix_distances(texts[:1], lengths[:1], references[:1], sizes[:1])).all()
    assert found[1, 2:].min() == found[1, :, 3:].min() == 8  # more than any distance


@pytest.mark.sample(1)
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 130])
def test_distances_across_blocks_of_64_places(size: int) -> None:
    random = np.random.default_rng(size)
    reference = "".join(random.choice(list(LETTERS), size))
    text = "".join(random.choice(list(LETTERS), 140))
    growth, references = Words(list, False, None).read([grown(text)], [[reference, reference[:5]]])
    for place, other in enumerate((reference, reference[:5])):
        every = [distance(text[:t], other) for t in range(141)]
        assert edit_distances(growth, references)[0, :, place].tolist() == every
        fewest = [min(distance(text[:t], other[:j]) for j in range(len(other) + 1)) for t in range(0, 141, 20)]
        assert fewest_edits(growth, references)[0, ::20, place].tolist() == fewest


texts = st.text(LETTERS, max_size=7)
sentences = st.text("ab  ", max_size=8)


@settings(max_examples=200, deadline=None)
@given(st.lists(sentences, min_size=1, max_size=8), sentences)
def test_a_text_may_lose_words_and_parts_of_words(strings: list[str], reference: str) -> None:
    names: dict[str, str] = {}
    growth, references = Words(str.split, False, None).read([strings], [[reference]])
    found = edit_distances(growth, references)[0, :, 0]
    for text, errors in zip(strings, found.tolist(), strict=True):
        said, wanted = (
            "".join(names.setdefault(w, chr(97 + len(names))) for w in t.split()) for t in (text, reference)
        )
        assert errors == distance(said, wanted)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.lists(texts, min_size=1, max_size=6), st.lists(texts, max_size=4)), min_size=1, max_size=4)
)
def test_a_text_may_lose_tokens_it_had(rows: list[tuple[list[str], list[str]]]) -> None:
    """The prefixes of a row are unrelated texts, the extreme of a longer word that is another token."""
    growth, references = Words(list, False, None).read([strings for strings, _ in rows], [refs for _, refs in rows])
    edits, shared = edit_distances(growth, references), common_subsequences(growth, references)
    weights = EditWeights(1.5, 0.75, 1.25)
    weighed, least = weighted_distances(growth, references, weights), least_weighted_edits(growth, references, weights)
    for row, (strings, refs) in enumerate(rows):
        for place, text in enumerate(strings):
            assert edits[row, place, : len(refs)].tolist() == [distance(text, ref) for ref in refs]
            assert shared[row, place, : len(refs)].tolist() == [subsequence(text, ref) for ref in refs]
            assert weighed[row, place, : len(refs)].tolist() == [weighted(text, ref, weights) for ref in refs]
            nearest = [min(weighted(text, ref[:j], weights) for j in range(len(ref) + 1)) for ref in refs]
            assert least[row, place, : len(refs)].tolist() == nearest
        assert not edits[row, :, len(refs) :].any()
