"""Decoder-only transformer that reads the source and goes on with the response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Fraction, Size
from tokenrl_cli.interfaces import ModelOutput, Tokenizer, UserError
from tokenrl_cli.model.attention import Block, Cache, causal, room_for, sinusoids
from tokenrl_cli.model.transformer import check_width


@dataclass
class GptState:
    """Every layer's keys and values: the source padded to one width, then the response."""

    lengths: Tensor  # [B] of the sources: the place of "begin"
    seen: Tensor  # [B, S + room] bool, what may be attended to once it is written
    caches: list[Cache]
    done: int  # places written

    def reorder(self, index: Tensor) -> GptState:
        return GptState(
            self.lengths[index], self.seen[index], [cache.reorder(index) for cache in self.caches], self.done
        )

    def repeat(self, times: int) -> GptState:
        return self.reorder(torch.arange(len(self.seen), device=self.seen.device).repeat_interleave(times))


class Gpt(nn.Module):
    """p(y_t | x, y_<t) from one causal stack over x, "begin", y; positions of the response follow the real source.

    Padding stands between a short source and its response, and is never attended to. One tokenizer for both.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source_tokenizer: Tokenizer,
        max_length: int,
        width: Size,
        heads: Size,
        feedforward: Size,
        layers: Size,
        dropout: Fraction,
        tied: bool,
    ) -> None:
        super().__init__()
        if source_tokenizer is not tokenizer:
            raise UserError(
                "source_tokenizer", "model=gpt reads source and response as one text", "use source_tokenizer=null"
            )
        check_width(width, heads)
        self.width, self.max_length, self.begin = width, max_length, tokenizer.size
        self.embedding = nn.Embedding(tokenizer.size + 1, width)  # the last row is "begin"
        self.blocks = nn.ModuleList(Block(width, heads, feedforward, dropout, False) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = None if tied else nn.Linear(width, tokenizer.size, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> ModelOutput:
        begin = torch.full_like(actions[:, :1], self.begin)
        ids = torch.cat([source.masked_fill(~source_mask, 0), begin, actions[:, :-1]], 1)
        width, length = source.shape[1], actions.shape[1]
        read = self._embed(ids, self._places(source_mask, length))
        mask = self._mask(source_mask, length) & causal(width + length, source.device)
        for block in self.blocks:
            read = block(read, _self_seeing(mask))
        return ModelOutput(self.norm(read[:, width:]), self._project)

    def start(self, source: Tensor, source_mask: Tensor) -> GptState:
        width = source.shape[1]
        read = self._embed(source.masked_fill(~source_mask, 0), self._places(source_mask, 0))
        mask = _self_seeing(source_mask[:, None, None] & causal(width, source.device))
        caches = []
        blocks: Any = self.blocks
        for block in blocks:
            keys, values = block.attention.remember(block.attention_norm(read))
            caches.append(room_for(keys, values, self.max_length))
            read = block(read, mask)
        response = torch.ones(len(source), self.max_length, dtype=torch.bool, device=source.device)
        return GptState(source_mask.sum(-1), torch.cat([source_mask, response], 1), caches, width)

    def step(self, state: GptState, previous: Tensor | None) -> tuple[ModelOutput, GptState]:
        """Writes into the cache: the state before is not to be used again."""
        if previous is None:
            previous = torch.full((len(state.seen),), self.begin, device=state.seen.device)
        spoken = state.done - (state.seen.shape[1] - self.max_length)
        read = self._embed(previous.unsqueeze(1), (state.lengths + spoken).unsqueeze(1))
        mask = state.seen[:, None, None, : state.done + 1]
        for block, cache in zip(self.blocks, state.caches, strict=True):
            read = block(read, mask, None, cache, state.done)
        following = GptState(state.lengths, state.seen, state.caches, state.done + 1)
        return ModelOutput(self.norm(read), self._project), following

    def _places(self, source_mask: Tensor, length: int) -> Tensor:
        """[B, S + T]: 0, 1, ... over the real source, then on over the response; padding has any."""
        source = torch.arange(source_mask.shape[1], device=source_mask.device).expand_as(source_mask)
        response = source_mask.sum(-1, keepdim=True) + torch.arange(length, device=source_mask.device)
        return torch.cat([source, response], 1)

    def _mask(self, source_mask: Tensor, length: int) -> Tensor:
        response = torch.ones(len(source_mask), length, dtype=torch.bool, device=source_mask.device)
        return torch.cat([source_mask, response], 1)[:, None, None]

    def _embed(self, ids: Tensor, places: Tensor) -> Tensor:
        read = self.embedding(ids) * self.width**0.5
        return self.dropout(read + sinusoids(places, self.width).to(read.dtype))

    def _project(self, hidden: Tensor) -> Tensor:
        weight = self.embedding.weight[:-1] if self.output is None else self.output.weight
        return nn.functional.linear(hidden, weight)


def _self_seeing(mask: Tensor) -> Tensor:
    """[B, 1, T, T]: padding sees itself, so that no row of the softmax is empty; nothing real ever sees padding."""
    return mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
