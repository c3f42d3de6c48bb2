"""The loss of every algorithm that learns values, token by token, with every network saying something else."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.values import around, every_text, loss_of, minibatch_of
from tests.world import RECORDED, TabularPolicy, batch_of
from tokenrl_cli.algorithm.parts.data import Minibatch
from tokenrl_cli.interfaces import Rollout

Token = Callable[[int, int, int, int, float, bool], Any]
TAU, STATES = 0.7, len(RECORDED.states)
HIDDEN = torch.eye(STATES + 1, dtype=torch.float64)  # the last state is past the end


def told_apart(algorithm: Any) -> Any:
    """Every parameter of every network is another number."""
    parts = [algorithm.network, algorithm.target]
    parts += [getattr(getattr(algorithm, name, None), "model", None) for name in ("prior", "acting")]
    for number, part in enumerate(part for part in parts if part is not None):
        draw = torch.Generator().manual_seed(number)
        for parameter in part.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return algorithm


def minibatch() -> Minibatch:
    """All that can be said, some of it twice, with weights of their own."""
    rollout = every_text("delta")
    rows = torch.tensor([0, 2, 5, 6, 9, 13, 14, 5])
    weights = torch.linspace(0.3, 1.0, len(rows), dtype=torch.float64)
    return minibatch_of(rollout.rows(rows), weights)


def states(rollout: Rollout) -> list[list[int]]:
    """The number of every state of each episode, and of the one after its last token."""
    found = []
    for row, mask in zip(rollout.actions.tolist(), rollout.mask.tolist(), strict=True):
        said = row[: sum(mask)]
        found.append([RECORDED.states[tuple(said[:t])] for t in range(len(said))] + [STATES])
    return found


def tables(network: Any, scale: float = 1.0) -> Tensor:
    """Q [H, S + 1, V] of the heads on a model, with a gradient."""
    q: Tensor = network.heads["q"](HIDDEN, lambda hidden: scale * hidden[:, :STATES] @ network.model.table)
    return q


def check(algorithm: Any, rows: Minibatch, each: Token, starts: str = "all") -> None:
    """`each(row, t, state, following, reward, over)` is the loss of a token; against the algorithm's loss, where
    what was cut at the limit is over and where it goes on."""
    for goes_on in (False, True):
        algorithm.bootstrap_truncated = goes_on
        compare(algorithm, rows, each, starts)


def compare(algorithm: Any, rows: Minibatch, each: Token, starts: str = "all") -> None:
    episodes = rows.episodes
    assert episodes.rewards is not None
    total, count = torch.zeros((), dtype=torch.float64), 0
    for i, path in enumerate(states(episodes)):
        for t in range(len(path) - 1 if starts == "all" else 1):
            last = t == len(path) - 2
            over = last and (bool(episodes.ended[i]) or not algorithm.bootstrap_truncated)
            loss = each(i, t, path[t], path[t + 1], float(episodes.rewards[i, t]), over)
            total = total + float(rows.weights[i]) * loss
            count += 1
    learning = algorithm.network.trainable()
    wanted = torch.autograd.grad(total / count, learning, retain_graph=True, allow_unused=True)
    output = loss_of(algorithm, rows)
    found = torch.autograd.grad(output.loss, learning, allow_unused=True)
    assert output.loss.item() == pytest.approx(total.item() / count, abs=1e-10)
    compared = 0
    for parameter, ours, theirs in zip(learning, found, wanted, strict=True):
        nothing = torch.zeros_like(parameter)
        ours, theirs = nothing if ours is None else ours, nothing if theirs is None else theirs
        assert (ours - theirs).abs().max() < 1e-10
        compared += float(theirs.abs().max()) > 1e-6
    assert compared > 0


BACKUPS = {
    "maximum": "dqn",
    "double": "double_dqn",
    "double conservative": "double_dqn conservatism=0.6",
    "expected": "dqn algorithm/acting=tilted algorithm/backup=expected acting.beta=1.5",
    "dueling": "dueling_dqn",
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("heads", ["one", "two"])
@pytest.mark.parametrize("kind", BACKUPS)
def test_q_learning_by_hand(kind: str, heads: str) -> None:
    """Which network chooses and which values, the lower of two heads, and the error of each head by itself."""
    words = BACKUPS[kind].split()
    if heads == "two":
        if kind == "dueling":
            pytest.skip("has one")
        words.append("algorithm/head=two")
    algorithm = told_apart(around(*words))
    rows = minibatch()
    q, target = tables(algorithm.network), tables(algorithm.target).detach()
    low, online = target.amin(0), q.detach().amin(0)
    push = 0.6 if "conservative" in kind else 0.0

    def value(state: int) -> float:
        if kind.startswith(("double", "dueling")):
            return float(low[state, int(online[state].argmax())])
        if kind == "expected":
            prior = algorithm.acting.model.table if state < STATES else torch.zeros(STATES, 3, dtype=torch.float64)
            logits = prior[state if state < STATES else 0].log_softmax(-1) + 1.5 * online[state]
            return float((logits.softmax(-1) * low[state]).sum())
        return float(low[state].max())

    def each(i: int, t: int, state: int, following: int, reward: float, over: bool) -> Tensor:
        action = int(rows.episodes.actions[i, t])
        wanted = reward + (0.0 if over else value(following))
        errors = [(wanted - head[state, action]) ** 2 / 2 for head in q]
        pushed = [head[state].exp().sum().log() - head[state, action] for head in q]
        return sum(errors) + push * sum(pushed)  # type: ignore[return-value]

    check(algorithm, rows, each)


@pytest.mark.parametrize("horizon", [None, 2])
def test_returns_of_several_tokens_by_hand(horizon: int | None) -> None:
    algorithm = told_apart(around("mc_q" if horizon is None else "dqn"))
    if horizon is not None:
        algorithm.horizon = horizon
    rows = minibatch()
    q = tables(algorithm.network)
    low = q.detach()[0] if horizon is None else tables(algorithm.target).detach().amin(0)
    paths = states(rows.episodes)

    def each(i: int, t: int, state: int, following: int, reward: float, over: bool) -> Tensor:
        rewards = rows.episodes.rewards[i, : len(paths[i]) - 1].tolist()  # type: ignore[index]
        stop = len(rewards) if horizon is None else min(t + horizon, len(rewards))
        wanted = sum(rewards[t:stop]) + (float(low[paths[i][stop]].max()) if stop < len(rewards) else 0.0)
        return (wanted - q[0, state, int(rows.episodes.actions[i, t])]) ** 2 / 2

    compare(algorithm, rows, each)


@pytest.mark.sample(3)
@pytest.mark.parametrize("prior", ["reference", "uniform"])
@pytest.mark.parametrize("head", ["linear", "two", "dueling", "logits"])
def test_soft_q_learning_by_hand(head: str, prior: str) -> None:
    if (head, prior) == ("logits", "reference"):
        pytest.skip("is refused")
    words = [f"temperature={TAU}", f"algorithm/head={head}", f"algorithm/prior={prior}"]
    algorithm = told_apart(around("soft_q", *words))
    rows = minibatch()
    q, low = tables(algorithm.network, TAU), tables(algorithm.target, TAU).detach().amin(0)
    before = torch.zeros(STATES + 1, 3, dtype=torch.float64)
    if prior == "reference":
        before = torch.cat([algorithm.prior.model.table, before[:1]]).log_softmax(-1)

    def each(i: int, t: int, state: int, following: int, reward: float, over: bool) -> Tensor:
        value = sum(
            math.exp(p + x / TAU) for p, x in zip(before[following].tolist(), low[following].tolist(), strict=True)
        )
        wanted = reward + (0.0 if over else TAU * math.log(value))
        action = int(rows.episodes.actions[i, t])
        return sum((wanted - one[state, action]) ** 2 / 2 for one in q)  # type: ignore[return-value]

    check(algorithm, rows, each)


@pytest.mark.sample(8)
@pytest.mark.parametrize("prior", ["reference", "uniform"])
@pytest.mark.parametrize(
    "words",
    ["pcl consistency.span=1", "pcl consistency.span=2", "pcl", "pcl every_state=false", "shiq",
     "pcl algorithm/state_value=tied consistency.span=1", "oreo"],
)  # fmt: skip
def test_path_consistency_by_hand(words: str, prior: str) -> None:
    name, *rest = words.split()
    more = [f"temperature={TAU}", f"algorithm/prior={prior}"]
    algorithm = told_apart(around(name, *more, *rest))
    rows, paths = minibatch(), states(minibatch().episodes)
    span = 1 if "span=1" in words else 2 if "span=2" in words else 99
    table = torch.cat([algorithm.model.table, torch.zeros(1, 3, dtype=torch.float64)])
    other = torch.zeros_like(table)
    if prior == "reference":
        other = torch.cat([algorithm.prior.model.table, other[:1]]).log_softmax(-1)
    ratio = table.log_softmax(-1) - other
    linear = algorithm.state_value.head.linear
    values = HIDDEN @ linear.weight[0] + linear.bias
    if name == "shiq" or "tied" in words:
        level = other.logsumexp(-1) if prior == "reference" else 0.0
        raw = torch.cat([algorithm.prior.model.table, other[-1:] * 0]).logsumexp(-1) if prior == "reference" else level
        values = values + TAU * (table.logsumexp(-1) - raw)

    def each(i: int, t: int, state: int, following: int, reward: float, over: bool) -> Tensor:
        path, rewards = paths[i], rows.episodes.rewards[i].tolist()  # type: ignore[index]
        length = len(path) - 1
        stop = min(t + span, length)
        finished = stop == length and (bool(rows.episodes.ended[i]) or not algorithm.bootstrap_truncated)
        along = [
            rewards[k] - TAU * (ratio.detach() if name == "oreo" else ratio)[path[k], int(rows.episodes.actions[i, k])]
            for k in range(t, stop)
        ]
        residual = -values[path[t]] + (0.0 if finished else values[path[stop]]) + sum(along)
        if name != "oreo":
            return residual**2 / 2
        own = ratio[path[t], int(rows.episodes.actions[i, t])]
        return residual**2 / 2 + (residual.detach() - TAU * (own - own.detach())) ** 2 / 2

    check(algorithm, rows, each, "first" if "every_state=false" in words else "all")


@pytest.mark.parametrize("prior", ["reference", "uniform"])
def test_trajectory_balance_by_hand(prior: str) -> None:
    """V of a source is what its own samples say of it, as a number."""
    algorithm = told_apart(around("tba", f"temperature={TAU}", f"algorithm/prior={prior}", "samples_per_source=3"))
    rows = minibatch()
    rows = replace(rows, episodes=replace(rows.episodes, group=torch.arange(len(rows)) % 4 + 7))
    other = algorithm.prior.model.table.log_softmax(-1) if prior == "reference" else torch.zeros(STATES, 3).double()
    ratio, paths = algorithm.model.table.log_softmax(-1) - other, states(rows.episodes)

    def estimate(i: int) -> Tensor:
        actions = rows.episodes.actions[i].tolist()
        apart = sum(ratio[state, action] for state, action in zip(paths[i], actions, strict=False) if state < STATES)
        return rows.episodes.rewards[i, : len(paths[i]) - 1].sum() - TAU * apart  # type: ignore[index, no-any-return]

    def each(i: int, t: int, state: int, following: int, reward: float, over: bool) -> Tensor:
        samples = [estimate(j) for j in range(len(rows)) if rows.episodes.group[j] == rows.episodes.group[i]]
        return (estimate(i) - torch.stack(samples).mean().detach()) ** 2 / 2

    compare(algorithm, rows, each, "first")


@pytest.mark.parametrize("beta", [0.0, 0.8])
@pytest.mark.parametrize("heads", ["linear", "two"])
def test_implicit_q_learning_by_hand(heads: str, beta: float) -> None:
    """V goes towards the lower of the delayed heads, every head towards r + V, the behaviour to what was done."""
    words = [f"algorithm/head={heads}", "expectile=0.8", "conservatism=0.3", "behaviour_coef=0.6"]
    more = [f"advantage_beta={beta}", "advantage_limit=1.7"]
    algorithm = told_apart(around("ilql", *words, *more))
    rows = minibatch()
    q, low = tables(algorithm.network), tables(algorithm.target).detach().amin(0)
    linear = algorithm.network.heads["v"].linear
    values = HIDDEN @ linear.weight[0] + linear.bias
    behaviour = algorithm.model.table.log_softmax(-1)
    held = set()

    def each(i: int, t: int, state: int, following: int, reward: float, over: bool) -> Tensor:
        action = int(rows.episodes.actions[i, t])
        wanted = reward + (0.0 if over else float(values[following].detach()))
        errors = sum((wanted - head[state, action]) ** 2 / 2 for head in q)
        pushed = sum(head[state].exp().sum().log() - head[state, action] for head in q)
        above = low[state, action] - values[state]
        spread = (0.8 if above > 0 else 1 - 0.8) * above**2
        weight = min(math.exp(beta * float(above.detach())), 1.7)
        held.add(weight == 1.7)
        return errors + spread + 0.3 * pushed - 0.6 * weight * behaviour[state, action]  # type: ignore[no-any-return]

    check(algorithm, rows, each)
    assert held == ({True, False} if beta else {False})


SLOW = ["dqn", "soft_q", "ilql", "cql"]


@pytest.mark.sample(3)
@pytest.mark.parametrize("schedule", ["hard", "polyak"])
@pytest.mark.parametrize("words", SLOW)
def test_the_target_lags_behind_as_its_schedule_says(words: str, schedule: str) -> None:
    """Through `update`, model and heads alike: a copy at every third update, or a quarter of the way at each."""
    name, *rest = words.split()
    pace = "target.every=3" if schedule == "hard" else "target.rate=0.25"
    more = ["algorithm/data=on_policy", "data.updates=2", "data.minibatch_size=6", pace]
    exploring = [] if name not in ("cql",) else ["algorithm/exploration=warm_start"]
    algorithm = told_apart(around(name, f"algorithm/target={schedule}", *more, *exploring, *rest))
    rollout, follow, seen = every_text("delta"), algorithm.target_update, []

    def watched(step: int) -> float:
        """What stands there just before the target moves."""
        seen.append((step, copy.deepcopy(algorithm.network.state_dict()), copy.deepcopy(algorithm.target.state_dict())))
        return float(follow(step))

    algorithm.target_update = watched
    expected = copy.deepcopy(algorithm.target.state_dict())
    for number in range(4):
        before = copy.deepcopy(algorithm.network.state_dict())
        algorithm.update(replace(rollout, step=number))
        assert any(not torch.equal(before[key], value) for key, value in algorithm.network.state_dict().items())
    assert [step for step, _, _ in seen] == list(range(8))
    seen.append((8, {}, algorithm.target.state_dict()))
    for (step, network, target), (_, _, after) in itertools.pairwise(seen):
        for key, value in network.items():
            assert torch.allclose(target[key], expected[key], rtol=0, atol=1e-12)
            share = float((step + 1) % 3 == 0) if schedule == "hard" else 0.25
            expected[key] = expected[key] + share * (value - expected[key])
            assert torch.allclose(after[key], expected[key], rtol=0, atol=1e-12)
    assert any(not torch.equal(value, expected[key]) for key, value in algorithm.network.state_dict().items())


class Stubborn:
    """Whatever the policy, what acts says "b" for ever; notes at which step it was called."""

    model = None

    def __init__(self) -> None:
        self.steps: list[int] = []

    def acting(self, policy: Any, step: int) -> TabularPolicy:
        self.steps.append(step)
        return TabularPolicy([[-99.0, -99.0, 0.0]] * STATES)

    def metrics(self, step: int) -> dict[str, float]:
        return {"step": float(step)}


@pytest.mark.parametrize("name", ["dqn", "soft_q"])
def test_it_explores_as_its_exploration_says_at_every_step_of_the_stage(name: str) -> None:
    algorithm = around(name, "algorithm/data=on_policy")
    algorithm.collector.exploration = Stubborn()
    for step in range(3):
        rollout = algorithm.collect(batch_of(4, 40 + step))
        assert (rollout.actions == 2).all()
        assert rollout.mask.all()
        assert algorithm.update(replace(rollout, rewards=torch.ones_like(rollout.logprobs)))["step"] == step
    assert algorithm.collector.exploration.steps == [0, 1, 2]
