"""Walks on a directed graph towards a goal node: whether a text is a walk, its reward, and the best reward that any
continuation of it can reach.

A walk is written as node numbers separated by spaces, without the start node.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from random import Random

Nodes = tuple[int, ...]
STRIDE = 4  # the largest decrease of the node number in one step of a drawn graph


@dataclass(frozen=True)
class Graph:
    """A directed graph with nodes 0 .. len(edges) - 1 and edges from node u to each of edges[u]; a goal node; and the
    largest number of steps of a walk."""

    edges: tuple[Nodes, ...]
    goal: int
    limit: int

    def key(self) -> str:
        """The whole graph in one line, for a column of the data set: goal, limit and the edges of each node."""
        return f"{self.goal}|{self.limit}|" + "|".join(",".join(map(str, nodes)) for nodes in self.edges)

    @staticmethod
    def parse(key: str) -> Graph:
        """The graph of a line made by `key`. Raises ValueError for any other text."""
        goal, limit, *edges = key.split("|")
        return Graph(tuple(tuple(map(int, nodes.split(","))) for nodes in edges), int(goal), int(limit))

    @cached_property
    def distances(self) -> Nodes:
        """Fewest steps from each node to the goal, by breadth-first search from the goal; len(edges) where the goal
        cannot be reached."""
        steps = [len(self.edges)] * len(self.edges)
        steps[self.goal] = 0
        queue = deque([self.goal])
        while queue:
            node = queue.popleft()
            for before, following in enumerate(self.edges):
                if node in following and steps[before] == len(self.edges):
                    steps[before] = steps[node] + 1
                    queue.append(before)
        return tuple(steps)

    def shortest(self, start: int) -> Nodes:
        """Nodes after `start` on a shortest path to the goal; of several paths the one with the lowest node numbers."""
        walk: list[int] = []
        while start != self.goal:
            start = min(self.edges[start], key=lambda node: (self.distances[node], node))
            walk.append(start)
        return tuple(walk)

    def end(self, start: int, text: str) -> tuple[int, int] | None:
        """(last node, number of steps) of the walk that a text describes from `start`; None where it is not a walk, has
        more than `limit` steps, or goes on after the goal."""
        node, steps = start, text.split()
        for step in steps:
            if node == self.goal or not step.isdecimal() or int(step) not in self.edges[node]:
                return None
            node = int(step)
        return (node, len(steps)) if len(steps) <= self.limit else None

    def score(self, start: int, text: str) -> float:
        """Reward of a text, max(0, limit + 1 - steps) / limit, for a walk from `start` that ends at the goal: 1 for one
        step, 1 / limit less for every further one. 0 for every other text."""
        ended = self.end(start, text)
        return self._reward(ended[1]) if ended and ended[0] == self.goal else 0.0

    def best(self, start: int, text: str) -> float:
        """Highest reward of all texts that begin with `text`: that of going on by a shortest path to the goal. 0 where
        `text` is not a walk."""
        ended = self.end(start, text)
        return self._reward(ended[1] + self.distances[ended[0]]) if ended else 0.0

    def _reward(self, steps: int) -> float:
        return max(0, self.limit + 1 - steps) / self.limit

    def wander(self, start: int, draws: Random) -> Nodes:
        """Draws a random walk from `start`, uniform over the edges of each node, to the goal or to the limit. Returns
        the nodes after `start`."""
        walk: list[int] = []
        while start != self.goal and len(walk) < self.limit:
            start = draws.choice(self.edges[start])
            walk.append(start)
        return tuple(walk)


def draw(nodes: int, degree: int, limit: int, draws: Random) -> Graph:
    """Draws a random graph with `degree` edges out of every node (fewer where there are too few nodes to choose from).

    The goal is node 0. No edge lowers the node number by more than STRIDE, so the goal is several steps away from most
    nodes; one edge of every node lowers it, so the goal can be reached from everywhere.
    """
    edges = []
    for node in range(nodes):
        # `homeward` is the edge to a lower node that every node but the goal has; the others lead anywhere allowed.
        near = range(max(0, node - STRIDE), nodes)
        homeward = [draws.choice(near[: min(node, STRIDE)])] if node else []
        others = [other for other in near if other != node and other not in homeward]
        edges.append(tuple(sorted(homeward + draws.sample(others, min(degree - len(homeward), len(others))))))
    return Graph(tuple(edges), 0, limit)
