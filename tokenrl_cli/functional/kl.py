"""Divergence between the policy and a reference, estimated on sampled tokens."""

from __future__ import annotations

from torch import Tensor

from tokenrl_cli.functional.precision import precise


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log pi(a_t) - log pi_ref(a_t), an unbiased estimate of KL(pi || pi_ref) at s_t for a_t ~ pi. [B, T] -> [B, T].

    Belongs in the reward, summed to go: there its gradient is that of the KL of whole sequences. As a loss its
    expected gradient is zero.
    """
    return logprobs - reference_logprobs


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """(log pi - log pi_ref)^2 / 2 (Schulman 2020). As a loss its expected gradient is that of KL(pi || pi_ref) at s_t,
    for states as they were visited. [B, T] -> [B, T]."""
    return (logprobs - reference_logprobs).square() / 2


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """pi_ref / pi - 1 - log(pi_ref / pi) (Schulman 2020), never below 0. As a loss, as GRPO has it, its expected
    gradient is that of the other direction, KL(pi_ref || pi). [B, T] -> [B, T]."""
    difference = reference_logprobs - logprobs
    return difference.exp() - 1 - difference


def k3_with_gradient_of_k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The value of k3, which varies little, with the gradient of k2, which is right. [B, T] -> [B, T]."""
    quadratic = k2(logprobs, reference_logprobs)
    return k3(logprobs, reference_logprobs).detach() + quadratic - quadratic.detach()


def full(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """sum_a pi(a) (log pi(a) - log pi_ref(a)), of plain softmaxes: no estimate. [B, T, V] -> [B, T]."""
    logprobs, reference = (precise(each).log_softmax(-1) for each in (logits, reference_logits))
    return (logprobs.exp() * (logprobs - reference)).sum(-1)
