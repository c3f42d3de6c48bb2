"""A data set of random walks on a graph, from which shortest paths to a goal can only be composed of pieces."""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from tokenrl_cli import streams
from tokenrl_cli.config.ranges import Count, Ge, Le, Size
from tokenrl_cli.interfaces import Example, SettingError
from tokenrl_cli.tasks import walks


class Walks:
    """Each source is a start node of one random graph, its demonstration a random walk from there of at most `limit`
    steps, its reference a shortest path to the goal (which has the reward 0 if it is longer than `limit`).

    Imitation reaches only the rewards of random walks; an offline RL method can compose better paths from pieces of
    different walks. The task is from Chen et al. 2021 (arXiv:2106.01345, section 5.2) and is used by ILQL
    (arXiv:2206.11871). The column `graph`, made by `Graph.key`, is read by the reward `walk`. Example i is a pure
    function of (corpus_seed, split, i). Raises SettingError where `degree` is not below `nodes`.
    """

    def __init__(
        self,
        nodes: Annotated[int, Ge(3), Le(10_000)],
        degree: Size,
        limit: Size,
        corpus_seed: int,
        train_size: Count,
        val_size: Count,
        test_size: Count,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        if not 1 <= degree < nodes:
            raise SettingError("degree", f"must be from 1 to {{here}}.nodes - 1, got {degree}")
        self.max_source_length, self.overlong, self.corpus_seed = max_source_length, overlong, corpus_seed
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.graph = walks.draw(nodes, degree, limit, Random(streams.derive(corpus_seed, "walks/graph", 0)))

    def size(self, split: str) -> int | None:
        """Returns the number of examples of a split, as configured; never None. Raises KeyError for a split other than
        "train", "val" and "test"."""
        return self.sizes[split]

    def example(self, split: str, index: int) -> Example:
        """Returns example `index` of a split, a pure function of (corpus_seed, split, index), made anew at each call.
        Its start node is never the goal. Neither `split` nor `index` is checked."""
        draws = Random(streams.derive(self.corpus_seed, f"walks/{split}", index))
        start = draws.choice([node for node in range(len(self.graph.edges)) if node != self.graph.goal])
        shortest, walk = (
            " ".join(map(str, way)) for way in (self.graph.shortest(start), self.graph.wander(start, draws))
        )
        return Example(f"{split}-{index}", str(start), [shortest], [walk], {"graph": self.graph.key()})
