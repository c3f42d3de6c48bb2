"""Sums and means over real tokens.

Masked values are replaced by 0, not multiplied by 0: they may be NaN or infinite, and 0 * NaN is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of the values where mask is True. [B, T], [B, T] bool -> [] (a scalar); 0 where mask is False everywhere.
    Where mask is False a value may be NaN or infinite, and gets the gradient 0."""
    return values.masked_fill(~mask, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where mask is True. [B, T], [B, T] bool -> [] (a scalar); 0 where mask is False everywhere.
    Where mask is False a value may be NaN or infinite, and gets the gradient 0."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_rows(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of each row's values where mask is True. [B, T], [B, T] bool -> [B]; 0 for a row without any. Where mask is
    False a value may be NaN or infinite, and gets the gradient 0."""
    return values.masked_fill(~mask, 0.0).sum(-1)


def first_of_each(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Groups equal entries of keys [B]. Returns for each of the G distinct values, in ascending order, the index of its
    first entry, [G] int64; and for each entry the number of its value in that order, from 0, [B] int64."""
    distinct, which = keys.unique(return_inverse=True)
    first = torch.full_like(distinct, len(keys), dtype=torch.int64)
    places = torch.arange(len(keys), device=keys.device)
    return first.scatter_reduce(0, which, places, "amin"), which


def first_occurrences(actions: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """False for a sample that has the same tokens as an earlier valid sample of the same source, True for all others.

    actions [N, K, T], mask [N, K, T] bool, valid [N, K] bool -> [N, K] bool. Only real tokens are compared. A sample
    that is not valid itself is True unless it repeats a valid one: combine the result with `valid`.
    """
    real = actions.masked_fill(~mask, -1)  # no token has the id -1: sequences of different lengths differ
    same = (real.unsqueeze(2) == real.unsqueeze(1)).all(-1) & valid.unsqueeze(1)  # [N, K, K]: [n, i, j], i equals j
    # Below the diagonal j < i: only earlier samples count, so that the first of several equal ones stays.
    return ~(same & torch.ones_like(same[0]).tril(-1)).any(-1)
