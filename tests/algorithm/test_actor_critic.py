"""Bahdanau's actor-critic: with the right critic the exact gradient, and a critic that becomes right."""

from __future__ import annotations

from dataclasses import replace
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
from tokenrl_cli.episodes.sampling import concatenate, rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import SAMPLED, ModelOutput, Rollout


def algorithm(**changes: Any) -> ActorCritic:
    """The critic, too, is a table: its head sees which state it is."""
    values = {
        "samples_per_source": 1, "target_rate": 0.1, "critic_steps": 0, "critic_lr_scale": 1.0, "value_penalty": 0.0,
        "entropy_coef": 0.0, "nll_mix": 0.0, "micro_batches": 1, "optimizer": Capture,
    }  # fmt: skip
    policy, critic = (changes.pop(name, None) or TabularPolicy(RECORDED.policy) for name in ("model", "critic"))
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
        for critic in (actor.critic.network, actor.critic.delayed):
            critic.head.weight[:, : len(q)] = q.T
    return actor


def episodes(credit: Any, *which: int) -> Rollout:
    sequences = [RECORDED.sequences[i] for i in which or range(len(RECORDED.sequences))]
    rows = [rollout_of(batch_of(1), samples_of([said], TabularPolicy(RECORDED.policy)), SAMPLED) for said in sequences]
    return judge(concatenate(rows), batch_of(1), Letters(), TableReward(RECORDED.table), credit)[0]


@pytest.mark.sample(1)
@CREDITS
def test_with_the_right_critic_the_expected_gradient_is_exact(credit: Any) -> None:
    """O3, O36: every action of every visited state."""
    actor = knowing(algorithm(), q_of(credit))
    total = torch.zeros_like(actor.model.table)
    for i, chance in enumerate(probabilities(actor.model).detach()):
        actor.update(episodes(credit, i))
        total -= chance * actor.optimizer.gradient  # type: ignore[attr-defined]
    assert (total - exact_gradient(TabularPolicy(RECORDED.policy), RECORDED.rewards)).abs().max() < 1e-10


@pytest.mark.sample(1)
@CREDITS
def test_the_critic_becomes_the_value_of_the_policy(credit: Any) -> None:
    """From every episode at once; the penalty is off, the actor does not move."""
    falling = partial(optim.cosine, warmup_steps=0, horizon=600, final_fraction=0.001)
    make = partial(optim.adam, lr=0.1, betas=[0.9, 0.99], eps=1e-12, clip_norm=0.0, schedule=falling)
    actor = algorithm(optimizer=make, critic_steps=10**6, target_rate=1.0)
    rollout = episodes(credit)
    for _ in range(600):
        logged = actor.update(rollout)
    found = actor.critic.network.head.weight[:, : len(RECORDED.states)].T + actor.critic.network.head.bias
    assert (found - q_of(credit)).abs().max() < 2e-3
    assert logged["loss/value"] < 1e-6
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
    assert actor.critic.targets(rollout, actor.actor.delayed)[0].tolist() == pytest.approx(wanted, abs=1e-12)


class Reader(TabularPolicy):
    """A critic's model that says nothing but what it was given to read: the one-hot of its first token."""

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        assert source_row is not None
        source, source_mask = source[source_row], source_mask[source_row]
        self.given = (source, source_mask)
        first = torch.eye(self.width, dtype=torch.float64)[source[:, :1].expand(-1, actions.shape[1])]
        return ModelOutput(first, lambda hidden: hidden)


def apart(rollout: Rollout) -> Rollout:
    """Source, demonstration and clean reference begin with another token each: 5, 4 and, by row, 1 or 2."""
    rows, first = len(rollout), torch.arange(len(rollout)) % 2 + 1
    return replace(
        rollout,
        source=torch.full((rows, 1), 5),
        source_mask=torch.ones(rows, 1, dtype=torch.bool),
        targets=torch.full((rows, 3), 4),
        target_mask=torch.ones(rows, 3, dtype=torch.bool),
        reference_ids=torch.stack([first, first + 2], 1),
        reference_mask=torch.ones(rows, 2, dtype=torch.bool),
        source_row=torch.arange(rows),
    )


