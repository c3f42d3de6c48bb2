"""Baselines equal values computed by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tokenrl_cli.algorithm.parts.baseline import MovingAverage
from tokenrl_cli.functional.advantages import greedy, leave_one_out, no_baseline

RETURNS = torch.tensor([[[3.0, 1.0], [5.0, 0.0], [10.0, 2.0]]])  # one source, three samples, two steps


def test_leave_one_out_is_the_mean_of_the_others_at_the_same_step() -> None:
    valid = torch.ones(1, 3, dtype=torch.bool)
    assert leave_one_out(RETURNS, valid).tolist() == [[[7.5, 1.0], [6.5, 1.5], [4.0, 0.5]]]


def test_an_invalid_sample_is_nobodys_baseline_and_a_lonely_one_weighs_nothing() -> None:
    valid = torch.tensor([[True, True, False]])
    assert leave_one_out(RETURNS, valid)[:, :2].tolist() == [[[5.0, 0.0], [3.0, 1.0]]]
    lonely = torch.tensor([[True, False, False]])
    assert (RETURNS - leave_one_out(RETURNS, lonely))[:, 0].tolist() == [[0.0, 0.0]]


@given(arrays.arrays("float64", (2, 4, 3), elements=st.floats(-10, 10)))
def test_leave_one_out_advantages_sum_to_zero_and_rescale_the_group_mean(values) -> None:  # type: ignore[no-untyped-def]
    """Oracle O27: A = (G - mean G) K / (K - 1), G - mean G the advantage over the group mean."""
    returns = torch.from_numpy(values)
    advantages = returns - leave_one_out(returns, torch.ones(2, 4, dtype=torch.bool))
    assert advantages.sum(1).abs().max() < 1e-9
    assert torch.allclose(advantages, (returns - returns.mean(1, keepdim=True)) * 4 / 3, atol=1e-9)


def test_the_greedy_baseline_is_the_companion_at_the_same_step() -> None:
    companion = torch.tensor([[2.0, 0.0]])
    assert (RETURNS - greedy(companion)).tolist() == [[[1.0, 1.0], [3.0, 0.0], [8.0, 2.0]]]
    assert no_baseline(RETURNS).item() == 0.0


def test_the_moving_average_is_read_before_it_is_updated_and_survives_a_resume() -> None:
    """Trap 28: the average that a batch is compared with excludes that batch; its state stays small and is saved."""
    baseline, valid = MovingAverage(0.75), torch.ones(1, 3, dtype=torch.bool)
    assert baseline(RETURNS).item() == 0.0
    baseline.observe(RETURNS, valid)
    assert baseline(RETURNS).item() == 6.0
    baseline.observe(RETURNS * 2, valid)
    again = MovingAverage(0.75)
    again.load_state_dict(baseline.state_dict())
    assert again(RETURNS).item() == baseline(RETURNS).item() == pytest.approx((0.75 * 6 + 12) / 1.75)
    assert len(baseline.state_dict()) == 2
    baseline.observe(RETURNS, torch.zeros_like(valid))
    assert baseline(RETURNS).item() == again(RETURNS).item()
