"""Sums and means over real tokens; what is masked out is never read, not even multiplied by zero."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over mask [B, T] of values [B, T] -> []. A masked value may be NaN or infinite."""
    return values.masked_fill(~mask, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True places of mask -> []; 0 where there is none."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_rows(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of each row over its real tokens: [B, T] -> [B]."""
    return values.masked_fill(~mask, 0.0).sum(-1)


def first_of_each(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of the G distinct numbers of keys [B] stands first, [G], smallest number first, and which of them each
    place has, [B]."""
    distinct, which = keys.unique(return_inverse=True)
    first = torch.full_like(distinct, len(keys), dtype=torch.int64)
    places = torch.arange(len(keys), device=keys.device)
    return first.scatter_reduce(0, which, places, "amin"), which


def first_of_their_kind(actions: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """False for a sequence that is the same as an earlier `valid` one of its source: [N, K, T], [N, K] -> [N, K]."""
    real = actions.masked_fill(~mask, -1)
    same = (real.unsqueeze(2) == real.unsqueeze(1)).all(-1) & valid.unsqueeze(1)  # [N, K, K], with whom
    return ~(same & torch.ones_like(same[0]).tril(-1)).any(-1)
