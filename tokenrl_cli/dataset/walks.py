"""Ways to a goal, to be put together from walks that went nowhere in particular."""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from tokenrl_cli import streams
from tokenrl_cli.config.ranges import Count, Ge, Le, Size
from tokenrl_cli.interfaces import Example, SettingError
from tokenrl_cli.tasks import walks


class Walks:
    """The source is a node of a fixed random graph, the demonstration a random walk from there, at most `limit` steps.

    Imitation earns what the walks earned; the shortest way, which is the reference, is in them only in pieces. (The
    task with which Chen et al. 2021, arXiv:2106.01345, section 5.2, and ILQL begin.) Column `graph` holds what the
    reward `walk` reads. Example i is a pure function of (corpus_seed, split, i).
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
        return self.sizes[split]

    def example(self, split: str, index: int) -> Example:
        draws = Random(streams.derive(self.corpus_seed, f"walks/{split}", index))
        start = draws.choice([node for node in range(len(self.graph.edges)) if node != self.graph.goal])
        shortest, walk = (
            " ".join(map(str, way)) for way in (self.graph.shortest(start), self.graph.wander(start, draws))
        )
        return Example(f"{split}-{index}", str(start), [shortest], [walk], {"graph": self.graph.key()})