def test_the_critic_reads_the_clean_reference_and_nothing_else() -> None:
    """In the loss of the actor, in that of the critic and in its targets: Q is another one for each reference."""
    actor = algorithm(critic=Reader(RECORDED.policy))
    q = torch.randn(len(RECORDED.states) + 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for critic, scale in ((actor.critic.network, 1.0), (actor.critic.delayed, 0.5)):
        critic.head.weight.data.copy_(scale * q.T)
    rollout = apart(episodes(Delta(), 1, 6, 9, 14))
    actor.update(rollout)
    for critic in (actor.critic.network, actor.critic.delayed):
        assert torch.equal(critic.model.given[0], rollout.reference_ids)
        assert torch.equal(critic.model.given[1], rollout.reference_mask)
    shares, total, wrong = (
        actor.model.table.softmax(-1),
        torch.zeros(()),
        torch.zeros_like(actor.critic.network.head.weight),
    )
    delayed = actor.actor.delayed.table.softmax(-1)
    assert rollout.rewards is not None
    for i, mask in enumerate(rollout.mask.tolist()):
        said, own = rollout.actions[i, : sum(mask)].tolist(), q[int(rollout.reference_ids[i, 0])]
        for t, action in enumerate(said):
            state = RECORDED.states[tuple(said[:t])]
            total = total - (shares[state] * own).sum() / 4
            ahead = 0.0
            if t + 1 < len(said):
                ahead = float((delayed[RECORDED.states[tuple(said[: t + 1])]] * 0.5 * own).sum())
            error = float(own[action]) - float(rollout.rewards[i, t]) - ahead
            wrong[action, int(rollout.reference_ids[i, 0])] += 2 * error / float(rollout.mask.sum())
    (wanted,) = torch.autograd.grad(total, actor.model.table)
    assert (actor.optimizer.gradient - wanted).abs().max() < 1e-12  # type: ignore[attr-defined]
    assert (actor.critic.network.head.weight.grad - wrong).abs().max() < 1e-12


def test_targets_are_those_of_both_delayed_copies() -> None:
    """Through `update`: all four networks say something else, and only the copies speak of the next state."""
    actor = algorithm()
    draw = torch.Generator().manual_seed(3)
    for part in (actor.model, actor.critic.network, actor.actor.delayed, actor.critic.delayed):
        for parameter in part.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    rollout = episodes(Delta(), 2, 7, 13)
    policy, q = actor.actor.delayed.table.softmax(-1), actor.critic.delayed.head
    own = actor.critic.network.head
    table, mine = q.weight.T[:-1] + q.bias, (own.weight.T[:-1] + own.bias).detach()
    assert rollout.rewards is not None
    wanted, bias = torch.zeros_like(mine), torch.zeros(3, dtype=torch.float64)
    for i, mask in enumerate(rollout.mask.tolist()):
        said = rollout.actions[i, : sum(mask)].tolist()
        for t, action in enumerate(said):
            state, ahead = RECORDED.states[tuple(said[:t])], 0.0
            if t + 1 < len(said):
                after = RECORDED.states[tuple(said[: t + 1])]
                ahead = float((policy[after] * table[after]).sum())
            error = float(mine[state, action]) - float(rollout.rewards[i, t]) - ahead
            wanted[state, action] += 2 * error / float(rollout.mask.sum())
            bias[action] += 2 * error / float(rollout.mask.sum())
    actor.update(rollout)
    assert (actor.critic.network.head.weight.grad.T[:-1] - wanted).abs().max() < 1e-12
    assert (actor.critic.network.head.bias.grad - bias).abs().max() < 1e-12


def test_both_delayed_copies_go_the_same_way_after_each_step() -> None:
    actor = knowing(algorithm(target_rate=0.25), q_of(Delta()))
    actor.critic.network.head.weight.data += 1.0
    before = actor.critic.delayed.head.weight.clone()
    for number in (1, 2, 3):
        actor.update(episodes(Delta(), 3))
        share = 1 - 0.75**number
        assert torch.allclose(actor.critic.delayed.head.weight, before + share, rtol=0, atol=1e-12)


def test_the_terms_of_both_losses_by_hand() -> None:
    """Entropy is welcome, cross-entropy of the demonstration is not; logged as they are."""
    actor = knowing(algorithm(entropy_coef=0.2, nll_mix=0.7, value_penalty=0.4), q_of(Delta()))
    rollout = apart(episodes(Delta(), 4, 11))
    rollout = replace(rollout, targets=torch.tensor([[1, 2, 0]] * 2), target_mask=torch.ones(2, 3, dtype=torch.bool))
    logged = actor.update(rollout)
    logprobs, q = actor.model.table.log_softmax(-1), q_of(Delta())
    states = [
        RECORDED.states[tuple(row[:t])]
        for row, mask in zip(rollout.actions.tolist(), rollout.mask.tolist(), strict=True)
        for t in range(sum(mask))
    ]
    expected = sum((logprobs[s].exp() * q[s]).sum() for s in states) / 2
    undecided = -sum((logprobs[s].exp() * logprobs[s]).sum() for s in states) / len(states)
    nll = -(logprobs[0, 1] + logprobs[RECORDED.states[(1,)], 2] + logprobs[RECORDED.states[(1, 2)], 0]) / 3
    (wanted,) = torch.autograd.grad(-expected - 0.2 * undecided + 0.7 * nll, actor.model.table)
    assert (actor.optimizer.gradient - wanted).abs().max() < 1e-12  # type: ignore[attr-defined]
    spread = sum(float(((q[s] - q[s].mean()) ** 2).sum()) for s in states) / len(states)
    found = {name: logged[name] for name in ("loss/policy", "entropy", "loss/nll", "q/spread")}
    terms = {"loss/policy": -expected, "entropy": undecided, "loss/nll": nll, "q/spread": torch.tensor(spread)}
    assert found == pytest.approx({name: term.item() for name, term in terms.items()})


def test_the_critic_learns_as_much_faster_as_it_is_told() -> None:
    make = partial(optim.sgd, lr=0.5, momentum=0.0, weight_decay=0.0, clip_norm=0.0, schedule=lambda step: 1.0)
    actor = algorithm(optimizer=make, critic_lr_scale=4.0)
    logged = actor.update(episodes(Delta(), 3))
    assert (logged["lr"], logged["critic/lr"]) == (0.5, 2.0)


def test_the_penalty_pulls_values_together() -> None:
    found = []
    for penalty in (0.0, 0.5):
        actor = knowing(algorithm(value_penalty=penalty), q_of(Delta()))
        actor.update(episodes(Delta(), 0))
        head = next(
            p for p in actor.critic.optimizer.parameters if p.shape[-1] == actor.critic.network.head.in_features
        )  # type: ignore[attr-defined]
        found.append(head.grad[:, RECORDED.states[()]].clone())
    q = q_of(Delta())[RECORDED.states[()]]
    assert torch.allclose(found[1] - found[0], 2 * 0.5 * (q - q.mean()), atol=1e-12)


def test_episodes_are_those_of_the_delayed_actor_and_it_follows_slowly() -> None:
    actor = algorithm(target_rate=0.25)
    with torch.no_grad():
        actor.model.table += torch.tensor([50.0, 0.0, 0.0])  # the actor would end at once
    assert int((actor.collect(batch_of(50)).mask.sum(-1) > 1).sum()) > 10
    before = actor.actor.delayed.table.clone()
    actor.update(episodes(Delta(), 3))
    assert torch.allclose(actor.actor.delayed.table, before + 0.25 * (actor.model.table.detach() - before))
    assert not any(p.requires_grad for p in (*actor.actor.delayed.parameters(), *actor.critic.delayed.parameters()))


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
        found.append((actor.optimizer.gradient, actor.critic.network.head.weight.grad))  # type: ignore[attr-defined]
    assert all(torch.allclose(a, b, rtol=0, atol=1e-14) for a, b in zip(*found, strict=True))


@pytest.mark.slow
def test_a_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    chosen = ["algorithm=actor_critic", "credit=delta", "algorithm.critic_steps=2", "algorithm.critic.hidden=12"]
    assert train(tmp_path / "whole", *chosen) == 0
    assert train(tmp_path / "part", *chosen, "trainer.steps=3") == 0
    assert tokenrl("train", f"resume={tmp_path / 'part'}", "trainer.steps=6") == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "part")
