"""KL estimates equal values computed by hand, for two distributions over four tokens."""

from __future__ import annotations

import math

import pytest
import torch

from tokenrl_cli.functional.kl import full, k1, k2, k3, k3_with_gradient_of_k2

Q = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)  # a cut left three tokens of four
REFERENCE = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
KL = 0.5 * math.log(5) + 0.3 * math.log(1.5) + 0.2 * math.log(2 / 3)


def test_the_estimates_of_one_token() -> None:
    ours, theirs = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.1)]])
    assert float(k1(ours, theirs)) == pytest.approx(math.log(5))
    assert float(k2(ours, theirs)) == pytest.approx(math.log(5) ** 2 / 2)
    for estimate in (k3, k3_with_gradient_of_k2):
        assert float(estimate(ours, theirs)) == pytest.approx(0.2 - 1 + math.log(5))


def test_k3_misses_under_a_cut_what_the_reference_gives_to_tokens_that_are_left_out() -> None:
    """The mean of k3 is too low by the probability that the reference gives to tokens outside the cut."""
    said, other = Q[:3].log(), REFERENCE[:3].log()
    assert float((Q[:3] * k1(said, other)).sum()) == pytest.approx(KL)
    assert float((Q[:3] * k3(said, other)).sum()) == pytest.approx(KL - 0.4)
    whole = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    assert float((whole * k3(whole.log(), REFERENCE.log())).sum()) == pytest.approx(
        float((whole * (whole / REFERENCE).log()).sum())
    )


def test_the_sum_over_the_vocabulary_takes_logits_or_log_probabilities_and_tokens_that_cannot_be_said() -> None:
    logits = Q.log().requires_grad_()
    for shift in (0.0, 3.0):
        assert float(full(logits.detach() + shift, REFERENCE.log() - shift)) == pytest.approx(KL)
    (gradient,) = torch.autograd.grad(full(logits, REFERENCE.log()), logits)
    wanted = Q[:3] * ((Q / REFERENCE)[:3].log() - KL)
    assert torch.allclose(gradient[:3], wanted, rtol=0, atol=1e-15)
    assert gradient[3] == 0
    neither = torch.tensor([0.6, 0.4, 0.0], dtype=torch.float64).log()
    assert float(full(neither, neither)) == 0
    assert float(full(REFERENCE.log(), Q.log())) == math.inf
