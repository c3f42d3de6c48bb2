"""Tiny pretrained checkpoints with random weights and a tokenizer of their own, and data for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WORDS = [f"w{i}" for i in range(12)]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
SIZE = len(SPECIAL) + len(WORDS) + 2  # two rows more than the tokenizer has
NAMED = {"vocab_size": SIZE, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LONE = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
PAIR = {
    **{"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2},
    **{"decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "init_std": 0.3},
}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {  # name -> option of the group model, class, sizes
    "gpt2": ("hf_causal", "GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "t5": (
        "hf_seq2seq",
        "T5ForConditionalGeneration",
        {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    ),
    "bart": (
        "hf_seq2seq",
        "BartForConditionalGeneration",
        PAIR | {"forced_bos_token_id": 1, "decoder_start_token_id": 2, "max_position_embeddings": 32},
    ),
    "bert": ("hf_encoder_decoder", "BertModel", LONE | {"max_position_embeddings": 32, "initializer_range": 0.3}),
}


def checkpoint(place: Path, kind: str) -> Path:
    """Writes a checkpoint with its tokenizer to `place`."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    _, name, sizes = KINDS[kind]
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    model = cls(cls.config_class(**NAMED, **sizes))
    for parameter in model.parameters():  # away from symmetric starts, and from one token for everything
        parameter.data += (1.0 if kind == "t5" else 0.05) * torch.randn_like(parameter)
    model.save_pretrained(place)
    engine = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.decoder = decoders.WordPiece()
    if kind != "gpt2":
        engine.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **names).save_pretrained(place)
    return place


def data(place: Path) -> Path:
    """Writes three splits of pairs: a target is its source backwards."""
    place.mkdir()
    draws = torch.Generator().manual_seed(0)
    for split, count in (("train", 24), ("val", 4), ("test", 6)):
        rows = [[WORDS[i] for i in torch.randint(12, (1 + n % 3,), generator=draws)] for n in range(count)]
        pairs = ({"src": " ".join(row), "refs": [" ".join(reversed(row))]} for row in rows)
        (place / f"{split}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in pairs))
    return place


def gguf(file: Path) -> Path:
    """Writes a Llama of one layer as a GGUF file without a tokenizer; its ids are those of `checkpoint`."""
    import numpy as np
    from gguf import GGUFWriter

    width, feed = 32, 64
    writer = GGUFWriter(str(file), "llama")
    for name, value in (
        *(("block_count", 1), ("context_length", 64), ("embedding_length", width), ("feed_forward_length", feed)),
        *(("head_count", 2), ("head_count_kv", 2), ("rope_dimension_count", width // 2), ("vocab_size", SIZE)),
    ):
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    draws = np.random.default_rng(0)
    square = {f"blk.0.attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
    shapes = {"token_embd": (SIZE, width), "output": (SIZE, width), "output_norm": (width,), **square}
    shapes |= {"blk.0.attn_norm": (width,), "blk.0.ffn_norm": (width,), "blk.0.ffn_down": (width, feed)}
    shapes |= {"blk.0.ffn_gate": (feed, width), "blk.0.ffn_up": (feed, width)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (draws.normal(size=shape) * 0.3).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
