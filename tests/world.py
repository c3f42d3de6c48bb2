"""Worlds small enough to list, in float64. Real objects, no mocks.

The recorded one has 3 tokens (EOS is 0), at most 3 steps and 15 texts; `another()` has 4 tokens, at most 2 steps and
13 texts.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenrl_cli.episodes.sampling import Samples
from tokenrl_cli.interfaces import Batch, ModelOutput, Rollout, Texts
from tokenrl_cli.optim import Learning, torch_groups

WORLD = json.loads((Path(__file__).parent / "oracle_world.json").read_text())
EOS, LENGTH = WORLD["EOS"], WORLD["L"]
SEQUENCES: list[list[int]] = WORLD["sequences"]
STATES = {tuple(prefix): i for i, prefix in enumerate(WORLD["states"])}
LETTERS = {1: "a", 2: "b", 3: "c"}


class Letters:
    """Token 1 is "a", token 2 is "b"."""

    eos_id, unknown_id = EOS, None

    def __init__(self, size: int = 3) -> None:
        self.size = size

    def train(self, texts: Iterable[str]) -> None: ...

    def encode(self, text: str) -> list[int]:
        return ["", "a", "b"].index(text) and [["", "a", "b"].index(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(LETTERS.get(int(i), "") for i in ids)

    def save(self, directory: Path) -> None: ...

    def load(self, directory: Path) -> None: ...


@dataclass(frozen=True, eq=False)
class World:
    """Everything that can be said, and the tables of a policy, a reference and another policy that acted."""

    size: int
    states: dict[tuple[int, ...], int]
    sequences: list[list[int]]
    rewards: Tensor  # of the sequences
    policy: Any
    reference: Any
    behaviour: Any

    @property
    def table(self) -> dict[str, float]:
        """The reward of each text."""
        return {Letters().decode(s): float(r) for s, r in zip(self.sequences, self.rewards, strict=True)}


RECORDED = World(
    WORLD["V"], STATES, SEQUENCES, torch.tensor(WORLD["rewards"], dtype=torch.float64),
    WORLD["policy_logits"], WORLD["reference_logits"], WORLD["behaviour_logits"],
)  # fmt: skip


def another(size: int = 4, length: int = 2) -> World:
    """Other tables, drawn once, over more tokens."""
    prefixes = [prefix for t in range(length) for prefix in itertools.product(range(1, size), repeat=t)]
    said = [(*prefix, EOS) for prefix in prefixes] + list(itertools.product(range(1, size), repeat=length))
    draw = torch.Generator().manual_seed(5)
    logits = [torch.randn(len(prefixes), size, generator=draw, dtype=torch.float64).tolist() for _ in range(3)]
    rewards = torch.rand(len(said), generator=draw, dtype=torch.float64) * 2
    return World(size, {p: i for i, p in enumerate(prefixes)}, [list(s) for s in sorted(said)], rewards, *logits)


REWARDS = {Letters().decode(s): r for s, r in zip(SEQUENCES, WORLD["rewards"], strict=True)}


class TableReward:
    """The world's reward of a text; of a prefix, too: the text as it stands."""

    def __init__(self, table: dict[str, float]) -> None:
        self.table = table

    def __call__(self, texts: Texts) -> np.ndarray:
        return np.array([self.table[text] for text in texts.hypotheses])


@dataclass
class TabularState:
    prefixes: list[tuple[int, ...]]

    def reorder(self, index: Tensor) -> TabularState:
        return TabularState([self.prefixes[i] for i in index.tolist()])

    def repeat(self, times: int) -> TabularState:
        return TabularState([prefix for prefix in self.prefixes for _ in range(times)])


