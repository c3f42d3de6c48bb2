"""Transformer blocks that read a whole sequence at once, or one step at a time with a preallocated cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Returns the position encodings [..., D] (D = `width`) of positions [...], in float32: sines, then cosines, of
    position / 10000^(2i / D), i = 0 ... D / 2 - 1 (Vaswani et al. 2017, arXiv:1706.03762, section 3.5). They are
    computed, not looked up in a table, so no sequence is too long."""
    half = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = positions.unsqueeze(-1).float() * torch.exp(-math.log(10000.0) * half / width)
    return torch.cat([angles.sin(), angles.cos()], -1)[..., :width]


class Attention(nn.Module):
    """Multi-head attention, softmax(Q K^T / sqrt(D / heads)) V in each head (Vaswani et al. 2017, arXiv:1706.03762).
    Keys and values are computed separately from the queries, so that they can be cached."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def remember(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys and the values, each [B, heads, S, D / heads], of the sequence that is attended to, read
        [B, S, D]."""
        return self._split(self.key(read)), self._split(self.value(read))

    def forward(self, read: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Returns the attention output [B, T, D] for read [B, T, D], the sequence that attends, from which the queries
        are computed, and keys and values [B, heads, S, D / heads] as `remember` returns them. mask
        [B or 1, 1, T or 1, S] bool is True where a key may be attended to: it must be for at least one key of every
        query."""
        seen = scaled_dot_product_attention(self._split(self.query(read)), keys, values, attn_mask=mask)
        output: Tensor = self.output(seen.transpose(1, 2).flatten(2))
        return output

    def _split(self, read: Tensor) -> Tensor:
        heads: Tensor = read.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads


@dataclass
class Cache:
    """Keys and values of one layer, in tensors that are allocated at the start for all steps of a decoding."""

    keys: Tensor  # [B, heads, positions, D / heads]
    values: Tensor  # of the same shape

    def write(self, at: int, keys: Tensor, values: Tensor) -> None:
        """Writes keys and values [B, heads, T, D / heads] of T steps to the positions `at` ... `at` + T - 1. The
        tensors change in place: a state of an earlier step that shares them is no longer usable. The cache must have
        these positions; where it has not, that is not always an error."""
        self.keys[:, :, at : at + keys.shape[2]] = keys
        self.values[:, :, at : at + values.shape[2]] = values

    def reorder(self, index: Tensor) -> Cache:
        """Returns a cache with the rows at `index` [M] int64, repeats allowed; keys and values are copied, [M, heads,
        positions, D / heads], so `self` stays usable."""
        return Cache(self.keys[index], self.values[index])


def rows_of(layers: list[tuple[Tensor, Tensor]], index: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Selects rows of the keys and values of every layer: each [N, heads, S, D / heads] becomes
    [B, heads, S, D / heads], whose row b is the row index[b] of the old ones, `index` [B] int64, repeats allowed. With
    index None it returns `layers` as they are, not copied.

    The rows are taken with index_select and not with [index]: on a CPU the backward pass of the latter adds number by
    number.
    """
    if index is None:
        return layers
    return [(keys.index_select(0, index), values.index_select(0, index)) for keys, values in layers]


def room_for(keys: Tensor, values: Tensor, length: int) -> Cache:
    """Returns a cache that begins with the given keys and values [B, heads, S, D / heads], copied, and has `length`
    further positions, filled with 0: [B, heads, S + length, D / heads]."""
    free = keys.new_zeros(*keys.shape[:2], length, keys.shape[3])
    return Cache(torch.cat([keys, free], 2), torch.cat([values, free], 2))


class Block(nn.Module):
    """Transformer block with norms before layers: self-attention, attention over the source if `crossed`, and a
    feed-forward layer."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, crossed: bool) -> None:
        super().__init__()
        self.attention, self.attention_norm = Attention(width, heads), nn.LayerNorm(width)
        self.cross = Attention(width, heads) if crossed else None
        self.cross_norm = nn.LayerNorm(width) if crossed else None
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        read: Tensor,
        mask: Tensor,
        source: tuple[Tensor, Tensor, Tensor] | None = None,
        cache: Cache | None = None,
        at: int = 0,
    ) -> Tensor:
        """Returns the output of the block, [B, T, D], for read [B, T, D]; mask [B or 1, 1, T or 1, P] bool is True
        where one of P positions may be attended to. `source` holds keys and values [B, heads, S, D / heads] and mask
        [B, 1, 1, S] of the source, for a `crossed` block; with None nothing of a source is read.

        With a cache, the keys and values of these T steps are written to it, in place, from position `at` on, and its
        first P positions are attended to: P must be `at` + T. Without one, P = T, and `at` is not read.
        """
        normed = self.attention_norm(read)
        keys, values = self.attention.remember(normed)
        if cache is not None:
            cache.write(at, keys, values)
            keys, values = cache.keys[:, :, : mask.shape[-1]], cache.values[:, :, : mask.shape[-1]]
        return self.attend(read, normed, keys, values, mask, source)

    def attend(
        self,
        read: Tensor,
        normed: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        source: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Returns the output of the block, [B, T, D], for read [B, T, D], `normed`, which is `read` after
        `attention_norm`, and `keys` and `values` [B, heads, P, D / heads] of all positions that may be attended to,
        those of these T steps included. mask [B or 1, 1, T or 1, P] bool is True where a position may be attended to.
        `source` holds keys and values [B, heads, S, D / heads] and mask [B, 1, 1, S] of the source, for a `crossed`
        block; with None nothing of a source is read. No cache is written."""
        read = read + self.dropout(self.attention(normed, keys, values, mask))
        if self.cross is not None and self.cross_norm is not None and source is not None:
            read = read + self.dropout(self.cross(self.cross_norm(read), *source))
        output: Tensor = read + self.dropout(self.feedforward(self.feedforward_norm(read)))
        return output


def causal(length: int, device: torch.device) -> Tensor:
    """Returns the mask [1, 1, T, T] bool of a causal model, T = `length`, on `device`: True where step t (row) may
    attend to step s (column), s <= t."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
