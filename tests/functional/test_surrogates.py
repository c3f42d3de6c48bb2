"""Surrogate objectives of a token, their gradients, and where clipping leaves none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenrl_cli.functional import surrogates


def gradient_at(function: Any, ratio: float, advantage: float, **more: Any) -> tuple[float, float, bool]:
    """(objective, d objective / d log pi, clipped) of one token sampled with log-probability -1."""
    sampled = torch.full((1, 1), -1.0, dtype=torch.float64)
    logprobs = (sampled + math.log(ratio)).requires_grad_()
    advantages = torch.full((1, 1), advantage, dtype=torch.float64, requires_grad=True)
    objective, stopped = function(logprobs, sampled.requires_grad_(), advantages, **more)
    objective.sum().backward()
    assert logprobs.grad is not None
    return float(objective.detach()), float(logprobs.grad), bool(stopped)


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("ratio", [0.5, 0.95, 1.05, 1.5])
def test_clipping_stops_the_gradient_in_two_of_four_quadrants_alone(ratio: float, advantage: float) -> None:
    """Oracle O20: the gradient is 0 only where A > 0 and the ratio is too high, or A < 0 and it is too low."""
    value, gradient, stopped = gradient_at(surrogates.clipped_ratio, ratio, advantage, clip_low=0.1, clip_high=0.2)
    assert stopped == ((advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.9))
    assert gradient == pytest.approx(0.0 if stopped else ratio * advantage)
    assert value == pytest.approx(min(ratio * advantage, min(max(ratio, 0.9), 1.2) * advantage))


@pytest.mark.parametrize("ratio", [0.2, 1.0, 7.0])
def test_a_detached_weight_is_bounded_and_leaves_every_token_its_gradient(ratio: float) -> None:
    value, gradient, stopped = gradient_at(surrogates.detached_clip, ratio, -1.5, clip_low=0.5, clip_high=4.0)
    weight = min(max(ratio, 0.5), 5.0)
    assert gradient == pytest.approx(-1.5 * weight)
    assert not stopped
    assert value == pytest.approx(-1.5 * weight * (math.log(ratio) - 1))


def test_the_score_function_knows_no_ratio() -> None:
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    objective, stopped = surrogates.score_function(logprobs, torch.tensor([[3.0, -1.0]]))
    objective.sum().backward()
    assert objective.tolist() == [[-3, 2]]
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[3, -1]]
    assert not stopped.any()


def test_the_ratio_of_a_sequence_is_the_geometric_mean_over_its_real_tokens() -> None:
    difference = torch.tensor([[0.2, -0.1, 9.0]], dtype=torch.float64)  # the last is padding
    mask = torch.tensor([[True, True, False]])
    logprobs = difference.clone().requires_grad_()
    objective, stopped = surrogates.sequence_ratio(
        logprobs, torch.zeros_like(difference), torch.ones_like(difference), mask, clip_low=0.5, clip_high=0.5
    )
    ratio = math.exp(0.05)
    assert objective[0, :2].tolist() == pytest.approx([ratio, ratio])
    objective[mask].sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([ratio, ratio, 0])
    _, stopped = surrogates.sequence_ratio(
        logprobs, torch.zeros_like(difference), torch.ones_like(difference), mask, clip_low=0.01, clip_high=0.01
    )
    assert stopped[0, :2].all()  # all tokens of an episode, or none


@pytest.mark.parametrize("name", ["clipped_ratio", "sequence_ratio", "detached_clip"])
def test_far_from_the_sampler_nothing_overflows_into_the_gradient(name: str) -> None:
    logprobs = torch.tensor([[-60.0, -1.0]], dtype=torch.float64, requires_grad=True)
    more: dict[str, Tensor] = {"mask": torch.ones(1, 2, dtype=torch.bool)} if name == "sequence_ratio" else {}
    objective, _ = getattr(surrogates, name)(
        logprobs, torch.tensor([[-1.0, -60.0]]).double(), torch.ones(1, 2).double(), **more, clip_low=0.2, clip_high=0.2
    )
    objective.sum().backward()
    assert objective.isfinite().all()
    assert logprobs.grad is not None
    assert logprobs.grad.isfinite().all()
