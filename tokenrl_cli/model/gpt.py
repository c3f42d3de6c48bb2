"""Decoder-only transformer that reads the source and then generates the response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Fraction, Size
from tokenrl_cli.interfaces import ModelOutput, Tokenizer, UserError
from tokenrl_cli.model.attention import Block, Cache, causal, room_for, rows_of, sinusoids
from tokenrl_cli.model.transformer import check_width


@dataclass
class GptState:
    """Keys and values of every layer: first those of the source, padded to one width, then those of the response."""

    lengths: Tensor  # [B] of the sources: the position of "begin"
    seen: Tensor  # [B, S + max_length] bool, what may be attended to once it is written
    caches: list[Cache]
    done: int  # positions written

    def reorder(self, index: Tensor) -> GptState:
        """Returns a state with the rows at `index` [M] int64, repeats allowed. The caches are copied, so `self` stays
        usable."""
        return GptState(
            self.lengths[index], self.seen[index], [cache.reorder(index) for cache in self.caches], self.done
        )

    def repeat(self, times: int) -> GptState:
        """Returns a state with B * times rows, each row `times` times, its copies next to each other: row b * times + k
        is row b. The caches are copied, so `self` stays usable. So several samples of a source need one pass over
        it."""
        return self.reorder(torch.arange(len(self.seen), device=self.seen.device).repeat_interleave(times))


class Gpt(nn.Module):
    """p(y_t | x, y_<t) from one causal stack over x, "begin", y; positions of the response follow the real source.

    Padding stands between a short source and its response, and is never attended to. Source and response have one
    tokenizer: the constructor raises UserError for a `source_tokenizer` of its own, or for a `width` that `check_width`
    refuses.
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

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Returns the output at every step of teacher-forced actions, hidden [B, T, D] and logits [B, T, V]: output t
        scores actions[:, t] from the source and actions[:, :t]. Gradients flow. source [N, S] int64 and source_mask
        [N, S] bool, actions [B, T] int64; source_row [B] int64 gives the source of each row, None: row b has source b,
        and N = B. A source may be empty, its mask all False, and T may be above `max_length`. See `Model.__call__`.

        No position of the source attends to the response, so the keys and values of a source are computed once for all
        its rows.
        """
        sources = rows_of(self._read(source, source_mask), source_row)
        seen = source_mask if source_row is None else source_mask[source_row]  # [B, S]
        begin, length = torch.full_like(actions[:, :1], self.begin), actions.shape[1]
        places = seen.sum(-1, keepdim=True) + torch.arange(length, device=actions.device)
        read = self._embed(torch.cat([begin, actions[:, :-1]], 1), places)
        mask = torch.cat(
            [each.expand(len(actions), 1, length, -1) for each in (seen[:, None, None], causal(length, seen.device))],
            -1,
        )
        blocks: Any = self.blocks
        for block, before in zip(blocks, sources, strict=True):
            normed = block.attention_norm(read)
            keys, values = (torch.cat(pair, 2) for pair in zip(before, block.attention.remember(normed), strict=True))
            read = block.attend(read, normed, keys, values, mask)
        return ModelOutput(self.norm(read), self._project)

    def start(self, source: Tensor, source_mask: Tensor) -> GptState:
        """Returns the state before the first token, one row for each source, after one pass over source [N, S] int64
        with source_mask [N, S] bool, True at real steps. Its caches have space for `max_length` steps."""
        caches = [room_for(keys, values, self.max_length) for keys, values in self._read(source, source_mask)]
        response = torch.ones(len(source), self.max_length, dtype=torch.bool, device=source.device)
        return GptState(source_mask.sum(-1), torch.cat([source_mask, response], 1), caches, source.shape[1])

    def _read(self, source: Tensor, source_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the source [N, S] in every block, [N, heads, S, .]; nothing else of it is ever seen."""
        places = torch.arange(source.shape[1], device=source.device)
        read = self._embed(source.masked_fill(~source_mask, 0), places)
        mask = _self_seeing(source_mask[:, None, None] & causal(source.shape[1], source.device))
        kept: list[tuple[Tensor, Tensor]] = []
        blocks: Any = self.blocks
        for block in blocks:
            normed = block.attention_norm(read)
            kept.append(block.attention.remember(normed))
            if len(kept) < len(blocks):
                read = block.attend(read, normed, *kept[-1], mask)
        return kept

    def step(self, state: GptState, previous: Tensor | None) -> tuple[ModelOutput, GptState]:
        """Returns the output for the next token, hidden [B, 1, D] and logits [B, 1, V], and the state after `previous`
        [B] int64, the token just generated; None before the first. At most `max_length` steps: a further one raises no
        error, but its token is never attended to. The caches are written in place: `state` must not be used again."""
        if previous is None:
            previous = torch.full((len(state.seen),), self.begin, device=state.seen.device)
        spoken = state.done - (state.seen.shape[1] - self.max_length)
        read = self._embed(previous.unsqueeze(1), (state.lengths + spoken).unsqueeze(1))
        mask = state.seen[:, None, None, : state.done + 1]
        for block, cache in zip(self.blocks, state.caches, strict=True):
            read = block(read, mask, None, cache, state.done)
        following = GptState(state.lengths, state.seen, state.caches, state.done + 1)
        return ModelOutput(self.norm(read), self._project), following

    def _embed(self, ids: Tensor, places: Tensor) -> Tensor:
        read = self.embedding(ids) * self.width**0.5
        embedded: Tensor = self.dropout(read + sinusoids(places, self.width).to(read.dtype))
        return embedded

    def _project(self, hidden: Tensor) -> Tensor:
        weight = self.embedding.weight[:-1] if self.output is None else self.output.weight
        return nn.functional.linear(hidden, weight)


def _self_seeing(mask: Tensor) -> Tensor:
    """Returns a mask [B, 1, T, T] in which every position also attends to itself. Padding then has one position to
    attend to, so that no row of the softmax is empty; no real position attends to padding."""
    return mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
