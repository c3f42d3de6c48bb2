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
    """A directed graph with nodes 0 .. len(edges) - 1 and edges from node u to each of edges[u]; a goal node; and
    `limit`, the largest number of steps of a walk. What is passed is not checked; `parse` checks it."""

    edges: tuple[Nodes, ...]
    goal: int
    limit: int

    def key(self) -> str:
        """Returns the whole graph in one line, for a column of the data set: goal, limit and, for each node, the nodes
        that its edges lead to, such as "0|5|1|0,1". `parse` reads it."""
        return f"{self.goal}|{self.limit}|" + "|".join(",".join(map(str, nodes)) for nodes in self.edges)

    @staticmethod
    def parse(key: str) -> Graph:
        """Returns the graph of a line that `Graph.key` wrote. Raises ValueError for any other text, and where the goal
        or the end of an edge is no node, or the limit is below 1."""
        goal, limit, *edges = key.split("|")
        following = tuple(tuple(map(int, nodes.split(","))) if nodes else () for nodes in edges)
        graph = Graph(following, int(goal), int(limit))
        named = {graph.goal, *(node for nodes in following for node in nodes)}
        if graph.key() != key or not named <= set(range(len(edges))) or graph.limit < 1:
            raise ValueError(f"is no graph: {key[:60]!r}")
        return graph

    @cached_property
    def distances(self) -> Nodes:
        """The fewest steps from each node to the goal, by breadth-first search from the goal; len(edges) for a node
        from which the goal cannot be reached."""
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
        """Returns the nodes after `start` on a shortest path to the goal, of several nodes equally near to it always
        the lowest number; an empty path from the goal itself. The path may be longer than `limit`. The goal must be
        reachable from `start`: else it raises ValueError or never ends."""
        walk: list[int] = []
        while start != self.goal:
            start = min(self.edges[start], key=lambda node: (self.distances[node], node))
            walk.append(start)
        return tuple(walk)

    def end(self, start: int, text: str) -> tuple[int, int] | None:
        """Returns (last node, number of steps) of the walk from the node `start` that a text describes: the numbers of
        the nodes after `start`, separated by white space. The walk need not reach the goal, and the empty text is a
        walk of 0 steps. None where a step is no number or follows no edge, where there are more than `limit` steps, or
        where the walk goes on after the goal."""
        node, steps = start, text.split()
        for step in steps:
            if node == self.goal or not step.isdecimal() or int(step) not in self.edges[node]:
                return None
            node = int(step)
        return (node, len(steps)) if len(steps) <= self.limit else None

    def score(self, start: int, text: str) -> float:
        """Returns the reward of a text, 0 to 1: (limit + 1 - steps) / limit for a walk from the node `start` (see
        `end`) that ends at the goal, so 1 for one step and 1 / limit less for every further one. 0 for every other
        text. With the goal as `start` the empty text has 1, and every other text 0."""
        ended = self.end(start, text)
        return self._reward(ended[1]) if ended and ended[0] == self.goal else 0.0

    def best(self, start: int, text: str) -> float:
        """Returns the highest reward (see `score`) of the walks from the node `start` that begin with the nodes of
        `text`, whose last number counts as complete: the walk that goes on by a shortest path to the goal. 0 where
        `text` is not a walk (see `end`), and where the goal cannot be reached from its last node within `limit`."""
        ended = self.end(start, text)
        if ended is None or self.distances[ended[0]] == len(self.edges):
            return 0.0
        return self._reward(ended[1] + self.distances[ended[0]])

    def _reward(self, steps: int) -> float:
        return min(1.0, max(0, self.limit + 1 - steps) / self.limit)  # no step at all is as good as one

    def wander(self, start: int, draws: Random) -> Nodes:
        """Draws a random walk from `start`, uniform over the edges of each node, until it reaches the goal or has
        `limit` steps. Returns the nodes after `start`. Raises IndexError where it comes to a node without edges."""
        walk: list[int] = []
        while start != self.goal and len(walk) < self.limit:
            start = draws.choice(self.edges[start])
            walk.append(start)
        return tuple(walk)


def draw(nodes: int, degree: int, limit: int, draws: Random) -> Graph:
    """Draws a random graph with `degree` edges out of every node (fewer where there are too few nodes to choose from);
    `nodes`, their number, and `degree` are at least 1, and `limit` is that of the `Graph`.

    The goal is node 0. No edge lowers the node number by more than STRIDE (4), so the goal is several steps away from
    most nodes; one edge of every node but the goal lowers it, so the goal can be reached from everywhere.
    """
    edges = []
    for node in range(nodes):
        # `homeward` is the edge to a lower node that every node but the goal has; the others lead anywhere allowed.
        near = range(max(0, node - STRIDE), nodes)
        homeward = [draws.choice(near[: min(node, STRIDE)])] if node else []
        others = [other for other in near if other != node and other not in homeward]
        edges.append(tuple(sorted(homeward + draws.sample(others, min(degree - len(homeward), len(others))))))
    return Graph(tuple(edges), 0, limit)
