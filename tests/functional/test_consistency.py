"""Path consistency: residuals by hand, their gradients, and that there is no other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokenrl_cli.functional.consistency import log_partition, one_token, path, zero_after_end

TAU = 0.5
MASK = torch.tensor([[True, True, True], [True, False, False]])


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    """V [2, 4], r and log(pi / prior) [2, 3]; what is masked is large."""
    values = torch.tensor([[1.0, 2.0, 3.0, 0.0], [5.0, 0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([[0.1, 0.2, 0.4], [0.8, 9.0, 9.0]], dtype=torch.float64, requires_grad=True)
    apart = torch.tensor([[0.2, 0.4, 0.6], [1.0, 9.0, 9.0]], dtype=torch.float64, requires_grad=True)
    return values, rewards, apart


RESIDUALS = {  # C_t = V(s_u) - V(s_t) + sum r - tau l; r - tau l: 0, 0, .1 and .3
    "1": [[1.0, 1.0, -2.9], [-4.7, 0, 0]],
    "2": [[2.0, -1.9, -2.9], [-4.7, 0, 0]],
    "None": [[-0.9, -1.9, -2.9], [-4.7, 0, 0]],
}


@pytest.mark.parametrize("span", [1, 2, None])
def test_residuals_and_gradients_of_every_span_by_hand(span: int | None) -> None:
    """Through V at both ends, through every l on the way, and through nothing that is masked."""
    values, rewards, apart = leaves()
    error, residual = path(values, rewards, apart, MASK, TAU, span)
    expected = torch.tensor(RESIDUALS[str(span)], dtype=torch.float64)
    assert torch.allclose(residual, expected)
    assert torch.allclose(error, expected.square() / 2)
    found = torch.autograd.grad(error.sum(), (values, apart))
    by_value, by_ratio = torch.zeros(2, 4).double(), torch.zeros(2, 3).double()
    for row, length in ((0, 3), (1, 1)):
        for start in range(length):
            stop, off = min(start + (span or 3), length), expected[row, start]
            by_value[row, stop] += off
            by_value[row, start] -= off
            by_ratio[row, start:stop] -= TAU * off
    assert torch.allclose(found[0], by_value)
    assert torch.allclose(found[1], by_ratio)


def test_a_token_by_itself_learns_from_its_own_ratio_alone() -> None:
    """OREO: the same residual; the policy's gradient of step t is -tau C_t of that step, V's that of the path."""
    values, rewards, apart = leaves()
    error, residual = one_token(values, rewards, apart, MASK, TAU)
    assert torch.allclose(residual, path(values, rewards, apart, MASK, TAU, None)[1])
    by_value, by_ratio = torch.autograd.grad(error.sum(), (values, apart))
    assert torch.allclose(by_ratio, (-TAU * residual).detach())
    whole = path(values, rewards, apart.detach(), MASK, TAU, None)[0]
    assert torch.allclose(by_value, torch.autograd.grad(whole.sum(), values)[0])


def test_values_close_where_an_episode_is_over() -> None:
    values = torch.ones(2, 4, requires_grad=True)
    assert zero_after_end(values, MASK, torch.tensor([True, True])).tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    cut = zero_after_end(values, MASK, torch.tensor([True, False]))
    assert cut.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    (found,) = torch.autograd.grad(cut.sum(), values)
    assert torch.equal(found, cut.detach())


def test_log_partition_is_the_mean_of_each_source_without_a_gradient() -> None:
    scores = torch.tensor([1.0, 3.0, 10.0], requires_grad=True)
    apart = torch.tensor([0.0, 2.0, 4.0], requires_grad=True)
    found = log_partition(scores, apart, torch.tensor([7, 7, 2]), TAU)
    assert found.tolist() == [1.5, 1.5, 8.0]
    assert not found.requires_grad


def test_log_partition_is_exact_where_the_policy_is_right() -> None:
    """Every sample of the soft optimum says the same."""
    rewards, prior = torch.tensor([0.3, 1.0, 0.1]).double(), torch.tensor([0.2, 0.5, 0.3]).double()
    tilted = prior.log() + rewards / TAU
    apart = tilted.log_softmax(0) - prior.log()
    found = log_partition(rewards, apart, torch.zeros(3, dtype=torch.int64), TAU)
    assert torch.allclose(found, (TAU * tilted.logsumexp(0)).expand(3))
