"""Tiny random checkpoints, as transformers saves them, for tests of rewards that read one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
import transformers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "cat", "sat", "on", "mat", "dog", "##s", "a", "b", ".", "[", "]", "sep", "pad", "1", "2", "3", "4", "5"]
VOCABULARY = [*SPECIAL, *WORDS]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"max_position_embeddings": 32, "vocab_size": len(VOCABULARY)}
ALIKE = 1e-5  # of numbers that differ by rounding alone


def word_pieces(place: Path) -> None:
    """Saves a WordPiece tokenizer with `[CLS] text [SEP]` around a text. Its file pads and cuts, as those of sentence
    encoders do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    engine = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    engine.enable_truncation(4)
    engine.enable_padding(length=8)
    names: dict[str, Any] = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=engine, mask_token="[MASK]", model_max_length=32, **names
    ).save_pretrained(place)


def words(place: Path, pad: str | None) -> None:
    """Saves a tokenizer of words that puts nothing around a text, with an EOS token, as those of causal models."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"unk_token": "[UNK]", "eos_token": "[SEP]"} | ({"pad_token": pad} if pad else {})
    transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **names).save_pretrained(place)


def saved(place: Path, kind: str, seed: int = 0, pad: str | None = "[PAD]", **settings: Any) -> Path:
    """Saves a checkpoint of a class of transformers with large random weights, and a tokenizer beside it."""
    cls = getattr(transformers, kind)
    torch.manual_seed(seed)
    model = cls(cls.config_class(**(SIZES | {"initializer_range": 0.5} | settings)))
    model.save_pretrained(place)
    if "Bert" in kind:
        word_pieces(place)
    else:
        words(place, pad)
    return place


def labels(*names: str) -> dict[str, Any]:
    """The settings of a config that has these classes."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def edit(file: Path, **settings: Any) -> None:
    """Sets keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | settings))
