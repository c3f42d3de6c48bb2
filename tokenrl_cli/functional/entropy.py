"""How undecided a policy is."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenrl_cli.functional.precision import precise


def entropy(logits: Tensor) -> Tensor:
    """H = -sum_a p(a) log p(a) in nats, of the plain softmax. [..., V] -> [...]. Impossible tokens add nothing."""
    logprobs = precise(logits).log_softmax(-1)
    return -(logprobs.exp() * logprobs.masked_fill(logprobs.isneginf(), 0.0)).sum(-1)


def concentration(logits: Tensor) -> dict[str, Tensor]:
    """[..., V] -> [...] each: entropy, the probability of the likeliest token, and the mass of the ten likeliest.

    RL that only sharpens a policy moves these and the sampled reward together (Choshen et al. 2020, arXiv:1907.01752).
    """
    best = precise(logits).softmax(-1).topk(min(10, logits.shape[-1]), -1).values
    return {"entropy": entropy(logits), "mode_prob": best[..., 0], "top10_mass": best.sum(-1)}


def ranks(logits: Tensor, targets: Tensor) -> Tensor:
    """Place of the target among all tokens by probability, 1 the best: [B, T, V], [B, T] -> [B, T] float."""
    own = logits.gather(-1, targets.unsqueeze(-1))
    return 1.0 + (logits > own).sum(-1).to(torch.float32)
