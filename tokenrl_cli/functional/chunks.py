"""Reductions over a vocabulary that never hold a whole [B, T, V] tensor in memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGEST = 2**22  # elements of a chunk's [rows, V] tensor: 16 MiB in float32


def in_pieces(reduce: Callable[..., tuple[Tensor, ...]], width: int, *columns: Tensor) -> tuple[Tensor, ...]:
    """Calls `reduce(*columns)` on chunks of rows and returns its results as one: each tensor [B * T] reshaped to
    [B, T].

    columns: tensors [B, T, ...], flattened to [B * T, ...] and split into as few chunks as keep chunk rows * `width`
    near or below LARGEST (4 million) elements. `reduce` takes a chunk of each column, may build a tensor [rows, width]
    (width = V), and returns a tuple of tensors [rows]. Each row must be computed by itself: then values and gradients
    are those of one call on everything. With several chunks `reduce` may be called again for each, in the backward
    pass.
    """
    shape = columns[0].shape[:2]
    flat = [column.flatten(0, 1) for column in columns]
    pieces = math.ceil(len(flat[0]) * width / LARGEST)
    if pieces <= 1:
        return tuple(each.view(shape) for each in reduce(*flat))
    cut = zip(*(each.tensor_split(pieces) for each in flat), strict=True)
    # Without gradient checkpointing autograd would keep the [rows, V] tensor of every chunk until the backward pass:
    # together B * T * V elements again. Each chunk is recomputed in the backward pass instead.
    parts = [checkpoint(reduce, *piece, use_reentrant=False) for piece in cut]
    return tuple(torch.cat(each).view(shape) for each in zip(*parts, strict=True))
