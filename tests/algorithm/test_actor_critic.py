"""Bahdanau's actor-critic: with the right critic the exact gradient, and a critic that becomes right."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.algorithm.test_critics import CREDITS, values_of
from tests.running import tokenrl, train, weights
from tests.world import (
    RECORDED,
    Capture,
    Letters,
    TableReward,
    TabularPolicy,
    batch_of,
    exact_gradient,
    probabilities,
    samples_of,
)
from tokenrl_cli import optim
from tokenrl_cli.algorithm.actor_critic import ActorCritic
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.interfaces import SAMPLED, Rollout, UserError
from tokenrl_cli.sampling import concatenate, rollout_of
from tokenrl_cli.scoring import judge


def algorithm(**changes: Any) -> ActorCritic:
    """The critic, too, is a table: its head sees which state it is."""
    values = dict(
        samples_per_source=1, target_rate=0.1, critic_steps=0, critic_lr_scale=1.0, value_penalty=0.0,
        entropy_coef=0.0, nll_mix=0.0, micro_batches=1, optimizer=Capture,
    )  # fmt: skip
    policy, critic = (TabularPolicy(RECORDED.policy) for _ in range(2))
    return ActorCritic(policy, Letters(), 3, 0, critic, **(values | changes))  # type: ignore[arg-type]


def q_of(credit: Any) -> Tensor:
    """Q^pi [states, V]: what is paid now and what the next state is worth."""
    values, table = values_of(RECORDED, credit), RECORDED.table
    q = torch.zeros(len(RECORDED.states), RECORDED.size, dtype=torch.float64)
    for prefix, state in RECORDED.states.items():
        for token in range(RECORDED.size):
            said = (*prefix, token)
            score = table[Letters().decode(said)]
            before = table[Letters().decode(prefix)]
            over = token == 0 or len(said) == 3
            if isinstance(credit, Delta):
                q[state, token] = score - before + (0.0 if over else float(values[RECORDED.states[said]]))
            else:
                q[state, token] = score if over else float(values[RECORDED.states[said]])
    return q


def knowing(actor: ActorCritic, q: Tensor) -> ActorCritic:
    with torch.no_grad():
        for critic in (actor.critic, actor.delayed_critic):
            critic.head.weight[:, : len(q)] = q.T
    return actor


def episodes(credit: Any, *which: int) -> Rollout:
    sequences = [RECORDED.sequences[i] for i in which or range(len(RECORDED.sequences))]
    rows = [rollout_of(batch_of(1), samples_of([said], TabularPolicy(RECORDED.policy)), SAMPLED) for said in sequences]
    return judge(concatenate(rows), batch_of(1), Letters(), TableReward(RECORDED.table), credit)[0]


@CREDITS
def test_with_the_right_critic_the_expected_gradient_is_exact(credit: Any) -> None:
    """O3, O36: every action of every visited state."""
    actor = knowing(algorithm(), q_of(credit))
    total = torch.zeros_like(actor.model.table)
    for i, chance in enumerate(probabilities(actor.model).detach()):
        actor.update(episodes(credit, i))
        total -= chance * actor.optimizer.gradient  # type: ignore[attr-defined]
    assert (total - exact_gradient(TabularPolicy(RECORDED.policy), RECORDED.rewards)).abs().max() < 1e-10


@CREDITS
def test_the_critic_becomes_the_value_of_the_policy(credit: Any) -> None:
    """From every episode at once; the penalty is off, the actor does not move."""
    falling = partial(optim.cosine, warmup_steps=0, horizon=600, final_fraction=0.001)
    make = partial(optim.adam, lr=0.1, betas=[0.9, 0.99], eps=1e-12, clip_norm=0.0, schedule=falling)
    actor = algorithm(optimizer=make, critic_steps=10**6, target_rate=1.0)
    rollout = episodes(credit)
    for _ in range(600):
        logged = actor.update(rollout)
    found = actor.critic.head.weight[:, : len(RECORDED.states)].T + actor.critic.head.bias
    assert (found - q_of(credit)).abs().max() < 2e-3 and logged["loss/value"] < 1e-6
    assert torch.equal(actor.model.table, TabularPolicy(RECORDED.policy).table)


def test_targets_by_hand() -> None:
    actor, q = knowing(algorithm(), q_of(Delta())), q_of(Delta())
    said = RECORDED.sequences[6]
    rollout = episodes(Delta(), 6)
    assert rollout.rewards is not None
    policy = TabularPolicy(RECORDED.policy).table.detach().softmax(-1)
    states = [RECORDED.states[tuple(said[:t])] for t in range(len(said))]
    ahead = [float((policy[state] * q[state]).sum()) for state in states[1:]] + [0.0]
    wanted = [float(paid) + later for paid, later in zip(rollout.rewards[0], ahead, strict=True)]
    assert actor._targets(rollout)[0].tolist() == pytest.approx(wanted, abs=1e-12)


def test_the_penalty_pulls_values_together() -> None:
    found = []
    for penalty in (0.0, 0.5):
        actor = knowing(algorithm(value_penalty=penalty), q_of(Delta()))
        actor.update(episodes(Delta(), 0))
        head = next(p for p in actor.critic_optimizer.parameters if p.shape[-1] == actor.critic.head.in_features)  # type: ignore[attr-defined]
        found.append(head.grad[:, RECORDED.states[()]].clone())
    q = q_of(Delta())[RECORDED.states[()]]
    assert torch.allclose(found[1] - found[0], 2 * 0.5 * (q - q.mean()), atol=1e-12)


def test_episodes_are_those_of_the_delayed_actor_and_it_follows_slowly() -> None:
    actor = algorithm(target_rate=0.25)
    with torch.no_grad():
        actor.model.table += torch.tensor([50.0, 0.0, 0.0])  # the actor would end at once
    assert int((actor.collect(batch_of(50)).mask.sum(-1) > 1).sum()) > 10
    before = actor.delayed_actor.table.clone()
    actor.update(episodes(Delta(), 3))
    assert torch.allclose(actor.delayed_actor.table, before + 0.25 * (actor.model.table.detach() - before))
    assert not any(p.requires_grad for p in (*actor.delayed_actor.parameters(), *actor.delayed_critic.parameters()))


def test_the_critic_learns_alone_first() -> None:
    actor = algorithm(critic_steps=2)
    logged = [actor.update(episodes(Delta(), 3, 5)) for _ in range(3)]
    assert ["loss/policy" in each for each in logged] == [False, False, True]


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_change_no_gradient(parts: int) -> None:
    """Trap 9; and an invalid episode weighs nothing."""
    found = []
    for micro_batches in (1, parts):
        actor = knowing(algorithm(micro_batches=micro_batches, nll_mix=0.3, entropy_coef=0.1), q_of(Delta()) * 0.5)
        rollout = episodes(Delta(), 0, 4, 9, 14, 2)
        rollout.valid[3] = False
        actor.update(rollout)
        found.append((actor.optimizer.gradient, actor.critic.head.weight.grad))  # type: ignore[attr-defined]
    assert all(torch.allclose(a, b, rtol=0, atol=1e-14) for a, b in zip(*found, strict=True))


def test_a_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    chosen = ["algorithm=actor_critic", "credit=delta", "algorithm.critic_steps=2", "algorithm.critic.hidden=12"]
    assert train(tmp_path / "whole", *chosen) == 0
    assert train(tmp_path / "part", *chosen, "trainer.steps=3") == 0
    assert tokenrl("train", f"resume={tmp_path / 'part'}", "trainer.steps=6") == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "part")


@pytest.mark.parametrize(
    ("name", "value"),
    [("samples_per_source", 0), ("target_rate", 0.0), ("critic_steps", -1), ("critic_lr_scale", 0.0)]
    + [("value_penalty", -1.0), ("nll_mix", -0.1), ("micro_batches", 0)],
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"algorithm.{name}"):
        algorithm(**{name: value})
