"""Alignments have the fewest errors, and the counts of jiwer wherever these are the only ones possible."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest

from tokenrl_cli.metrics.alignments import Alignment, Counts, added, align, align_best, confusions


def read(reference: str, hypothesis: str) -> Alignment:
    return align(reference.split(), hypothesis.split())


def test_an_alignment_worked_out_by_hand() -> None:
    """One substitution, one deletion at the end."""
    found = read("the cat sat on", "the bat sat")
    assert found.operations == "CSCD"
    assert found.reference == ("the", "cat", "sat", "on")
    assert found.hypothesis == ("the", "bat", "sat", None)
    assert found.counts == Counts(2, 1, 1, 0)
    assert (found.counts.length, found.counts.errors, found.counts.rate) == (4, 2, 0.5)


def test_of_two_ways_with_as_many_errors_the_one_with_more_correct_tokens_is_taken() -> None:
    """Two substitutions would have two errors as well."""
    assert read("a b", "b c").operations == "DCI"
    assert read("a b", "b").operations == "DC"


def test_a_deletion_or_insertion_that_may_stand_in_several_places_comes_first() -> None:
    assert read("a a", "a").operations == "DC"
    assert read("a", "a a").operations == "IC"
    assert read("a b", "c").operations == "DS"


def test_empty_texts() -> None:
    assert read("", "").operations == ""
    assert read("", "a b").counts == Counts(insertions=2)
    assert read("", "a b").counts.rate == 2
    assert read("a b", "").counts == Counts(deletions=2)


def fewest_and_most_substitutions(reference: list[str], hypothesis: list[str]) -> tuple[int, int]:
    """The fewest and the most substitutions of all alignments with the fewest errors."""
    found = []
    for sign in (1, -1):
        cost = {(i, 0): (i, 0) for i in range(len(reference) + 1)} | {
            (0, j): (j, 0) for j in range(len(hypothesis) + 1)
        }
        for i in range(1, len(reference) + 1):
            for j in range(1, len(hypothesis) + 1):
                pair = (0, 0) if reference[i - 1] == hypothesis[j - 1] else (1, sign)
                steps = (((i - 1, j - 1), pair), ((i - 1, j), (1, 0)), ((i, j - 1), (1, 0)))
                cost[i, j] = min((cost[at][0] + errors, cost[at][1] + more) for at, (errors, more) in steps)
        found.append(sign * cost[len(reference), len(hypothesis)][1])
    return found[0], found[1]


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_are_jiwers_where_only_one_set_is_possible(seed: int) -> None:
    rng = np.random.default_rng(seed)
    unique = 0
    for _ in range(100):
        reference, text = (list(rng.choice(list("abcd"), rng.integers(1, 12))) for _ in range(2))
        ours, theirs = align(reference, text).counts, jiwer.process_words(" ".join(reference), " ".join(text))
        assert ours.errors == theirs.substitutions + theirs.deletions + theirs.insertions
        assert ours.length == len(reference)
        assert ours.correct + ours.substitutions + ours.insertions == len(text)
        fewest, most = fewest_and_most_substitutions(reference, text)
        assert ours.substitutions == fewest
        if fewest == most:
            unique += 1
            assert ours == Counts(theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions)
    assert 10 < unique < 100


def test_a_long_text_of_characters() -> None:
    reference = "abcdefghij" * 200
    found = align(list(reference), list(reference[3:1000] + "x" + reference[1001:] + "yz"))
    assert found.counts == Counts(1996, 1, 3, 2)


def test_of_several_references_the_one_with_the_lowest_rate_counts() -> None:
    """One error in two words is more than one in three; of equals the first."""
    found = align_best([["a", "b"], ["a", "c", "c"], ["c", "c", "a"]], ["a", "c"])
    assert (found.choice, found.operations) == (1, "CDC")
    assert align_best([["a", "b"], ["a", "d"]], ["a"]).choice == 0


def test_confusions_count_by_tokens_the_most_frequent_first() -> None:
    found = confusions([read("a b c", "x b"), read("a b", "x y"), read("b", "b z"), read("b", "b q")])
    assert found.substitutions == [("a", "x", 2), ("b", "y", 1)]
    assert found.deletions == [("c", 1)]
    assert found.insertions == [("q", 1), ("z", 1)]


def test_counts_add_up() -> None:
    assert added([Counts(1, 2, 3, 4), Counts(10, 20, 30, 40)]) == Counts(11, 22, 33, 44)
    assert added([]) == Counts()
