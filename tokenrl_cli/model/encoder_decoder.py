"""Pretrained networks of an encoder, which reads the source, and a decoder, which generates from its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli import hub
from tokenrl_cli.interfaces import ModelOutput, SettingError
from tokenrl_cli.model.pretrained import (
    Begin,
    Pretrained,
    begin_ids,
    framed,
    generation_settings,
    positions_of,
    renewed,
    require_room,
)


@dataclass
class EncodedState:
    """The source as the encoder read it, keys and values of the decoder, and the output for the next token."""

    read: Tensor  # [B, W, D] outputs of the encoder
    seen: Tensor  # [B, W] bool
    cache: Any  # of transformers
    hidden: Tensor  # [B, 1, D], after the last position

    def reorder(self, index: Tensor) -> EncodedState:
        """Returns a state with the rows at `index` [M] int64, repeats allowed. The caches are copied, so `self` stays
        usable."""
        cache = renewed(self.cache, index)
        return EncodedState(self.read[index], self.seen[index], cache, self.hidden[index])

    def repeat(self, times: int) -> EncodedState:
        """Returns a state with B * times rows, each row `times` times, its copies next to each other: row b * times + k
        is row b. The caches are copied, so `self` stays usable. So K samples of a source need one pass of the
        encoder."""
        return self.reorder(torch.arange(len(self.seen), device=self.seen.device).repeat_interleave(times))


class ReadsWithEncoder(Pretrained):
    """p(y_t | x, y_<t): the encoder reads each source once, whatever number of rows it has.

    `around` holds the ids that the checkpoint expects before and after a source; a tokenizer that is shared with the
    targets cannot write them. An empty source is read as these alone, or as one padding token if there are none.
    """

    def prepare(self, around: tuple[list[int], list[int]], begin: list[int], pad: int | None) -> None:
        """Sets the ids `around` a source, (before, after), those that the decoder begins with, `begin`, at least one,
        and the padding id `pad` (None: the checkpoint has none, and `begin[0]` is used): ids of the checkpoint. To be
        called by constructors, after that of `Pretrained` and before the first use."""
        self.around, self.begin = around, begin
        self.filler = begin[0] if pad is None else pad
        self.longest = positions_of(self.network.get_encoder()), positions_of(self.decoder)

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Returns the output at every step of teacher-forced actions, hidden [B, T, D] and logits [B, T, V]: output t
        scores actions[:, t] from the source and actions[:, :t]. Gradients flow. source [N, S] int64 and source_mask
        [N, S] bool, actions [B, T] int64, T at least 1; source_row [B] int64 gives the source of each row, None: row b
        has source b, and N = B. A source may be empty. Raises UserError where a source or the response, with what
        stands around it, has more tokens than the checkpoint has positions."""
        ids, seen = self._source(source, source_mask)
        read = self._encode(ids, seen)
        if source_row is not None:
            # index_select and not [index]: on a CPU the backward pass of the latter adds number by number
            read, seen = read.index_select(0, source_row), seen[source_row]
        hidden = self._decode(self._begun(actions), read, seen, None)
        return self.output(hidden[:, len(self.begin) - 1 :])

    def start(self, source: Tensor, source_mask: Tensor) -> EncodedState:
        """Returns the state before the first token, one row for each source, after one pass of the encoder over source
        [N, S] int64 with source_mask [N, S] bool, and of the decoder over the tokens that it begins with. Raises
        UserError where a source, with what stands around it, has more tokens than the checkpoint has positions."""
        from transformers import DynamicCache, EncoderDecoderCache

        ids, seen = self._source(source, source_mask)
        read = self._encode(ids, seen)
        config = self.decoder.config
        cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        begin = self.theirs.new_tensor(self.begin).expand(len(source), -1)
        return EncodedState(read, seen, cache, self._decode(begin, read, seen, cache)[:, -1:])

    def step(self, state: EncodedState, previous: Tensor | None) -> tuple[ModelOutput, EncodedState]:
        """Returns the output for the next token, hidden [B, 1, D] and logits [B, 1, V], and the state after `previous`
        [B] int64, the token just generated; None before the first. `state` stays usable. Raises UserError where the
        response gets more tokens than the checkpoint has positions."""
        if previous is None:
            return self.output(state.hidden), state
        cache = renewed(state.cache)
        hidden = self._decode(self.theirs[previous].unsqueeze(1), state.read, state.seen, cache)
        return self.output(hidden), EncodedState(state.read, state.seen, cache, hidden)

    @property
    def decoder(self) -> Any:
        """The decoder without its output layer."""
        return self.network.get_decoder()

    def _source(self, source: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The ids of the checkpoint and their mask, both [N, W]."""
        ids = self.source_theirs[source.masked_fill(~source_mask, 0)]
        return framed(ids, source_mask, *self.around, self.filler, "right")

    def _begun(self, actions: Tensor) -> Tensor:
        """What the decoder reads where it predicts actions [B, T]: the ids it begins with, then all but the last."""
        begin = actions.new_tensor(self.begin).expand(len(actions), -1)
        return torch.cat([begin, self.theirs[actions[:, :-1]]], 1)

    def _encode(self, ids: Tensor, seen: Tensor) -> Tensor:
        require_room("a source", ids.shape[1], self.longest[0], "dataset.max_source_length")
        output = self.network.get_encoder()(input_ids=ids, attention_mask=seen.long())
        read: Tensor = output.last_hidden_state
        return read

    def _decode(self, ids: Tensor, read: Tensor, seen: Tensor, cache: Any) -> Tensor:
        done = 0 if cache is None else cache.get_seq_length()
        require_room("a response", done + ids.shape[1], self.longest[1], "decode.max_length")
        output = self.decoder(
            input_ids=ids,
            encoder_hidden_states=read,
            cache=cache,
            use_cache=cache is not None,
            **self._attending(seen),
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _attending(self, seen: Tensor) -> dict[str, Tensor]:
        """What tells the decoder which outputs of the encoder are real, seen [B, W]."""
        return {"encoder_attention_mask": seen.long()}

    def _own_logits(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> Tensor:
        """The logits [B, T, V] of the network's own forward pass."""
        ids, seen = self._source(source, source_mask)
        logits = self.network(
            input_ids=ids, attention_mask=seen.long(), decoder_input_ids=self._begun(actions), use_cache=False
        ).logits
        return logits[:, len(self.begin) - 1 :].index_select(-1, self.theirs)  # type: ignore[no-any-return]


def decoder_begin(path: Path, begin: Begin, size: int) -> list[int]:
    """Returns the ids that a decoder begins with, at least one: `begin` where it is given, else what the checkpoint at
    `path` names: its start token (else its BOS, else the first token that its tokenizer puts before a text), then the
    token that it forces at the begin, if any. They are ids of the checkpoint, not of our tokenizer. Raises SettingError
    where the checkpoint names none, and as `begin_ids` does with `size`, its number of tokens."""
    named = generation_settings(path)
    starts = (named.get("decoder_start_token_id"), named.get("bos_token_id"), *hub.frame(path, "path")[0][:1])
    start = next((each for each in starts if each is not None), None)
    forced = named.get("forced_bos_token_id")
    found = begin if begin is not None else [each for each in (start, forced) if each is not None]
    if not found:
        problem = "is null, and the checkpoint names no decoder_start_token_id"
        raise SettingError("begin", problem, "give the ids that its decoder begins with: {here}.begin=[ID]")
    return begin_ids(found, path, size)
