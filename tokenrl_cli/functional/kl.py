"""Divergence between the policy and a reference, estimated on sampled tokens."""

from __future__ import annotations

from torch import Tensor


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log pi(a_t) - log pi_ref(a_t), an unbiased estimate of KL(pi || pi_ref) at s_t for a_t ~ pi. [B, T] -> [B, T].

    Belongs in the reward, summed to go: there its gradient is that of the KL of whole sequences. As a loss its
    expected gradient is zero.
    """
    return logprobs - reference_logprobs