class TabularPolicy(nn.Module):
    """One row of logits a state. hidden is the one-hot of the state, so a linear head on it is a table."""

    def __init__(self, logits: Sequence[Sequence[float]], world: World = RECORDED) -> None:
        super().__init__()
        self.world = world
        self.width = len(world.states) + 1
        self.table = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def _output(self, states: Tensor) -> ModelOutput:
        hidden = torch.eye(len(self.world.states) + 1, dtype=torch.float64)[states]  # the last state is "past the end"
        return ModelOutput(hidden, lambda h: h[..., : len(self.world.states)] @ self.table)

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        assert len(actions) == len(source if source_row is None else source_row)  # the table needs no source
        index = [
            [
                self.world.states.get(tuple(row[:t]), len(self.world.states))
                if EOS not in row[:t]
                else len(self.world.states)
                for t in range(len(row))
            ]
            for row in actions.tolist()
        ]
        return self._output(torch.tensor(index))

    def start(self, source: Tensor, source_mask: Tensor) -> TabularState:
        return TabularState([()] * len(source))

    def step(self, state: TabularState, previous: Tensor | None) -> tuple[ModelOutput, TabularState]:
        if previous is not None:
            state = TabularState([(*p, a) for p, a in zip(state.prefixes, previous.tolist(), strict=True)])
        index = [
            [self.world.states.get(prefix, len(self.world.states)) if EOS not in prefix else len(self.world.states)]
            for prefix in state.prefixes
        ]
        return self._output(torch.tensor(index)), state


class Capture:
    """An optimiser that keeps the gradient and changes nothing."""

    def __init__(self, parameters: Learning) -> None:
        self.parameters = [parameter for group in torch_groups(parameters, 0.0) for parameter in group["params"]]
        self.gradient: Tensor | None = None
        self.steps, self.lr = 0, 1.0

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> dict[str, float]:
        self.gradient = self.parameters[0].grad
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


def numbered(source: Tensor) -> tuple[Tensor, Any]:
    """The last two fields of a Batch of sources [N, S], none of them padded: example i of the split is i modulo N."""

    def read_sources(example: Tensor) -> tuple[Tensor, Tensor]:
        found = source[example.cpu() % len(source)].cpu()
        return found, torch.ones(found.shape[:2], dtype=torch.bool)

    return torch.arange(len(source)), read_sources


def batch_of(sources: int, step: int = 0) -> Batch:
    """Sources without content; the demonstration of each is "ab"."""
    one, target = torch.ones(sources, 1, dtype=torch.int64), torch.tensor([[1, 2, EOS]]).repeat(sources, 1)
    full = torch.ones_like(target, dtype=torch.bool)
    texts = [["ab"]] * sources
    return Batch(step, one, one.bool(), target, full, target, full, ["?"] * sources, texts, {}, *numbered(one))


def samples_of(sequences: Sequence[Sequence[int]], policy: TabularPolicy) -> Samples:
    """Given episodes as if they had been sampled."""
    length = max(len(sequence) for sequence in sequences)
    actions = torch.tensor([list(sequence) + [EOS] * (length - len(sequence)) for sequence in sequences])
    mask = torch.tensor([[t < len(sequence) for t in range(length)] for sequence in sequences])
    one = torch.ones(len(actions), 1, dtype=torch.int64)
    with torch.no_grad():
        logits = policy(one, one.bool(), actions).logits
        logprobs = logits.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1).masked_fill(~mask, 0.0)
    return Samples(actions, mask, logprobs, None, torch.tensor([EOS in sequence for sequence in sequences]))


def probabilities(policy: TabularPolicy) -> Tensor:
    """Of every sequence of its world, differentiable."""
    logprobs = policy.table.log_softmax(-1)
    return torch.stack(
        [
            sum(logprobs[policy.world.states[tuple(sequence[:t])], sequence[t]] for t in range(len(sequence)))  # type: ignore[misc]
            for sequence in policy.world.sequences
        ]
    ).exp()


def exact_gradient(policy: TabularPolicy, rewards: Tensor) -> Tensor:
    """d E[R] / d logits, by listing every text."""
    (gradient,) = torch.autograd.grad((probabilities(policy) * rewards).sum(), policy.table)
    return gradient


def draws(times: int, of: int = len(SEQUENCES)) -> Iterable[tuple[tuple[int, ...], int]]:
    """Every multiset of `times` sequences, as indices, with the number of orders it can be drawn in."""
    for chosen in itertools.combinations_with_replacement(range(of), times):
        yield chosen, len(set(itertools.permutations(chosen)))


def judged_rows(rollout: Rollout) -> Rollout:
    assert rollout.rewards is not None
    return rollout
