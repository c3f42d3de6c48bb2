"""Entropy of a policy's next-token distribution, and how peaked it is."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.functional.precision import precise


def entropy(logits: Tensor) -> Tensor:
    """Entropy H = -sum_a p(a) log p(a) of p = softmax(logits), in nats, in float32 or float64. logits [..., V] ->
    [...]. Gradients flow.

    Tokens with the logit -inf add 0 to the value and to the gradient.
    """
    return entropy_of_logprobs(precise(logits).log_softmax(-1))


def entropy_of_logprobs(logprobs: Tensor) -> Tensor:
    """Entropy in nats of a distribution from the log-probabilities of all its tokens, which must be normalised:
    exp(logprobs) sums to 1. [..., V] -> [...], in the type of `logprobs`. Gradients flow; tokens with log-probability
    -inf add 0 to the value and to the gradient."""
    # 0 * -inf is NaN, and would be for every impossible token: the second factor is made finite first.
    return -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(-1)


def concentration(logits: Tensor) -> dict[str, Tensor]:
    """Statistics of how peaked softmax(logits) is. logits [..., V] -> a dictionary of three tensors [...], in float32
    or float64: "entropy" (nats), "mode_prob" (probability of the likeliest token) and "top10_mass" (probability of the
    ten likeliest together; 1 where V is at most 10). Gradients flow.

    Where RL only sharpens the policy, mode_prob, top10_mass and the sampled reward rise while the greedy output hardly
    changes (Choshen et al. 2020, arXiv:1907.01752).
    """
    # A vocabulary of fewer than ten tokens has all of its probability in the "ten likeliest".
    best = precise(logits).softmax(-1).topk(min(10, logits.shape[-1]), -1).values
    return {"entropy": entropy(logits), "mode_prob": best[..., 0], "top10_mass": best.sum(-1)}


def ranks(logits: Tensor, targets: Tensor) -> Tensor:
    """Rank of the target token by its logit, 1 + the number of tokens with a higher one: 1 is the best, and tokens with
    equal logits share the better rank.

    logits [B, T, V], targets [B, T] int64 -> [B, T] float32, without gradient. Padding gets a rank, too.
    """
    own = logits.gather(-1, targets.unsqueeze(-1))
    return 1.0 + (logits > own).sum(-1).to(torch.float32)
