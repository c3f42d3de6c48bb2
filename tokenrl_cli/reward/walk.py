"""The reward of a walk towards a goal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache

import numpy as np

from tokenrl_cli.interfaces import CorpusScore, Texts, UserError
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.tasks.walks import Graph

parsed = lru_cache(64)(Graph.parse)


class Walk:
    """The reward of a walk on a graph, 0 to 1: 1 for a walk that reaches the goal in one step, 1 / limit less for every
    further step (see `Graph.score`).

    0 for a text that ends elsewhere, is no walk, has more than `limit` steps, or goes on from the goal. The graph is
    read from the column `graph`, made by `Graph.key`; the source of a text is the number of its start node.
    """

    needs_references = False

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64, from 0 to 1. Raises UserError where the dataset has no column
        `graph`, and where a graph or a source cannot be read."""
        starts = _starts(texts)
        scored = [graph.score(start, text) for (graph, start), text in zip(starts, texts.hypotheses, strict=True)]
        return np.array(scored, dtype=np.float64)

    def prefix_scores(self, texts: Texts, prefixes: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the score, 0 to 1, of every prefix, read as a whole text, [B, T + 1] float64: column t after t
        tokens, 0 past the end of a row. `prefixes` holds the T_b + 1 prefixes of each row b, and T is the largest T_b.
        `texts` gives the graph and the start of each row; its hypotheses are not read. Raises UserError where the
        dataset has no column `graph`, and where a graph or a source cannot be read."""
        return _each(texts, prefixes, Graph.score)

    def completion_scores(self, texts: Texts, prefixes: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the best score, 0 to 1, that a text which begins with each prefix can have, [B, T + 1] float64;
        exact, by breadth-first search, with the last number of a prefix taken as complete. At the end of a row it is
        the score of the hypothesis in `texts`, past the end 0. `prefixes` holds the T_b + 1 prefixes of each row b.
        Raises UserError where the dataset has no column `graph`, and where a graph or a source cannot be read."""
        scores = _each(texts, prefixes, Graph.best)
        scores[np.arange(len(prefixes)), [len(row) - 1 for row in prefixes]] = self(texts)
        return scores

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the mean over the texts, 0-1, with the score of each, [B]. Raises UserError where the dataset has no
        column `graph`, and where a graph or a source cannot be read."""
        return mean_score(self(texts), "walk|goal:1|further step:-1/limit|else:0")


def _starts(texts: Texts) -> list[tuple[Graph, int]]:
    if "graph" not in texts.columns:
        problem = "needs the column 'graph', which the dataset does not have"
        raise UserError("walk", problem, "choose dataset=walks, or leave walk out of reward and metrics")
    return [_start(str(key), source) for key, source in zip(texts.columns["graph"], texts.sources, strict=True)]


def _start(key: str, source: str) -> tuple[Graph, int]:
    remedy = "write both as dataset=walks does"
    try:
        graph = parsed(key)
    except ValueError:
        raise UserError("walk", f"the column 'graph' is no graph: {key[:60]!r}", remedy) from None
    with suppress(ValueError):
        if 0 <= (node := int(source)) < len(graph.edges):
            return graph, node
    raise UserError("walk", f"the source {source[:60]!r} is no node of its graph", remedy)


def _each(texts: Texts, prefixes: Sequence[Sequence[str]], how: Callable[[Graph, int, str], float]) -> np.ndarray:
    scores = np.zeros((len(prefixes), max(map(len, prefixes), default=1)))
    for row, said, (graph, start) in zip(scores, prefixes, _starts(texts), strict=True):
        row[: len(said)] = [how(graph, start, text) for text in said]
    return scores
