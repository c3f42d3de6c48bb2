"""What a line of the column `graph` may be, and the rewards where a graph is not one that `draw` makes."""

from __future__ import annotations

import pytest

from tokenrl_cli.tasks.walks import Graph

DEAD_ENDS = Graph(((1,), (), (0, 1), (3,)), 0, 5)  # no edge leads from 1, and from 3 none to another node


@pytest.mark.parametrize("graph", [DEAD_ENDS, Graph(((),), 0, 1), Graph(((0,),), 0, 3)])
def test_a_node_may_have_no_edges(graph: Graph) -> None:
    assert Graph.parse(graph.key()) == graph


@pytest.mark.parametrize(
    "key",
    ["", "0", "0|5", "0|5| 1 ,0", "0|5|1_0|+0", "0|5|1,|0", "0|5|01|0", "0|5|1|x", "0|5|2|0", "0|5|-1|0", "2|5|1|0",
     "-1|5|1|0", "0|0|1|0", "0|-1|1|0", "0|5|1|0\n"],
)  # fmt: skip
def test_any_other_line_is_no_graph(key: str) -> None:
    assert Graph.parse("0|5|1|0")
    with pytest.raises(ValueError, match=r"graph|unpack|int"):
        Graph.parse(key)


def test_who_starts_at_the_goal_has_the_highest_reward_at_once() -> None:
    assert DEAD_ENDS.score(0, "") == DEAD_ENDS.best(0, "") == 1
    assert DEAD_ENDS.score(0, "1") == DEAD_ENDS.best(0, "1") == 0
    assert DEAD_ENDS.score(2, "0") == DEAD_ENDS.best(2, "") == 1


def test_where_the_goal_cannot_be_reached_there_is_nothing_to_gain() -> None:
    assert DEAD_ENDS.distances == (0, 4, 1, 4)
    assert DEAD_ENDS.best(1, "") == DEAD_ENDS.best(2, "1") == DEAD_ENDS.best(3, "3 3") == 0
