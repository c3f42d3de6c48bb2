"""Recurrent encoder-decoder with attention: RNN, GRU or LSTM cells.

It differs from Bahdanau et al. 2015 in what keeps both passes fast on a CPU: the first decoder layer makes the queries,
and the attention feeds the layers above it (Wu et al. 2016, arXiv:1609.08144, section 3.1), never the layer that made
the query. So a teacher-forced pass has no loop over time. Nothing is packed: the backward encoder reads each row
reversed within its own length, so padding comes last in both directions and affects no output that is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Fraction, Size
from tokenrl_cli.interfaces import ModelOutput, Tokenizer

CELLS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
Memory = tuple[Tensor, ...]  # of one layer, each [1, B, D]: (h,) or (h, c)


@dataclass
class RecurrentState:
    """The source as keys and values, and the memory of every decoder layer."""

    keys: Tensor  # [B, S, D]
    values: Tensor  # [B, S, 2D]
    mask: Tensor  # [B, S]
    memories: list[Memory]
    place: Tensor  # [B], how far along the source the window of attention is; 0 without one

    def reorder(self, index: Tensor) -> RecurrentState:
        """Returns a state with the rows at `index` [M] int64, repeats allowed: keys [M, S, D], values [M, S, 2D], mask
        [M, S], memories [1, M, D] and place [M]. All tensors are copied, so `self` stays usable."""
        # index_select and not [index]: on a CPU the backward pass of the latter adds number by number
        memories = [tuple(part.index_select(1, index) for part in memory) for memory in self.memories]
        parts = (self.keys, self.values, self.mask, self.place)
        keys, values, mask, place = (each.index_select(0, index) for each in parts)
        return RecurrentState(keys, values, mask, memories, place)

    def repeat(self, times: int) -> RecurrentState:
        """Returns a state with B * times rows, each row `times` times, its copies next to each other: row b * times + k
        is row b. All tensors are copied, so `self` stays usable. So several samples of a source need one pass of the
        encoder."""
        rows = torch.arange(len(self.keys), device=self.keys.device).repeat_interleave(times)
        return self.reorder(rows)


class Window(nn.Module):
    """A window that moves along the source, for attention that reads it from left to right, as in speech:

        place_t = place_(t-1) + softplus(w . h_t + b),  score_ts <- score_ts - (s - place_t)^2 / (2 width^2)

    with h_t [D] the decoder state that makes the query, s the source step, and w, b and the width learned (one Gaussian
    of the window of Graves 2013, arXiv:1308.0850, equations 46 to 51, added to the scores of content). It begins STEP
    source steps further at each token and WIDTH wide. As h_t does not depend on what was attended to, the places of all
    tokens are a cumulative sum, without a loop over time.
    """

    STEP, WIDTH = 4.0, 6.0

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.stride = nn.Linear(hidden, 1)
        nn.init.zeros_(self.stride.weight)
        nn.init.constant_(self.stride.bias, math.log(math.expm1(self.STEP)))
        self.log_width = nn.Parameter(torch.tensor(math.log(self.WIDTH)))

    def forward(self, hidden: Tensor, start: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """hidden [B, T, D] and the place [B] before them -> what is added to the scores of `size` source steps S,
        [B, T, S], and the place [B] after them."""
        places = start.unsqueeze(-1) + nn.functional.softplus(self.stride(hidden).squeeze(-1)).cumsum(-1)  # [B, T]
        steps = torch.arange(size, device=hidden.device, dtype=places.dtype)
        distance = (steps - places.unsqueeze(-1)) / self.log_width.exp()
        return -0.5 * distance.square(), places[:, -1]


class Recurrent(nn.Module):
    """p(y_t | x, y_<t) with a bidirectional encoder and an attention decoder. If `tied`, the output layer has the
    weights of the target embedding. With `window` attention moves along the source, see `Window`.

    Without `source_tokenizer` it has no embedding of source tokens: `start_from` and `forward_from` are then given what
    the encoder reads, and `start` and the call cannot be used.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source_tokenizer: Tokenizer | None,
        cell: Literal["rnn", "gru", "lstm"],
        embedding: Size,
        hidden: Size,
        layers: Size,
        dropout: Fraction,
        tied: bool,
        window: bool,
    ) -> None:
        super().__init__()
        build, self.begin = CELLS[cell], tokenizer.size
        # None, or an embedding of source tokens
        self.source_embedding = None if source_tokenizer is None else nn.Embedding(source_tokenizer.size, embedding)
        self.embedding = nn.Embedding(tokenizer.size + 1, embedding)  # the last row is "begin"
        sizes = [embedding] + [2 * hidden] * (layers - 1)
        self.forwards = nn.ModuleList(build(size, hidden, batch_first=True) for size in sizes)
        self.backwards = nn.ModuleList(build(size, hidden, batch_first=True) for size in sizes)
        parts = 2 if cell == "lstm" else 1
        self.bridges = nn.ModuleList(nn.Linear(2 * hidden, parts * hidden) for _ in range(layers))
        self.decoder = nn.ModuleList([build(embedding, hidden, batch_first=True)])
        self.decoder.extend(build(3 * hidden, hidden, batch_first=True) for _ in range(layers - 1))
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(2 * hidden + embedding, hidden, bias=False)
        self.width = embedding if tied else hidden
        self.combine = nn.Linear(3 * hidden, self.width)
        self.bias = nn.Parameter(torch.zeros(tokenizer.size))
        self.output = None if tied else nn.Linear(hidden, tokenizer.size, bias=False)
        self.window = Window(hidden) if window else None
        self.dropout = nn.Dropout(dropout)
        self.parts = parts
        nn.init.normal_(self.embedding.weight, std=embedding**-0.5)
        if self.source_embedding is not None:
            nn.init.normal_(self.source_embedding.weight, std=embedding**-0.5)

    def train(self, mode: bool = True) -> Recurrent:
        """Switches dropout on (`mode` True) or off (False, as `eval()` does), and returns the model. The recurrent
        layers themselves always stay in training mode (their `training` is True): they have no dropout of their own,
        and RL takes gradients in evaluation mode, where cuDNN refuses their backward pass."""
        super().train(mode)
        for layers in (self.forwards, self.backwards, self.decoder):
            layers.train()
        return self

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Returns the output at every step of teacher-forced actions, hidden [B, T, D] and logits [B, T, V]: output t
        scores actions[:, t] from the source and actions[:, :t]. Gradients flow. source [N, S] int64 and source_mask
        [N, S] bool, actions [B, T] int64; source_row [B] int64 gives the source of each row, None: row b has source b,
        and N = B. A source may be empty, that is, its mask all False; but S and T are at least 1, and padding holds ids
        of the vocabulary, too. See `Model.__call__`."""
        return self.forward_from(self._embedded(source), source_mask, actions, source_row)

    def forward_from(
        self, read: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Returns what the call returns, for sources that are given as the vectors [N, S, E] which the encoder reads, E
        being the constructor's `embedding`."""
        state = self.start_from(read, source_mask)
        if source_row is not None:
            state = state.reorder(source_row)
        begin = torch.full_like(actions[:, :1], self.begin)
        output, _ = self._decode(state, torch.cat([begin, actions[:, :-1]], 1))
        return output

    def step(self, state: RecurrentState, previous: Tensor | None) -> tuple[ModelOutput, RecurrentState]:
        """Returns the output for the next token, hidden [B, 1, D] and logits [B, 1, V], and the state after `previous`
        [B] int64, the token just generated; None before the first. `state` stays usable."""
        if previous is None:
            previous = torch.full((len(state.keys),), self.begin, device=state.keys.device)
        return self._decode(state, previous.unsqueeze(1))

    def start(self, source: Tensor, source_mask: Tensor) -> RecurrentState:
        """Encodes source [N, S] int64, S at least 1, with source_mask [N, S] bool and returns the state before the
        first token: keys [N, S, D], values [N, S, 2D] and, for each decoder layer, a memory [1, N, D] (two with LSTM
        cells) computed from the last states of both directions, or from zeros for an empty source. D is the
        constructor's `hidden`. Padding of `source` must hold ids of the vocabulary, too, such as 0."""
        return self.start_from(self._embedded(source), source_mask)

    def start_from(self, read: Tensor, source_mask: Tensor) -> RecurrentState:
        """Returns what `start` returns, for sources that are given as the vectors [N, S, E] which the encoder reads, E
        being the constructor's `embedding`. Padding may hold any finite number."""
        embedded = self.dropout(read)  # [B, S, E]
        lengths = source_mask.sum(-1)
        backwards = _reversed(lengths, read.shape[1])
        last = (lengths - 1).clamp(min=0)
        rows = torch.arange(len(read), device=read.device)
        read, memories = embedded, []
        for level, (ahead, back, bridge) in enumerate(zip(self.forwards, self.backwards, self.bridges, strict=True)):
            left, _ = _run(ahead, read)
            right, _ = _run(back, read[rows.unsqueeze(1), backwards])
            ends = torch.cat([left[rows, last], right[rows, last]], -1) * (lengths > 0).unsqueeze(-1)
            memory = torch.tanh(bridge(ends)).unsqueeze(0).contiguous()  # [1, B, parts * D]
            memories.append(tuple(part.contiguous() for part in memory.chunk(self.parts, -1)))
            read = torch.cat([left, right[rows.unsqueeze(1), backwards]], -1)  # [B, S, 2D]
            if level + 1 < len(self.forwards):
                read = self.dropout(read)
        place = torch.zeros(len(read), device=read.device, dtype=read.dtype)
        return RecurrentState(self.key(torch.cat([read, embedded], -1)), read, source_mask, memories, place)

    def _embedded(self, source: Tensor) -> Tensor:
        assert self.source_embedding is not None, "built without a source tokenizer"
        embedded: Tensor = self.source_embedding(source)
        return embedded

    def _decode(self, state: RecurrentState, inputs: Tensor) -> tuple[ModelOutput, RecurrentState]:
        """Returns the output at each of T steps, hidden [B, T, D], and the state after them; inputs [B, T] are the
        tokens before the predicted ones."""
        read = self.dropout(self.embedding(inputs))
        memories: list[Memory] = []
        context, place = read[:, :0], state.place
        for level, layer in enumerate(self.decoder):
            inputs = read if level == 0 else torch.cat([read, context], -1)
            read, memory = _run(layer, inputs, state.memories[level])
            memories.append(memory if isinstance(memory, tuple) else (memory,))
            if level == 0:
                context, place = self._attend(read, state)
            read = self.dropout(read)
        hidden = self.dropout(torch.tanh(self.combine(torch.cat([read, context], -1))))
        following = RecurrentState(state.keys, state.values, state.mask, memories, place)
        return ModelOutput(hidden, self._project), following

    def _attend(self, hidden: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor]:
        """Returns the context [B, T, 2D] of decoder states [B, T, D], scaled dot-product attention over the real steps
        of the source, 0 where the source is empty; and the place [B] of the window after them."""
        scores = self.query(hidden) @ state.keys.transpose(1, 2) / math.sqrt(state.keys.shape[-1])
        place = state.place
        if self.window is not None:
            near, place = self.window(hidden, place, scores.shape[-1])
            scores = scores + near
        scores = scores.masked_fill(~state.mask.unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1) * state.mask.unsqueeze(1)
        context: Tensor = weights @ state.values
        return context, place

    def _project(self, hidden: Tensor) -> Tensor:
        weight = self.embedding.weight[:-1] if self.output is None else self.output.weight
        return nn.functional.linear(hidden, weight, self.bias)


def _run(layer: nn.Module, read: Tensor, memory: Memory | None = None) -> Any:
    """The layer's output and memory. In float32 on a CPU whose instructions have no LSTM in bf16: torch would raise."""
    if read.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not _cpu_has_bf16():
        memory = None if memory is None else tuple(part.float() for part in memory)
        with torch.autocast("cpu", enabled=False):
            return layer(read.float(), None if memory is None else _packed(memory))
    return layer(read, None if memory is None else _packed(memory))


@cache
def _cpu_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _packed(memory: Memory) -> Tensor | Memory:
    return memory if len(memory) > 1 else memory[0]


def _reversed(lengths: Tensor, width: int) -> Tensor:
    """Returns indices [B, S] for lengths [B] and S = `width`: for each row those of its real steps in reverse order,
    then those of the padding as they are."""
    place = torch.arange(width, device=lengths.device).expand(len(lengths), -1)
    return torch.where(place < lengths.unsqueeze(1), lengths.unsqueeze(1) - 1 - place, place)
