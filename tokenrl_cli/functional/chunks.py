"""Reductions over a vocabulary that never hold more of it than a piece."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGEST = 2**22  # numbers of a piece: 16 MiB in float32


def in_pieces(how: Callable[..., tuple[Tensor, ...]], width: int, *columns: Tensor) -> tuple[Tensor, ...]:
    """how(*columns), which makes tensors [rows, width] on its way from columns [B, T, ...] and gives tensors [rows].

    `how` sees rows of B * T, as many at once as keep such a tensor below LARGEST numbers; each piece is computed again
    for its gradient. So B * T * width numbers never exist, and what is kept is what the columns take. -> [B, T] each.
    """
    shape = columns[0].shape[:2]
    flat = [column.flatten(0, 1) for column in columns]
    pieces = math.ceil(len(flat[0]) * width / LARGEST)
    if pieces <= 1:
        return tuple(each.view(shape) for each in how(*flat))
    cut = zip(*(each.tensor_split(pieces) for each in flat), strict=True)
    parts = [checkpoint(how, *piece, use_reentrant=False) for piece in cut]
    return tuple(torch.cat(each).view(shape) for each in zip(*parts, strict=True))
