"""Cross-entropy and entropy of the plain softmax."""

from __future__ import annotations

import math

import torch

from tokenrl_cli.functional.entropy import entropy
from tokenrl_cli.functional.kl import k1
from tokenrl_cli.functional.likelihood import negative_log_likelihood

LOGITS = torch.log(torch.tensor([[[0.5, 0.25, 0.25]]], dtype=torch.float64))


def test_the_likelihood_of_a_token_is_its_log_probability() -> None:
    assert math.isclose(negative_log_likelihood(LOGITS, torch.tensor([[1]]), 0.0).item(), math.log(4))


def test_label_smoothing_mixes_in_the_mean_over_the_vocabulary() -> None:
    uniform = -(math.log(0.5) + 2 * math.log(0.25)) / 3
    smoothed = negative_log_likelihood(LOGITS, torch.tensor([[0]]), 0.1).item()
    assert math.isclose(smoothed, 0.9 * math.log(2) + 0.1 * uniform)


def test_entropy_counts_impossible_tokens_as_nothing() -> None:
    assert math.isclose(entropy(LOGITS).item(), 1.5 * math.log(2))
    logits = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    value = entropy(logits)
    assert math.isclose(value.item(), math.log(2), rel_tol=1e-6)
    assert entropy(torch.tensor([0.0, -math.inf])).item() == 0.0


def test_half_precision_is_summed_in_float32() -> None:
    logits = torch.zeros(1, 1, 5000, dtype=torch.bfloat16)
    assert math.isclose(entropy(logits).item(), math.log(5000), rel_tol=1e-5)
    nll = negative_log_likelihood(logits, torch.zeros(1, 1, dtype=torch.int64), 0.0)
    assert nll.dtype == torch.float32
    assert math.isclose(nll.item(), math.log(5000), rel_tol=1e-5)


def test_k1_is_the_difference_of_log_probabilities() -> None:
    assert k1(torch.tensor([-1.0]), torch.tensor([-3.0])).item() == 2.0


def test_label_smoothing_spreads_over_what_is_possible() -> None:
    """A token with the logit -inf gets no share of the smoothing: by hand, with two others of probability 2/3, 1/3."""
    logits = torch.tensor([[[math.log(2), 0.0, -math.inf]]], dtype=torch.float64, requires_grad=True)
    loss = negative_log_likelihood(logits, torch.tensor([[0]]), 0.1)
    mean = (math.log(2 / 3) + math.log(1 / 3)) / 2
    assert math.isclose(loss.item(), -0.9 * math.log(2 / 3) - 0.1 * mean)
    loss.sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
