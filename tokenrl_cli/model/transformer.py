"""Transformer encoder-decoder with norms before layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Fraction, Size
from tokenrl_cli.interfaces import ModelOutput, SettingError, Tokenizer
from tokenrl_cli.model.attention import Block, Cache, causal, room_for, rows_of, sinusoids


@dataclass
class TransformerState:
    """Keys and values of the source in every decoder layer, and those of the response so far."""

    sources: list[tuple[Tensor, Tensor]]  # keys and values of a layer, [B, heads, S, .]
    source_mask: Tensor  # [B, 1, 1, S]
    caches: list[Cache]
    done: int  # tokens read

    def reorder(self, index: Tensor) -> TransformerState:
        """Returns a state with the rows at `index` [M] int64, repeats allowed. The caches, keys and values are copied,
        so `self` stays usable."""
        return TransformerState(
            rows_of(self.sources, index),
            self.source_mask[index],
            [cache.reorder(index) for cache in self.caches],
            self.done,
        )

    def repeat(self, times: int) -> TransformerState:
        """Returns a state with B * times rows, each row `times` times, its copies next to each other: row b * times + k
        is row b. The caches are copied, so `self` stays usable. So several samples of a source need one pass of the
        encoder."""
        rows = torch.arange(len(self.source_mask), device=self.source_mask.device).repeat_interleave(times)
        return self.reorder(rows)


class Transformer(nn.Module):
    """p(y_t | x, y_<t), Vaswani et al. 2017 (arXiv:1706.03762), with norms before layers (Xiong et al. 2020). An empty
    source is read as the one token 0. The constructor raises SettingError for a `width` that `check_width` refuses.

    Without `source_tokenizer` it has no embedding of source tokens: `start_from` and `forward_from` are then given what
    the encoder reads, and `start` and the call cannot be used.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source_tokenizer: Tokenizer | None,
        max_length: int,
        width: Size,
        heads: Size,
        feedforward: Size,
        layers: Size,
        dropout: Fraction,
        tied: bool,
    ) -> None:
        super().__init__()
        check_width(width, heads)
        self.width, self.max_length, self.begin = width, max_length, tokenizer.size
        # None, or an embedding of source tokens
        self.source_embedding = None if source_tokenizer is None else nn.Embedding(source_tokenizer.size, width)
        self.embedding = nn.Embedding(tokenizer.size + 1, width)  # the last row is "begin"
        self.encoder = nn.ModuleList(Block(width, heads, feedforward, dropout, False) for _ in range(layers))
        self.decoder = nn.ModuleList(Block(width, heads, feedforward, dropout, True) for _ in range(layers))
        self.source_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.output = None if tied else nn.Linear(width, tokenizer.size, bias=False)
        self.dropout = nn.Dropout(dropout)
        embeddings = [self.embedding] if self.source_embedding is None else [self.source_embedding, self.embedding]
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=width**-0.5)

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Returns the output at every step of teacher-forced actions, hidden [B, T, D] and logits [B, T, V]: output t
        scores actions[:, t] from the source and actions[:, :t]. Gradients flow. source [N, S] int64 and source_mask
        [N, S] bool, actions [B, T] int64; source_row [B] int64 gives the source of each row, None: row b has source b,
        and N = B. A source may be empty, that is, its mask all False, but S is at least 1; T may be above `max_length`.
        See `Model.__call__`."""
        return self.forward_from(self._embedded(source, source_mask), source_mask, actions, source_row)

    def forward_from(
        self, read: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Returns what the call returns, for sources that are given as vectors [N, S, D], to which positions are
        added."""
        sources, seen = self._encode(read, source_mask)
        sources, seen = rows_of(sources, source_row), seen if source_row is None else seen[source_row]
        begin = torch.full_like(actions[:, :1], self.begin)
        read = self._placed(self.embedding(torch.cat([begin, actions[:, :-1]], 1)) * self.width**0.5, 0)
        mask = causal(actions.shape[1], actions.device)
        for block, (keys, values) in zip(self.decoder, sources, strict=True):
            read = block(read, mask, (keys, values, seen))
        return ModelOutput(self.norm(read), self._project)

    def start(self, source: Tensor, source_mask: Tensor) -> TransformerState:
        """Encodes source [N, S] int64, S at least 1, with source_mask [N, S] bool, True at real steps, and returns the
        state before the first token, one row for each source. Its caches have space for `max_length` steps."""
        return self.start_from(self._embedded(source, source_mask), source_mask)

    def start_from(self, read: Tensor, source_mask: Tensor) -> TransformerState:
        """Returns what `start` returns, for sources that are given as vectors [N, S, D], to which positions are added.
        Padding may hold any finite number."""
        sources, seen = self._encode(read, source_mask)
        empty = [room_for(keys[:, :, :0], values[:, :, :0], self.max_length) for keys, values in sources]
        return TransformerState(sources, seen, empty, 0)

    def step(self, state: TransformerState, previous: Tensor | None) -> tuple[ModelOutput, TransformerState]:
        """Returns the output for the next token, hidden [B, 1, D] and logits [B, 1, V], and the state after `previous`
        [B] int64, the token just generated; None before the first. At most `max_length` steps: the next one raises
        RuntimeError. The caches are written in place: `state` must not be used again."""
        if previous is None:
            previous = torch.full((len(state.source_mask),), self.begin, device=state.source_mask.device)
        read = self._placed(self.embedding(previous.unsqueeze(1)) * self.width**0.5, state.done)
        mask = torch.ones(1, 1, 1, state.done + 1, dtype=torch.bool, device=previous.device)
        for block, (keys, values), cache in zip(self.decoder, state.sources, state.caches, strict=True):
            read = block(read, mask, (keys, values, state.source_mask), cache, state.done)
        following = TransformerState(state.sources, state.source_mask, state.caches, state.done + 1)
        return ModelOutput(self.norm(read), self._project), following

    def _embedded(self, source: Tensor, source_mask: Tensor) -> Tensor:
        assert self.source_embedding is not None, "built without a source tokenizer"
        embedded: Tensor = self.source_embedding(source.masked_fill(~source_mask, 0)) * self.width**0.5
        return embedded

    def _encode(self, read: Tensor, source_mask: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Returns keys and values of every decoder layer, and the mask [B, 1, 1, S]; of an empty source the first
        position counts as real."""
        mask = source_mask.clone()
        mask[:, 0] |= ~source_mask.any(-1)
        seen = mask[:, None, None]
        read = self._placed(read, 0)
        for block in self.encoder:
            read = block(read, seen)
        read = self.source_norm(read)
        crossed: Any = self.decoder
        return [block.cross.remember(read) for block in crossed], seen

    def _placed(self, read: Tensor, start: int) -> Tensor:
        """Vectors [B, T, D] with the encodings of the positions from `start` on, after dropout."""
        places = sinusoids(torch.arange(start, start + read.shape[1], device=read.device), self.width)
        embedded: Tensor = self.dropout(read + places.to(read.dtype))
        return embedded

    def _project(self, hidden: Tensor) -> Tensor:
        weight = self.embedding.weight[:-1] if self.output is None else self.output.weight
        return nn.functional.linear(hidden, weight)


def check_width(width: int, heads: int) -> None:
    """Raises SettingError, a UserError, where `width` is not a multiple of 2 * heads: each head takes an equal share,
    and positions are encoded in pairs of a sine and a cosine."""
    if width % (2 * heads):
        raise SettingError("width", f"must be a multiple of twice the {heads} heads, got {width}")
