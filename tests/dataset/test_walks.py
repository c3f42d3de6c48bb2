"""Rewards of walks equal those found by listing all walks of a small graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest

from tokenrl_cli.dataset.walks import Walks
from tokenrl_cli.interfaces import Dataset, Texts, UserError
from tokenrl_cli.reward.walk import Walk
from tokenrl_cli.tasks.walks import Graph, draw

SMALL = Graph(((1, 2), (0, 3), (1, 3), (2, 4), (4, 3)), 0, 4)


def dataset(**changes: Any) -> Walks:
    values: dict[str, Any] = {"nodes": 21, "degree": 3, "limit": 12, "corpus_seed": 1, "train_size": 300}
    values |= {"val_size": 20, "test_size": 30, "max_source_length": 4, "overlong": "truncate"}
    return Walks(**(values | changes))


def words(length: int) -> Iterator[str]:
    """All texts of node numbers of the small graph up to a length; "5" is not a node."""
    for n in range(length + 1):
        for nodes in itertools.product("012345", repeat=n):
            yield " ".join(nodes)


def by_hand(start: int, text: str) -> float:
    node, path = start, [int(word) for word in text.split()]
    for k, following in enumerate(path):
        if node == 0 or node == 5 or following not in SMALL.edges[node]:
            return 0.0
        node = following
        if k == 4:
            return 0.0
    return 1 - (len(path) - 1) / 4 if path and node == 0 else 0.0


@pytest.mark.parametrize("start", [1, 2, 3, 4])
def test_scores_and_what_is_still_to_be_had_are_those_of_all_texts(start: int) -> None:
    """`best` of every prefix is the highest score of all listed texts that begin with it."""
    scores = {text: by_hand(start, text) for text in words(5)}
    assert all(SMALL.score(start, text) == score for text, score in scores.items())
    best = dict.fromkeys(words(3), 0.0)
    for text, score in scores.items():
        nodes = text.split()
        for n in range(min(3, len(nodes)) + 1):
            best[" ".join(nodes[:n])] = max(best[" ".join(nodes[:n])], score)
    assert all(SMALL.best(start, prefix) == score for prefix, score in best.items())
    assert max(scores.values()) == SMALL.score(start, " ".join(map(str, SMALL.shortest(start))))


def test_what_is_no_number_is_no_walk() -> None:
    assert SMALL.score(1, "0") == 1
    assert SMALL.score(1, "zero") == SMALL.score(1, "-0") == SMALL.score(1, "") == 0


def test_a_graph_goes_through_its_key() -> None:
    for graph in (SMALL, draw(21, 3, 12, Random(5))):
        again = Graph.parse(graph.key())
        assert again == graph
        assert again.distances == graph.distances


@pytest.mark.parametrize("seed", range(5))
def test_every_node_leads_to_the_goal_and_some_from_afar(seed: int) -> None:
    graph = draw(21, 3, 12, Random(seed))
    assert max(graph.distances) < 12
    assert sum(away > 4 for away in graph.distances) >= 5
    assert all(len(set(nodes)) == 3 and node not in nodes for node, nodes in enumerate(graph.edges))


def test_demonstrations_wander_and_references_are_the_shortest() -> None:
    data = dataset()
    assert isinstance(data, Dataset)
    assert [data.size(split) for split in ("train", "val", "test")] == [300, 20, 30]
    graph, earned, best = data.graph, [], []
    steps = np.zeros((21, 21))
    for index in range(300):
        example = data.example("train", index)
        assert example == dataset().example("train", index)
        start, walk = int(example.source), example.demonstrations[0]
        ended = graph.end(start, walk)
        assert ended is not None
        assert ended[0] == 0 or ended[1] == 12
        assert start != 0
        earned.append(graph.score(start, walk))
        best.append(graph.score(start, example.references[0]))
        assert best[-1] == graph.best(start, "")
        path = [start, *map(int, walk.split())]
        for here, there in itertools.pairwise(path):
            steps[here, there] += 1
    assert np.mean(earned) < 0.2
    assert np.mean(best) > 0.6
    often = steps.sum(1) > 150
    share = (steps / np.maximum(steps.sum(1, keepdims=True), 1))[often]
    assert often.sum() > 3
    assert np.abs(share[share > 0] - 1 / 3).max() < 0.15


def test_the_reward_and_its_prefixes() -> None:
    hypotheses = ["2 1 0", "2 1", "3 4", "2 1 0 1", "9"]
    prefixes = [["", *(" ".join(text.split()[: n + 1]) for n in range(len(text.split())))] for text in hypotheses]
    none = np.zeros((5, 0), dtype=np.int64)
    columns: dict[str, list[Any]] = {"graph": [SMALL.key()] * 5}
    texts = Texts(hypotheses, [[]] * 5, ["3"] * 5, columns, none, none.astype(bool), np.ones(5, bool), 0)
    reward = Walk()
    assert reward(texts).tolist() == [0.5, 0, 0, 0, 0]
    assert reward.corpus(texts).value == 0.1
    assert reward.prefix_scores(texts, prefixes).tolist() == [
        [0, 0, 0, 0.5, 0], [0] * 5, [0] * 5, [0, 0, 0, 0.5, 0], [0] * 5,
    ]  # fmt: skip
    best = reward.completion_scores(texts, prefixes)
    assert best.tolist() == [
        [0.5, 0.5, 0.5, 0.5, 0], [0.5, 0.5, 0, 0, 0], [0.5, 0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5, 0], [0.5, 0, 0, 0, 0],
    ]  # fmt: skip
    texts.columns.clear()
    with pytest.raises(UserError, match="walk: needs the column 'graph'"):
        reward(texts)


@pytest.mark.parametrize(
    ("graph", "source", "told"),
    [
        ("0|5|1", "0", r"the column 'graph' is no graph: '0\|5\|1'"),
        (7, "3", "the column 'graph' is no graph: '7'"),
        ([1], "3", r"the column 'graph' is no graph: '\[1\]'"),
        (SMALL.key(), "three", "the source 'three' is no node of its graph"),
        (SMALL.key(), "5", "the source '5' is no node of its graph"),
        (SMALL.key(), "-1", "the source '-1' is no node of its graph"),
        (SMALL.key(), "9" * 5000, "the source '9+' is no node of its graph"),
    ],
)
def test_data_that_are_no_walks_are_named(graph: Any, source: str, told: str) -> None:
    none = np.zeros((1, 0), dtype=np.int64)
    texts = Texts(["2"], [[]], [source], {"graph": [graph]}, none, none.astype(bool), np.ones(1, bool), 0)
    with pytest.raises(UserError, match=f"^walk: {told}"):
        Walk()(texts)


@pytest.mark.parametrize(("key", "value"), [("degree", 0), ("degree", 21)])
def test_values_out_of_range_are_refused(key: str, value: int) -> None:
    with pytest.raises(UserError, match=f"^{key}"):
        dataset(**{key: value})
