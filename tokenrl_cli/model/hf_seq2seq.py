"""Encoder-decoder models from pretrained checkpoints: T5, BART, mBART, Marian, Pegasus, M2M100 and the like."""

from __future__ import annotations

from collections.abc import Sequence

from tokenrl_cli import hub
from tokenrl_cli.config.ranges import CountOrZero, Text
from tokenrl_cli.interfaces import Tokenizer
from tokenrl_cli.model.adapter import Adapter
from tokenrl_cli.model.encoder_decoder import ReadsWithEncoder, decoder_begin
from tokenrl_cli.model.pretrained import (
    Dtype,
    ids_in_checkpoint,
    network_of,
    require_contract,
    require_kind,
    size_of,
)


class HfSeq2seq(ReadsWithEncoder):
    """p(y_t | x, y_<t) of a pretrained encoder-decoder.

    The decoder begins with `begin`; null stands for what the checkpoint names: its start token, then the token that it
    forces at the begin, such as the language of the output. The constructor raises SettingError where the checkpoint
    cannot be read (see `hub.weights`), is of another kind, has another vocabulary, or has an architecture that cannot
    keep the contract of `Model`.
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
        require_kind(config, "hf_seq2seq", path)
        from transformers import AutoModelForSeq2SeqLM

        network = network_of(place, config, AutoModelForSeq2SeqLM, dtype)
        sources = ids_in_checkpoint(source_tokenizer, size_of(network.get_encoder()), "source_tokenizer")
        size = network.get_output_embeddings().out_features
        targets = ids_in_checkpoint(tokenizer, size, "tokenizer")
        super().__init__(network, network, sources, targets, recompute, adapter, {"path": place})
        around = ([], []) if source_tokenizer is not tokenizer else hub.frame(place, "path")
        self.prepare(around, decoder_begin(place, begin, size), config.pad_token_id)
        require_contract(self, self._own_logits)
