"""What states are worth: values learned, sampled or known, and what they make of the gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.algorithm.test_policy_gradient import algorithm_with, expected_gradient, gradient_of
from tests.world import (
    LENGTH,
    RECORDED,
    Letters,
    TableReward,
    TabularPolicy,
    World,
    batch_of,
    draws,
    exact_gradient,
    probabilities,
)
from tokenrl_cli.algorithm.parts.critic import Continuations, ValueHead
from tokenrl_cli.algorithm.parts.kl_control import AdaptiveKl
from tokenrl_cli.algorithm.policy_gradient import PolicyGradient
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import advantages, normalisation, schedules, surrogates
from tokenrl_cli.functional.returns import lambda_returns, overlong_penalty
from tokenrl_cli.functional.value import explained_variance, value_error
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.optim import adam

CREDITS = pytest.mark.parametrize("credit", [Terminal(), Delta()], ids=["terminal", "delta"])


def values_of(world: World, credit: Any) -> Tensor:
    """V^pi of every state, by listing every text that goes on from it."""
    chances = probabilities(TabularPolicy(world.policy, world)).detach()
    table, worth = world.table, torch.zeros(len(world.states), dtype=torch.float64)
    for prefix, state in world.states.items():
        going_on = [i for i, said in enumerate(world.sequences) if tuple(said[: len(prefix)]) == prefix]
        share = chances[going_on] / chances[going_on].sum()
        paid = table[Letters().decode(prefix)] - table[""] if isinstance(credit, Delta) else 0.0
        start = table[""] if isinstance(credit, Delta) else 0.0
        worth[state] = (share * (world.rewards[going_on] - start)).sum() - paid
    return worth


def with_critic(values: Tensor | None, gae_lambda: float, samples: int = 1, **changes: Any) -> PolicyGradient:
    """A value head that says `values` of the states; zeros for None."""
    parts = {
        "critic": ValueHead(0.5, 0.0, 1.0),
        "baseline": advantages.state_value,
        "returns": partial(lambda_returns, gae_lambda=gae_lambda),
    }
    algorithm = algorithm_with(samples=samples, **(parts | changes))
    if values is not None:
        with torch.no_grad():
            algorithm.critic.head.weight[0, : len(values)] = values
    return algorithm


def exact() -> Tensor:
    return exact_gradient(TabularPolicy(RECORDED.policy), RECORDED.rewards)


@CREDITS
@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_with_the_values_of_the_policy_every_lambda_is_unbiased(gae_lambda: float, credit: Any) -> None:
    """O30; at lambda 0 it is O3: sum_t (Q - V) grad log pi."""
    algorithm = with_critic(values_of(RECORDED, credit), gae_lambda)
    assert (expected_gradient(algorithm, 1, credit) - exact()).abs().max() < 1e-10


@CREDITS
def test_a_critic_that_knows_nothing_biases_by_lambda_alone(credit: Any) -> None:
    """Lambda 1 trusts the reward: unbiased whatever the critic says. Lambda 0 trusts the critic."""
    wrong = torch.linspace(-1, 2, len(RECORDED.states), dtype=torch.float64)
    assert (expected_gradient(with_critic(wrong, 1.0), 1, credit) - exact()).abs().max() < 1e-10
    bent = expected_gradient(with_critic(wrong, 0.0), 1, credit).flatten()
    assert float(torch.cosine_similarity(bent, exact().flatten(), 0)) < 0.99


def test_ppo_at_a_ratio_of_1_has_the_gradient_of_a2c() -> None:
    """O20."""
    clip = partial(surrogates.clipped_ratio, clip_low=0.2, clip_high=0.2)
    values = values_of(RECORDED, Delta())
    said = [RECORDED.sequences[i] for i in (2, 7, 11)]
    found = [
        gradient_of(
            with_critic(values, 0.95, 3, surrogate=surrogate, normalisation=normalisation.whiten), said, Delta()
        )
        for surrogate in (surrogates.score_function, clip)
    ]
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-12)
    assert found[0].abs().max() > 1e-3


def variance(algorithm: PolicyGradient, samples: int) -> float:
    """Trace of the covariance of the estimate from `samples` episodes of one source, exactly."""
    chances, said = probabilities(algorithm.model).detach(), algorithm.model.world.sequences
    squares = 0.0
    for chosen, orders in draws(samples, len(said)):
        estimate = gradient_of(algorithm, [said[i] for i in chosen], Terminal())
        squares += float(orders * chances[list(chosen)].prod() * estimate.square().sum())
    return squares - float(expected_gradient(algorithm, samples, Terminal()).square().sum())


@pytest.mark.slow
def test_the_more_a_baseline_knows_the_less_the_gradient_varies() -> None:
    """O39: exact, from two samples."""
    values = values_of(RECORDED, Terminal())
    found = [
        variance(algorithm_with(advantages.no_baseline, 2), 2),
        variance(algorithm_with(advantages.leave_one_out, 2), 2),
        variance(algorithm_with(advantages.greedy, 2), 2),
        variance(with_critic(values, 1.0, 2), 2),
        variance(with_critic(values, 0.0, 2), 2),
    ]
    assert found == pytest.approx([0.700, 0.376, 0.208, 0.139, 0.091], abs=6e-4)


def generalised(rewards: list[float], values: list[float], gae_lambda: float) -> list[float]:
    """sum_l lambda^l delta_{t+l}, as the paper writes it."""
    ahead = [*values, 0.0]
    deltas = [reward + ahead[t + 1] - ahead[t] for t, reward in enumerate(rewards)]
    return [sum(gae_lambda**k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(rewards))]


@pytest.mark.parametrize("gae_lambda", [0.0, 0.3, 1.0])
def test_lambda_returns_less_values_are_generalised_advantages_and_padding_is_not_read(gae_lambda: float) -> None:
    """O30, trap 6: each row of a padded batch is as it is alone."""
    draw = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(4, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    lengths = [6, 1, 4, 3]
    mask = torch.arange(6) < torch.tensor(lengths).unsqueeze(-1)
    rewards, values = rewards.masked_fill(~mask, 1e9), values.masked_fill(~mask, torch.nan)
    fresh = torch.ones_like(mask)
    returns = lambda_returns(rewards, values, fresh, mask, gae_lambda)
    for row, length in enumerate(lengths):
        expected = generalised(rewards[row, :length].tolist(), values[row, :length].tolist(), gae_lambda)
        assert (returns - values)[row, :length].tolist() == pytest.approx(expected, abs=1e-12)
    assert not returns[~mask].any()


def test_between_measured_values_the_rewards_are_summed() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    values = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    fresh, mask = torch.tensor([[True, False, True, False]]), torch.ones(1, 4, dtype=torch.bool)
    assert lambda_returns(rewards, values, fresh, mask, 0.0).tolist() == [[1 + 2 + 30.0, 2 + 30.0, 4 + 8.0, 8.0]]


@pytest.mark.parametrize("stride", [1, 2])
def test_continuations_begin_as_the_episode_did_and_their_mean_return_is_the_value(stride: int) -> None:
    algorithm = with_critic(None, 0.0, 2, critic=Continuations(3, stride))
    batch = batch_of(4)
    rollout, _ = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Terminal())
    values, fresh = algorithm.critic.measure(rollout, algorithm.model)
    assert rollout.rewards is not None
    measured = 0
    for row in (rollout.role == 0).nonzero().flatten().tolist():
        for t in range(int(rollout.mask[row].sum())):
            of_state = [
                other
                for other in (rollout.role == 3).nonzero().flatten().tolist()
                if rollout.parent[other] == row and int((rollout.mask & ~rollout.chosen)[other].sum()) == t
            ]
            assert len(of_state) == (3 if t % stride == 0 else 0)
            assert bool(fresh[row, t]) == (t % stride == 0)
            assert all(torch.equal(rollout.actions[other, :t], rollout.actions[row, :t]) for other in of_state)
            assert all(rollout.group[other] == rollout.group[row] for other in of_state)
            if of_state:
                last = sum(float(rollout.rewards[other].sum()) for other in of_state) / 3
                measured += 1
            assert float(values[row, t]) == pytest.approx(last)
    assert measured > 8


@pytest.mark.sample(1)
@CREDITS
def test_the_values_of_many_continuations_are_those_of_the_policy(credit: Any) -> None:
    """So VinePPO without clipping or whitening is unbiased: its estimate is linear in them. By z, fixed seed."""
    algorithm = with_critic(None, 0.0, 1, critic=Continuations(3000, 1))
    batch = batch_of(6)
    rollout, _ = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), credit)
    values, _ = algorithm.critic.measure(rollout, algorithm.model)
    wanted, error = values_of(RECORDED, credit), 4 / 3000**0.5  # rewards differ by less than 2
    for row in range(6):
        for t in range(int(rollout.mask[row].sum())):
            state = RECORDED.states[tuple(rollout.actions[row, :t].tolist())]
            assert abs(float(values[row, t]) - float(wanted[state])) < error


def test_an_invalid_continuation_counts_for_nothing() -> None:
    algorithm = with_critic(None, 0.0, 1, critic=Continuations(2, 1))
    batch = batch_of(1)
    rollout, _ = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Terminal())
    of_start = ((rollout.role == 3) & ((rollout.mask & ~rollout.chosen).sum(-1) == 0)).nonzero().flatten()
    rollout.valid[of_start[0]] = False
    values, _fresh = algorithm.critic.measure(rollout, algorithm.model)
    assert rollout.rewards is not None
    assert float(values[0, 0]) == float(rollout.rewards[of_start[1]].sum())
    rollout.valid[of_start[1]] = False
    assert not bool(algorithm.critic.measure(rollout, algorithm.model)[1][0, 0])


def test_a_value_may_move_no_further_than_its_clip() -> None:
    now, before, wanted = (torch.tensor(each) for each in ([1.0, 1.0, 0.1, 3.0], [0.0] * 4, [2.0, 0.5, 1.0, 1.0]))
    assert value_error(now, before, wanted, 0.0).tolist() == pytest.approx([0.5, 0.125, 0.405, 2.0])
    # held at 0.2 the first is worse, the second better than its own error of .125; .1 is within the clip
    assert value_error(now, before, wanted, 0.2).tolist() == pytest.approx([1.62, 0.125, 0.405, 2.0])


def test_explained_variance_by_hand() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 99.0]]), torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(torch.full((1, 4), 5.0), returns, mask) == 0
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3)
    assert explained_variance(returns, torch.ones(1, 4), mask) == 0


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_the_critic_learns_the_returns_and_the_policy_does_not_learn_from_it(clip: float) -> None:
    """With every episode as likely as it is, the head's gradient is zero where V is the policy's value."""
    chances = probabilities(TabularPolicy(RECORDED.policy)).detach()
    totals = []
    for values in (values_of(RECORDED, Terminal()), values_of(RECORDED, Terminal()) + 0.1):
        total: Any = 0
        for chance, said in zip(chances, RECORDED.sequences, strict=True):
            algorithm = with_critic(values, 1.0, critic=ValueHead(1.0, clip, 1.0))
            gradient_of(algorithm, [said], Terminal())
            head = next(algorithm.critic.head.parameters())
            total = total + chance * len(said) * (0 if head.grad is None else head.grad)
        totals.append(total)
    assert totals[0].abs().max() < 1e-12 < 1e-3 < totals[1].abs().max()
    with_value, without = (with_critic(None, 1.0, critic=ValueHead(coef, clip, 1.0)) for coef in (1.0, 0.0))
    said = [RECORDED.sequences[5]]
    assert torch.equal(gradient_of(with_value, said, Terminal()), gradient_of(without, said, Terminal()))


def test_the_kl_coefficient_follows_its_target() -> None:
    kl = AdaptiveKl(0.1, 2.0, 0.5)
    kl.observe(2.2)
    assert kl.coefficient == pytest.approx(0.1 * (1 + 0.5 * 0.1))
    kl.observe(100.0)
    assert kl.coefficient == pytest.approx(0.1 * 1.05 * 1.1)  # no more than a fifth of the rate at once
    for _ in range(200):
        kl.observe(0.0)
    assert 0 < kl.coefficient < 1e-6
    again, other = AdaptiveKl(0.1, 2.0, 0.5), AdaptiveKl(0.3, 2.0, 0.5)
    for each in (again, other):
        each.load_state_dict(kl.state_dict())
    assert again.coefficient == kl.coefficient != 0.1, "adaptation goes on"
    assert other.coefficient == 0.3, "another coefficient was asked for since"
    constant = AdaptiveKl(0.1, 0.0, 0.5)
    constant.observe(100.0)
    assert constant.coefficient == 0.1


def test_a_value_head_learns_at_its_own_factor_of_the_learning_rate() -> None:
    """The first step of Adam is the learning rate for every number with a gradient, whatever its size."""
    flat = partial(adam, lr=0.01, betas=[0.9, 0.99], eps=1e-12, clip_norm=1e-3, schedule=lambda step: 1.0)
    critic = ValueHead(0.5, 0.0, 7.0)
    algorithm = algorithm_with(advantages.state_value, 4, critic=critic, optimizer=flat)
    before = algorithm.model.table.detach().clone()
    batch = batch_of(6)
    rollout = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Terminal())[0]
    assert algorithm.update(rollout)["lr"] == 0.01
    assert (algorithm.model.table - before).abs().max().item() == pytest.approx(0.01)
    assert critic.head.weight.abs().max().item() == pytest.approx(0.07)
    assert critic.head.bias.abs().item() == pytest.approx(0.07)


@pytest.mark.parametrize(
    ("follow", "expected"),
    [
        (schedules.frozen, [0.0, 0.0, 0.0]),
        (partial(schedules.moving_average, rate=0.25), [0.25, 0.4375, 0.578125]),
        (partial(schedules.periodic, every=2), [0.0, 1.0, 1.0]),
    ],
    ids=["frozen", "moving_average", "periodic"],
)
def test_the_reference_follows_the_policy_as_asked(follow: Any, expected: list[float]) -> None:
    algorithm = algorithm_with(advantages.no_baseline, 1, kl_loss_coef=0.1, reference=follow)
    with torch.no_grad():
        algorithm.model.table += 1.0  # an optimiser would have
    start = torch.tensor(RECORDED.policy, dtype=torch.float64)
    for share in expected:
        gradient_of(algorithm, [RECORDED.sequences[3]], Terminal())
        assert ((algorithm.reference.model.table - start) - share).abs().max() < 1e-12
        assert not algorithm.reference.model.table.requires_grad


def test_a_text_near_the_limit_pays_for_its_length() -> None:
    mask = torch.arange(10) < torch.tensor([[3], [8], [9], [10]])
    assert overlong_penalty(mask, 10, 0.4).tolist() == pytest.approx([0, -0.5, -0.75, -1])
    algorithm = algorithm_with(advantages.no_baseline, 2, overlong_share=0.5)
    assert LENGTH == 3  # a buffer of 1.5 tokens: two tokens pay (3 - 1.5 - 2) / 1.5, three pay 1
    logged = {}
    said = [RECORDED.sequences[1], RECORDED.sequences[3]]
    update = algorithm.update
    algorithm.update = lambda rollout: logged.update(update(rollout)) or logged  # type: ignore[method-assign]
    gradient = gradient_of(algorithm, said, Terminal())
    assert logged["overlong_penalty"] == pytest.approx((-1 / 3 - 1) / 2)
    dearer = RECORDED.rewards.clone()
    dearer[1] -= 1 / 3
    dearer[3] -= 1
    chances = probabilities(algorithm.model)
    wanted = torch.autograd.grad(sum(dearer[i] * chances[i].log() / 2 for i in (1, 3)), algorithm.model.table)[0]
    assert (gradient - wanted).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"baseline": advantages.state_value}, "critic"),
        ({"returns": partial(lambda_returns, gae_lambda=0.5)}, "critic"),
        ({"add_reference": True, "top_k": 2}, "add_reference"),
    ],
)
def test_parts_that_do_not_go_together_are_named(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError) as caught:
        algorithm_with(**({"baseline": advantages.no_baseline, "samples": 1} | changes))
    assert caught.value.where == where
