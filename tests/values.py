"""Values in worlds small enough to list: what they are, by induction from the end, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.presets import preset
from tests.world import EOS, RECORDED, Letters, TableReward, TabularPolicy, World, batch_of, samples_of
from tokenrl_cli.algorithm.networks import move
from tokenrl_cli.algorithm.parts.data import Minibatch
from tokenrl_cli.algorithm.value_based import LossOutput
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional.completion import optimal_values
from tokenrl_cli.interfaces import SAMPLED, Rollout
from tokenrl_cli.metrics.edits import prefix_distances

CREDITS = {"terminal": Terminal(), "delta": Delta()}


def longest(world: World) -> int:
    return max(map(len, world.sequences))


def around(name: str, *overrides: str, world: World = RECORDED) -> Any:
    """The preset on the world's table of a policy."""
    words = [word if word.startswith("algorithm") else f"algorithm.{word}" for word in overrides]
    return preset(name, TabularPolicy(world.policy, world), Letters(world.size), longest(world), *words)


def every_text(credit: str = "terminal", world: World = RECORDED, step: int = 0) -> Rollout:
    """All that can be said, once, judged; in the order of `world.sequences`."""
    samples = samples_of(world.sequences, TabularPolicy(world.policy, world))
    batch = batch_of(1, step)
    rewards = TableReward(world.table)
    return judge(rollout_of(batch, samples, SAMPLED), batch, Letters(world.size), rewards, CREDITS[credit])[0]


def minibatch_of(rollout: Rollout, weights: Tensor | None = None) -> Minibatch:
    """A minibatch in which each episode counts as often as its weight says."""
    weights = torch.ones(len(rollout), dtype=torch.float64) if weights is None else weights
    return Minibatch.of(rollout, weights, torch.full((len(rollout),), -1))


def loss_of(algorithm: Any, minibatch: Minibatch) -> LossOutput:
    """Of a whole minibatch in one part."""
    output: LossOutput = algorithm.compute_loss(algorithm.prepare(minibatch))
    return output


def chances(logits: Any, world: World = RECORDED) -> Tensor:
    """Of every text, by a table of logits."""
    logprobs = torch.as_tensor(logits, dtype=torch.float64).log_softmax(-1)
    said = [[logprobs[world.states[tuple(s[:t])], s[t]] for t in range(len(s))] for s in world.sequences]
    return torch.stack([torch.stack(each).sum() for each in said]).exp()


def induction(credit: str, backup: Callable[[Tensor, int], Tensor], world: World = RECORDED) -> Tensor:
    """Q(s, a) [S, V] from the end of every text, where a state is worth `backup(Q(s, .), s)`."""
    q = torch.zeros(len(world.states), world.size, dtype=torch.float64)
    letters = Letters(world.size)
    for prefix, state in sorted(world.states.items(), key=lambda item: -len(item[0])):
        for action in range(world.size):
            after = (*prefix, action)
            over = action == EOS or len(after) == longest(world)
            text = world.table[letters.decode(after)]
            paid = text - world.table[letters.decode(prefix)] if credit == "delta" else text * over
            following = 0.0 if over else backup(q[world.states[after]], world.states[after])
            q[state, action] = paid + following
    return q


def hard(credit: str, world: World = RECORDED) -> Tensor:
    return induction(credit, lambda q, _: q.max(), world)


def expected(credit: str, logits: Any, world: World = RECORDED) -> Tensor:
    """Q of the policy with these logits."""
    shares = torch.as_tensor(logits, dtype=torch.float64).softmax(-1)
    return induction(credit, lambda q, state: (shares[state] * q).sum(), world)


def soft(credit: str, temperature: float, prior: Tensor, world: World = RECORDED) -> tuple[Tensor, Tensor]:
    """Q [S, V] and log of the policy [S, V] that maximises E[sum r - temperature log(pi / prior)]; prior in logs."""

    def backup(q: Tensor, state: int) -> Tensor:
        return temperature * (q / temperature + prior[state]).logsumexp(-1)

    q = induction(credit, backup, world)
    return q, (q / temperature + prior).log_softmax(-1)


def logits_of(policy: Any, world: World = RECORDED) -> Tensor:
    """What a policy says of every state: [S, V]."""
    one = torch.ones(len(world.states), 1, dtype=torch.int64)
    width = longest(world)
    said = torch.tensor([[*prefix, *[0] * width][:width] for prefix in world.states])
    at = torch.tensor([len(prefix) for prefix in world.states])
    with torch.no_grad():
        found: Tensor = policy(one, one.bool(), said).logits[torch.arange(len(at)), at]
    return found


def q_of(algorithm: Any, world: World = RECORDED) -> Tensor:
    """The lowest head's Q of every state: [S, V]."""
    hidden = torch.eye(len(world.states) + 1, dtype=torch.float64)[: len(world.states)]
    scale = getattr(algorithm, "temperature", 1.0)
    with torch.no_grad():
        q: Tensor = algorithm.network.heads["q"](hidden, lambda h: scale * h[..., :-1] @ algorithm.model.table)
    return q.amin(0)


def v_of(algorithm: Any, world: World = RECORDED) -> Tensor:
    hidden = torch.eye(len(world.states) + 1, dtype=torch.float64)[: len(world.states)]
    with torch.no_grad():
        found: Tensor = algorithm.network.heads["v"](hidden)
    return found


def solve(algorithm: Any, minibatch: Minibatch, rounds: int = 1, rest: float = 1e-13) -> None:
    """Minimises the loss of a minibatch, then moves the target, `rounds` times. `rest`: the gradient it ends at."""
    for _ in range(rounds):
        descent = torch.optim.LBFGS(
            algorithm.network.trainable(), max_iter=2000, tolerance_grad=rest, tolerance_change=rest / 1e3,
            history_size=50, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure(descent: Any = descent) -> Tensor:
            descent.zero_grad()
            loss: Tensor = loss_of(algorithm, minibatch).loss
            loss.backward()
            return loss

        descent.step(closure)
        if algorithm.target is not None:
            move(algorithm.target, algorithm.network, 1.0)


def descend(algorithm: Any, minibatch: Minibatch, steps: int, lr: float) -> None:
    """Adam, its rate falling to a millionth: for losses whose gradient is no function's; the target at its pace."""
    descent = torch.optim.Adam(algorithm.network.trainable(), lr, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.ExponentialLR(descent, 1e-6 ** (1 / steps))
    for step in range(steps):
        descent.zero_grad()
        loss_of(algorithm, minibatch).loss.backward()
        descent.step()
        falling.step()
        if algorithm.target is not None:
            move(algorithm.target, algorithm.network, algorithm.target_update(step))


def completion_values(text: list[int], reference: list[int], size: int, padding: Sequence[int] = ()) -> np.ndarray:
    """Q* of every token after every prefix of a text by the edit distance, [len(text) + 1, size]; EOS is 0. Ids of
    `padding` stand behind the reference."""
    said, goal = (np.array([ids], dtype=np.int64).reshape(1, len(ids)) for ids in (text, [*reference, *padding]))
    length = len(reference)
    distances = torch.from_numpy(prefix_distances(said, np.array([len(text)]), goal, np.array([length]))[0])
    ids = torch.from_numpy(goal).expand(len(distances), -1)
    lengths = torch.full((len(distances),), length)
    found: np.ndarray = optimal_values(distances.double(), ids, lengths, size, 0).numpy()
    return found
