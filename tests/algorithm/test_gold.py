"""GOLD: weights of demonstrated tokens, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.running import tokenrl, train, weights
from tests.world import RECORDED, Capture, Letters, TabularPolicy, batch_of
from tokenrl_cli.algorithm.gold import Gold
from tokenrl_cli.algorithm.mle import Mle
from tokenrl_cli.functional import demonstrations, schedules

TARGET = [1, 2, 0]


def gold(value: Any = demonstrations.log_probability, **changes: Any) -> Gold:
    values = {
        "suffix": 1, "lower_bound": -10.0, "least": 0.1, "floor": 0.3, "sync_every": 2, "micro_batches": 1,
        "optimizer": Capture,
    }  # fmt: skip
    return Gold(TabularPolicy(RECORDED.policy), Letters(), value, **(values | changes))  # type: ignore[arg-type]


def gradient(algorithm: Any, sources: int = 1) -> torch.Tensor:
    algorithm.update(algorithm.collect(batch_of(sources)))
    found: torch.Tensor = algorithm.optimizer.gradient.clone()
    return found


def test_where_every_token_weighs_1_it_is_maximum_likelihood() -> None:
    """O35."""
    likelihood = Mle(TabularPolicy(RECORDED.policy), Letters(), 0, 0.0, schedules.never, 1, Capture)  # type: ignore[arg-type]
    ones = gold(demonstrations.equal, suffix=0, lower_bound=0.0, floor=1.0)
    assert torch.equal(gradient(ones, 3), gradient(likelihood, 3))


@pytest.mark.parametrize("kind", ["p", "s"])
def test_a_token_weighs_its_importance_times_what_follows_it(kind: str) -> None:
    algorithm = gold() if kind == "p" else gold(demonstrations.probability, lower_bound=0.0)
    with torch.no_grad():
        algorithm.frozen.table.copy_(torch.tensor(RECORDED.reference, dtype=torch.float64))
        algorithm.lagged.table.copy_(torch.tensor(RECORDED.behaviour, dtype=torch.float64))
    states = [RECORDED.states[tuple(TARGET[:t])] for t in range(3)]
    policy, known, lagged = (
        model.table.log_softmax(-1) for model in (algorithm.model, algorithm.frozen, algorithm.lagged)
    )
    paid = [float(known[state, token]) for state, token in zip(states, TARGET, strict=True)]
    paid = paid if kind == "p" else [math.exp(each) for each in paid]
    taken = 10.0 if kind == "p" else 0.0
    worth = [sum(paid[t : t + 2]) + taken for t in range(3)]
    algorithm.least = least = sum(sorted(worth)[:2]) / 2  # above one of the three
    q = [max(each, least) for each in worth]
    importance = [max(float(lagged[s, a].exp()), 0.3) for s, a in zip(states, TARGET, strict=True)]
    assert 0.3 in importance
    assert any(each > 0.3 for each in importance)
    assert least in q
    assert any(each > least for each in q)
    terms = [w * v * policy[s, a] for w, v, s, a in zip(importance, q, states, TARGET, strict=True)]
    (wanted,) = torch.autograd.grad(-sum(terms) / 3, algorithm.model.table)
    assert (gradient(algorithm) - wanted).abs().max() < 1e-12


def test_a_truncated_return_ends_with_the_text() -> None:
    rewards, mask = torch.tensor([[1.0, 2.0, 4.0, 99.0]]), torch.tensor([[True, True, True, False]])
    assert demonstrations.truncated_returns(rewards, mask, 0).tolist() == [[1, 2, 4, 0]]
    assert demonstrations.truncated_returns(rewards, mask, 1).tolist() == [[3, 6, 4, 0]]
    assert demonstrations.truncated_returns(rewards, mask, 9).tolist() == [[7, 6, 4, 0]]


def test_the_lagged_copy_is_made_at_its_time_and_never_learns() -> None:
    algorithm = gold(sync_every=2)
    start = algorithm.lagged.table.clone()
    with torch.no_grad():
        algorithm.model.table += 1.0
    gradient(algorithm)
    assert torch.equal(algorithm.lagged.table, start)
    gradient(algorithm)
    assert torch.equal(algorithm.lagged.table, start + 1)
    assert torch.equal(algorithm.frozen.table, start)
    assert not algorithm.lagged.table.requires_grad
    assert not algorithm.frozen.table.requires_grad


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_change_no_gradient(parts: int) -> None:
    assert torch.allclose(gradient(gold(), 5), gradient(gold(micro_batches=parts), 5), rtol=0, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["gold", "gold_s"])
def test_a_run_resumes_to_the_same_bits(preset: str, tmp_path: Path) -> None:
    chosen = [f"algorithm={preset}", "algorithm.sync_every=2", "trainer.checkpoint_every=3"]
    assert train(tmp_path / "whole", *chosen) == 0
    assert train(tmp_path / "part", *chosen, "trainer.steps=3") == 0
    assert tokenrl("train", f"resume={tmp_path / 'part'}", "trainer.steps=6") == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "part")
