"""Decoder-only models from pretrained checkpoints: GPT-2, Llama, Qwen, Gemma and others that transformers has."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli import hub
from tokenrl_cli.config.ranges import CountOrZero, Text
from tokenrl_cli.interfaces import ModelOutput, SettingError, Tokenizer
from tokenrl_cli.model.adapter import Adapter
from tokenrl_cli.model.pretrained import (
    Dtype,
    Pretrained,
    first_token,
    framed,
    ids_in_checkpoint,
    network_of,
    positions_of,
    renewed,
    require_contract,
    require_kind,
    require_room,
    size_of,
)


@dataclass
class CausalState:
    """Keys and values of everything read so far, and the output for the next token where it is known already."""

    cache: Any  # of transformers
    seen: Tensor  # [B, W + tokens generated] bool, the positions that may be attended to
    hidden: Tensor  # [B, 1, D], after the last position

    def reorder(self, index: Tensor) -> CausalState:
        """Returns a state with the rows at `index` [M] int64, repeats allowed. The caches are copied, so `self` stays
        usable."""
        return CausalState(renewed(self.cache, index), self.seen[index], self.hidden[index])

    def repeat(self, times: int) -> CausalState:
        """Returns a state with B * times rows, each row `times` times, its copies next to each other: row b * times + k
        is row b. The caches are copied, so `self` stays usable. So K samples of a source need one pass over it."""
        return self.reorder(torch.arange(len(self.seen), device=self.seen.device).repeat_interleave(times))


class HfCausal(Pretrained):
    """p(y_t | x, y_<t) of a decoder-only checkpoint, which reads the prompt x and then the response y.

    Prompts are padded on the left, so that every response begins at the same column; padding is never attended to, and
    positions count real tokens alone. A source tokenizer of its own writes the whole prompt; one that is shared with
    the targets has no begin token, so `begin` comes before the prompt: null stands for what the checkpoint's own
    tokenizer puts there. An empty prompt is read as the checkpoint's begin token, or its end token if it has none.

    The constructor raises SettingError where the checkpoint cannot be read (see `hub.weights`), is of another kind, has
    another vocabulary, or has an architecture that cannot keep the contract of `Model`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source_tokenizer: Tokenizer,
        path: Text,
        dtype: Dtype,
        begin: Sequence[CountOrZero] | None,
        recompute: bool,
        adapter: Adapter,
    ) -> None:
        place = hub.directory(path, "path")
        config = hub.config(place, "path")
        require_kind(config, "hf_causal", path)
        from transformers import AutoModelForCausalLM

        network = network_of(place, config, AutoModelForCausalLM, dtype)
        size = size_of(network)
        sources = ids_in_checkpoint(source_tokenizer, size, "source_tokenizer")
        targets = ids_in_checkpoint(tokenizer, size, "tokenizer")
        super().__init__(network, network, sources, targets, recompute, adapter, {"path": place})
        own = source_tokenizer is not tokenizer
        self.begin = list(begin) if begin is not None else [] if own else hub.frame(place, "path")[0]
        if beyond := [each for each in self.begin if each >= size]:
            raise SettingError("begin", f"holds {beyond[0]}, and the last id of the checkpoint is {size - 1}")
        self.filler = first_token(place, config, "bos_token_id", "eos_token_id", "pad_token_id")
        self.longest = positions_of(network)
        self.places = "position_ids" in inspect.signature(network.base_model.forward).parameters
        require_contract(self, self._own_logits)

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Returns the output at every step of teacher-forced actions, hidden [B, T, D] and logits [B, T, V]: output t
        scores actions[:, t] from the source and actions[:, :t]. Gradients flow. source [N, S] int64 and source_mask
        [N, S] bool, actions [B, T] int64, T at least 1; source_row [B] int64 gives the source of each row, None: row b
        has source b, and N = B. A source may be empty. Raises UserError where the longest source with the response has
        more tokens than the checkpoint has positions.

        With `source_row` each source is read once, and its keys and values serve all its rows; not with `recompute`,
        which keeps no keys and values.
        """
        prompt, seen = self._prompt(source, source_mask)
        said = self.theirs[actions[:, :-1]]
        if source_row is not None and not self.recompute:
            state = self._read(prompt, seen).reorder(source_row)
            if not said.shape[1]:
                return self.output(state.hidden)
            following, _ = self._follow(state, said)
            return self.output(torch.cat([state.hidden, following], 1))
        if source_row is not None:
            prompt, seen = prompt[source_row], seen[source_row]
        whole = torch.cat([seen, torch.ones_like(said, dtype=torch.bool)], 1)
        hidden = self._run(torch.cat([prompt, said], 1), whole, None)
        return self.output(hidden[:, prompt.shape[1] - 1 :])

    def start(self, source: Tensor, source_mask: Tensor) -> CausalState:
        """Returns the state before the first token, one row for each source, after one pass over source [N, S] int64
        with source_mask [N, S] bool, True at real steps. Raises UserError where a source has more tokens than the
        checkpoint has positions."""
        return self._read(*self._prompt(source, source_mask))

    def step(self, state: CausalState, previous: Tensor | None) -> tuple[ModelOutput, CausalState]:
        """Returns the output for the next token, hidden [B, 1, D] and logits [B, 1, V], and the state after `previous`
        [B] int64, the token just generated; None before the first. `state` stays usable. Raises UserError where the
        longest source with the response gets more tokens than the checkpoint has positions."""
        if previous is None:
            return self.output(state.hidden), state
        hidden, following = self._follow(state, self.theirs[previous].unsqueeze(1))
        return self.output(hidden), following

    def _prompt(self, source: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The ids of the checkpoint, padded on the left, and their mask, both [N, W]."""
        ids = self.source_theirs[source.masked_fill(~source_mask, 0)]
        return framed(ids, source_mask, self.begin, [], self.filler, "left")

    def _read(self, prompt: Tensor, seen: Tensor) -> CausalState:
        from transformers import DynamicCache

        cache = DynamicCache(config=self.network.config)
        hidden = self._run(prompt, seen, cache)
        return CausalState(cache, seen, hidden[:, -1:])

    def _follow(self, state: CausalState, said: Tensor) -> tuple[Tensor, CausalState]:
        """The hidden states [B, t, D] after each of t further tokens, ids of the checkpoint [B, t], and the state."""
        seen = torch.cat([state.seen, torch.ones_like(said, dtype=torch.bool)], 1)
        cache = renewed(state.cache)
        hidden = self._run(said, seen, cache)
        return hidden, CausalState(cache, seen, hidden[:, -1:])

    def _run(self, ids: Tensor, seen: Tensor, cache: Any) -> Tensor:
        """Hidden states [B, t, D] of the last t positions of `seen` [B, W], which hold the ids [B, t]."""
        require_room("a source with its response", seen.shape[1], self.longest, "dataset.max_source_length")
        places = (seen.long().cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        given = {"position_ids": places} if self.places else {}
        output = self.network.base_model(
            input_ids=ids, attention_mask=seen.long(), cache=cache, use_cache=cache is not None, **given
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _own_logits(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> Tensor:
        """The logits [B, T, V] of the network's own forward pass."""
        prompt, seen = self._prompt(source, source_mask)
        whole = torch.cat([seen, torch.ones_like(actions[:, 1:], dtype=torch.bool)], 1)
        places = (whole.long().cumsum(-1) - 1).clamp(min=0)
        given = {"position_ids": places} if self.places else {}
        ids = torch.cat([prompt, self.theirs[actions[:, :-1]]], 1)
        logits = self.network(input_ids=ids, attention_mask=whole.long(), use_cache=False, **given).logits
        return logits[:, prompt.shape[1] - 1 :].index_select(-1, self.theirs)  # type: ignore[no-any-return]
