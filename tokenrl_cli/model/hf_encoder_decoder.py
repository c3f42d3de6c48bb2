"""Two pretrained encoders, such as BERT, as encoder and decoder (BERT2BERT): the decoder's cross-attention is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokenrl_cli import hub
from tokenrl_cli.config.ranges import CountOrZero, Fraction, Size, Text
from tokenrl_cli.interfaces import SettingError, Tokenizer
from tokenrl_cli.model.adapter import Adapter, NoAdapter
from tokenrl_cli.model.encoder_decoder import ReadsWithEncoder, decoder_begin
from tokenrl_cli.model.pretrained import (
    Dtype,
    ids_in_checkpoint,
    network_of,
    require_contract,
    require_kind,
    size_of,
)


@dataclass(frozen=True)
class NewBert:
    """The sizes of a BERT with random weights."""

    width: Size  # a multiple of `heads`
    heads: Size
    feedforward: Size
    layers: Size
    dropout: Fraction


class HfEncoderDecoder(ReadsWithEncoder):
    """p(y_t | x, y_<t), Rothe et al. 2020 (arXiv:1907.12461): the encoder and the decoder begin from the checkpoint of
    an encoder at `path`, or from two (`decoder_path`). Cross-attention has random weights, and so has the output layer
    where the checkpoint has none. A pair that was saved as one (transformers.EncoderDecoderModel) is read as it is.

    Without `path` both are new, with the sizes of `new`, for the tokens of any tokenizer. The decoder begins with
    `begin`; null stands for the checkpoint's start token, else its [CLS], else its BOS. The constructor raises
    SettingError where the checkpoint cannot be read (see `hub.weights`), is of another kind, has another vocabulary, or
    has an architecture that cannot keep the contract of `Model`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source_tokenizer: Tokenizer,
        path: Text | None,
        decoder_path: Text | None,
        new: NewBert | None,
        dtype: Dtype,
        begin: Sequence[CountOrZero] | None,
        recompute: bool,
        adapter: Adapter,
    ) -> None:
        if path is None:
            if not isinstance(adapter, NoAdapter):
                raise SettingError("path", "is null: an adapter needs a checkpoint to adapt", "use {here}/adapter=none")
            self._init_new(tokenizer, source_tokenizer, new, dtype, recompute)
            return
        place = hub.directory(path, "path")
        first = hub.config(place, "path")
        require_kind(first, "hf_encoder_decoder", path)
        second = place
        fresh: list[str] = []
        if first.model_type == "encoder-decoder":
            from transformers import AutoModelForSeq2SeqLM

            network = network_of(place, first, AutoModelForSeq2SeqLM, dtype, may_lack=_of_pooler)
        else:
            second = hub.directory(decoder_path, "decoder_path") if decoder_path else place
            network, fresh = _joined(place, first, second, dtype)
        _drop_pooler(network.encoder)
        sources = size_of(network.encoder)
        size = network.decoder.get_output_embeddings().out_features
        super().__init__(
            network,
            network.decoder,
            ids_in_checkpoint(source_tokenizer, sources, "source_tokenizer"),
            ids_in_checkpoint(tokenizer, size, "tokenizer"),
            recompute,
            adapter,
            {"path": place} | ({"decoder_path": second} if second != place else {}),
            fresh,
        )
        around = ([], []) if source_tokenizer is not tokenizer else hub.frame(place, "path")
        self.prepare(around, decoder_begin(second, begin, size), network.encoder.config.pad_token_id)
        require_contract(self, self._own_logits)

    def _init_new(
        self, tokenizer: Tokenizer, source_tokenizer: Tokenizer, new: NewBert | None, dtype: Dtype, recompute: bool
    ) -> None:
        if new is None:
            raise SettingError("path", "is null, and so is {here}.new: there is neither a checkpoint nor a size")
        from tokenrl_cli.config.extras import require_extra

        require_extra("hf", "path", "transformers")
        network = _random(NewBert(**new) if isinstance(new, dict) else new, source_tokenizer.size, tokenizer.size)
        network = network.to(getattr(torch, dtype))
        sources, targets = list(range(source_tokenizer.size)), list(range(tokenizer.size))
        super().__init__(network, network.decoder, sources, targets, recompute, NoAdapter(), {})
        self.prepare(([], []), [tokenizer.size], source_tokenizer.size)
        require_contract(self, self._own_logits)

    @property
    def generator(self) -> Any:
        """The decoder with its output layer."""
        return self.network.decoder

    @property
    def decoder(self) -> Any:
        """The decoder without its output layer."""
        return self.network.decoder.base_model

    def _encode(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        read = super()._encode(ids, seen)
        network = self.network
        if network.encoder.config.hidden_size == network.decoder.config.hidden_size:
            return read
        projected: torch.Tensor = network.enc_to_dec_proj(read)
        return projected


def _joined(place: Path, first: Any, second: Path, dtype: Dtype) -> tuple[Any, list[str]]:
    """An encoder and a decoder from one or two checkpoints of encoders, and the names of the weights that are new, such
    as those of the cross-attention."""
    from transformers import AutoModel, AutoModelForCausalLM, EncoderDecoderModel

    encoder = network_of(place, first, AutoModel, dtype, may_lack=_of_pooler)
    config = hub.config(second, "decoder_path" if second != place else "path")
    config.is_decoder, config.add_cross_attention = True, True

    def is_new(name: str) -> bool:
        """Cross-attention, and the output layer, which a checkpoint of an encoder alone does not have."""
        return "cross" in name.lower() or not name.startswith(decoder_prefix)

    def lacking(name: str) -> bool:
        if is_new(name):
            fresh.append(name)
        return is_new(name)

    decoder_prefix = f"{_class_of(config, AutoModelForCausalLM).base_model_prefix}."
    fresh: list[str] = []
    decoder = network_of(second, config, AutoModelForCausalLM, dtype, may_lack=lacking)
    with hub.quiet():
        network = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    between = [name for name, _ in network.named_parameters() if name.startswith("enc_to_dec_proj.")]
    return network, [*between, *(f"decoder.{name}" for name in fresh)]


def _class_of(config: Any, auto_class: Any) -> Any:
    """The class that `auto_class` would load with this config."""
    if type(config) not in auto_class._model_mapping:
        problem = f"transformers has no decoder of the architecture {config.model_type!r}"
        raise SettingError("path", problem, "name another {here}.decoder_path, such as that of a BERT or RoBERTa")
    return auto_class._model_mapping[type(config)]


def _of_pooler(name: str) -> bool:
    return "pooler." in name


def _drop_pooler(encoder: Any) -> None:
    """Removes the layer that reads the first position for classifiers: nothing here uses it, so it would not learn."""
    if "pooler" in encoder._modules:
        encoder.pooler = None


def _random(new: NewBert, sources: int, targets: int) -> Any:
    """A BERT2BERT with random weights whose vocabularies are `sources` and `targets` tokens, then padding, then, of the
    decoder, begin."""
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

    if new.width % new.heads:
        raise SettingError("new.width", f"must be a multiple of the {new.heads} heads, got {new.width}")
    sizes: dict[str, Any] = {
        "hidden_size": new.width,
        "num_attention_heads": new.heads,
        "intermediate_size": new.feedforward,
        "num_hidden_layers": new.layers,
        "hidden_dropout_prob": new.dropout,
        "attention_probs_dropout_prob": new.dropout,
    }
    encoder = BertConfig(vocab_size=sources + 1, pad_token_id=sources, **sizes)
    decoder = BertConfig(vocab_size=targets + 1, pad_token_id=None, is_decoder=True, add_cross_attention=True, **sizes)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    with hub.quiet():
        network = EncoderDecoderModel(config)
    _drop_pooler(network.encoder)
    return network
