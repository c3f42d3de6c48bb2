"""Walks on a graph towards a goal: which are walks at all, what they earn, and the best that could still be earned."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from random import Random

Nodes = tuple[int, ...]
STRIDE = 4  # numbers that a step of a drawn graph leads down at most


@dataclass(frozen=True)
class Graph:
    """Nodes are numbers; from node u one may step to any of edges[u]. A walk has at most `limit` steps."""

    edges: tuple[Nodes, ...]
    goal: int
    limit: int

    def key(self) -> str:
        """All of it in one line, for `parse`."""
        return f"{self.goal}|{self.limit}|" + "|".join(",".join(map(str, nodes)) for nodes in self.edges)

    @staticmethod
    def parse(key: str) -> Graph:
        goal, limit, *edges = key.split("|")
        return Graph(tuple(tuple(map(int, nodes.split(","))) for nodes in edges), int(goal), int(limit))

    @cached_property
    def distances(self) -> Nodes:
        """Steps from each node to the goal, by breadth-first search; len(edges) where there is no way."""
        away = [len(self.edges)] * len(self.edges)
        away[self.goal] = 0
        waiting = deque([self.goal])
        while waiting:
            node = waiting.popleft()
            for before, following in enumerate(self.edges):
                if node in following and away[before] == len(self.edges):
                    away[before] = away[node] + 1
                    waiting.append(before)
        return tuple(away)

    def shortest(self, start: int) -> Nodes:
        """The nodes after `start` on a shortest way to the goal; of several the one with the lowest numbers."""
        walk: list[int] = []
        while start != self.goal:
            start = min(self.edges[start], key=lambda node: (self.distances[node], node))
            walk.append(start)
        return tuple(walk)

    def end(self, start: int, text: str) -> tuple[int, int] | None:
        """Where a text leads from `start`, and in how many steps. None: it is no walk, too long, or passes the goal."""
        node, steps = start, text.split()
        for step in steps:
            if node == self.goal or not step.isdecimal() or int(step) not in self.edges[node]:
                return None
            node = int(step)
        return (node, len(steps)) if len(steps) <= self.limit else None

    def score(self, start: int, text: str) -> float:
        """1 for a walk to the goal in one step, 1 / limit less for every other step; 0 for all else."""
        ended = self.end(start, text)
        return self._worth(ended[1]) if ended and ended[0] == self.goal else 0.0

    def best(self, start: int, text: str) -> float:
        """The highest score of all texts that begin so: straight on to the goal."""
        ended = self.end(start, text)
        return self._worth(ended[1] + self.distances[ended[0]]) if ended else 0.0

    def _worth(self, arrival: int) -> float:
        return max(0, self.limit + 1 - arrival) / self.limit

    def wander(self, start: int, draws: Random) -> Nodes:
        """A random walk, which ends at the goal or at the limit."""
        walk: list[int] = []
        while start != self.goal and len(walk) < self.limit:
            start = draws.choice(self.edges[start])
            walk.append(start)
        return tuple(walk)


def draw(nodes: int, degree: int, limit: int, draws: Random) -> Graph:
    """A random graph with `degree` ways out of every node. The goal is node 0, and far: no step leads more than STRIDE
    numbers down. One way out of every node leads down."""
    edges = []
    for node in range(nodes):
        near = range(max(0, node - STRIDE), nodes)
        homeward = [draws.choice(near[: min(node, STRIDE)])] if node else []
        others = [other for other in near if other != node and other not in homeward]
        edges.append(tuple(sorted(homeward + draws.sample(others, min(degree - len(homeward), len(others))))))
    return Graph(tuple(edges), 0, limit)
