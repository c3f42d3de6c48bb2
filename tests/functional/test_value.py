"""Values, targets and losses equal values computed by hand, and gradients flow only where they should."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tokenrl_cli.functional.value import (
    advantage_weights,
    conservative,
    double,
    expected,
    expectile_error,
    last_steps,
    maximum,
    n_step_targets,
    soft_value,
    td_targets,
    value_error,
)


def numbers(*shape: int, seed: int = 0, grad: bool = True) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_(grad)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss.sum(), of)
    return found


def test_the_maximum_is_that_of_the_lower_head() -> None:
    q = torch.tensor([[[1.0, 5.0, 3.0]], [[4.0, 2.0, 2.5]]], requires_grad=True)  # lower: 1, 2, 2.5
    assert maximum(q).tolist() == [2.5]
    assert maximum(q[:1]).tolist() == [5.0]
    assert gradient(maximum(q), q).tolist() == [[[0, 0, 0]], [[0, 0, 1]]]


def test_double_values_what_the_other_network_chose() -> None:
    target = torch.tensor([[[1.0, 5.0, 3.0]]], requires_grad=True)
    online = torch.tensor([[[0.0, 1.0, 2.0]]], requires_grad=True)
    assert double(target, online).tolist() == [3.0]
    assert gradient(double(target, online), target).tolist() == [[[0, 0, 1]]]
    with pytest.raises(RuntimeError, match="not have been used"):
        gradient(double(target, online), online)


def test_what_a_policy_expects_by_hand() -> None:
    target = torch.tensor([[[1.0, 5.0, 3.0]], [[4.0, 2.0, 2.5]]], requires_grad=True)  # lower: 1, 2, 2.5
    policy = torch.tensor([[0.5, 0.3, 0.2]])
    assert expected(target, policy).tolist() == [pytest.approx(1.6)]
    assert torch.allclose(gradient(expected(target, policy), target)[:, 0], torch.tensor([[0.5, 0, 0], [0, 0.3, 0.2]]))


def test_with_identical_networks_double_q_learning_is_q_learning() -> None:
    """Oracle O31: the greedy token of the online network is then also that of the target network."""
    q = numbers(2, 4, 3, 7)
    assert torch.equal(double(q, q), maximum(q))


@pytest.mark.parametrize("temperature", [0.01, 0.7, 100.0])
def test_soft_value_by_hand(temperature: float) -> None:
    """At a low temperature the soft value is the maximum of Q, at a high one the mean of Q under the prior."""
    q, prior = numbers(5, 4), numbers(5, 4, seed=1, grad=False).log_softmax(-1)
    value = soft_value(q, prior, temperature)
    by_hand = temperature * ((q / temperature).exp() * prior.exp()).sum(-1).log()
    assert torch.allclose(value, by_hand, rtol=1e-12)
    assert torch.allclose(gradient(value, q), (q / temperature + prior).softmax(-1), rtol=1e-12)
    if temperature == 0.01:
        assert (value - q.amax(-1)).abs().max() < 0.05
    if temperature == 100:
        assert (value - (q * prior.exp()).sum(-1)).abs().max() < 0.02


MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])
REWARDS = torch.tensor([[1.0, 2.0, 4.0, 99.0], [0.5, 0.25, 99.0, 99.0]])
VALUES = torch.tensor([[10.0, 20.0, 30.0, 40.0, 99.0], [50.0, 60.0, 70.0, 99.0, 99.0]])


@pytest.mark.parametrize(
    ("horizon", "expected"),
    [
        (1, [[21, 32, 4, 0], [60.5, 70.25, 0, 0]]),
        (2, [[33, 6, 4, 0], [70.75, 70.25, 0, 0]]),
        (3, [[7, 6, 4, 0], [70.75, 70.25, 0, 0]]),
        (math.inf, [[7, 6, 4, 0], [70.75, 70.25, 0, 0]]),
    ],
)
def test_targets_of_every_horizon_by_hand(horizon: float, expected: list[list[float]]) -> None:
    """Trap 7: the first episode has ended; the second was cut, so V of its last state counts."""
    rewards, values = REWARDS.clone().requires_grad_(), VALUES.clone().requires_grad_()
    found = n_step_targets(rewards, values, torch.tensor([True, False]), MASK, horizon)
    assert found.tolist() == expected
    assert not found.requires_grad


def test_one_step_targets_are_rewards_and_the_next_value() -> None:
    """`td_targets` and `n_step_targets` with n = 1 agree."""
    over = torch.tensor([True, True])
    td = td_targets(REWARDS, VALUES[:, 1:].clone().requires_grad_(), last_steps(MASK))
    assert torch.equal(td[MASK], n_step_targets(REWARDS, VALUES, over, MASK, 1)[MASK])
    assert not td.requires_grad


def test_conservative_by_hand() -> None:
    q = numbers(3, 4)
    chosen = q.detach()[:, 1].clone().requires_grad_()
    error = conservative(q, chosen)
    assert torch.allclose(error, q.exp().sum(-1).log() - chosen)
    assert torch.allclose(gradient(error, q), q.softmax(-1))
    assert gradient(conservative(q, chosen), chosen).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_the_expectile_error_by_hand(expectile: float) -> None:
    values, targets = (
        torch.tensor([1.0, 1.0, 1.0], requires_grad=True),
        torch.tensor([3.0, 0.0, 1.0], requires_grad=True),
    )
    error = expectile_error(values, targets, expectile)
    assert torch.allclose(error, torch.tensor([expectile * 4, (1 - expectile) * 1, 0.0]))
    assert torch.allclose(gradient(error, values), torch.tensor([-4 * expectile, 2 * (1 - expectile), 0.0]))
    with pytest.raises(RuntimeError, match="not have been used"):
        gradient(expectile_error(values, targets, expectile), targets)


def test_advantage_weights_stay_finite_and_say_where_they_were_held() -> None:
    """Trap 32: exp(beta A) would overflow at A = 1000."""
    advantages = torch.tensor([-1e3, 0.0, 0.5, 1e3], requires_grad=True)
    weights, held = advantage_weights(advantages, 2.0, 20.0)
    assert torch.allclose(weights, torch.tensor([0.0, 1.0, math.e, 20.0]))
    assert held.tolist() == [False] * 3 + [True]
    assert gradient(weights, advantages).isfinite().all()


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_value_error_by_hand(clip: float) -> None:
    values, before = torch.tensor([1.0, 1.0], requires_grad=True), torch.tensor([0.5, 0.9], requires_grad=True)
    targets = torch.tensor([2.0, 3.0], requires_grad=True)
    error = value_error(values, before, targets, clip)
    held = (0.7 - 2) ** 2 / 2 if clip else (1 - 2) ** 2 / 2  # .7: .5 moved by the clip
    assert torch.allclose(error, torch.tensor([held, 2.0]))
    assert torch.allclose(gradient(error, values), torch.tensor([0.0 if clip else -1.0, -2.0]))
    for other in (before, targets):
        with pytest.raises(RuntimeError, match="not have been used"):
            gradient(value_error(values, before, targets, clip), other)
