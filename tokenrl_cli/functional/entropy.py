"""How undecided a policy is."""

from __future__ import annotations

from torch import Tensor

from tokenrl_cli.functional.precision import precise


def entropy(logits: Tensor) -> Tensor:
    """H = -sum_a p(a) log p(a) in nats, of the plain softmax. [..., V] -> [...]. Impossible tokens add nothing."""
    logprobs = precise(logits).log_softmax(-1)
    return -(logprobs.exp() * logprobs.masked_fill(logprobs.isneginf(), 0.0)).sum(-1)
