"""How fast do models for speech decode and learn, beside Whisper-tiny of transformers on the same utterances?

    python benchmarks/speech.py [--whisper DIR] [--repeats 3]

DIR is a checkpoint of Whisper tiny.en with its tokenizer and feature extractor (benchmarks/whisper_weights.py makes
one); without it a random one of the same size takes its place, which never ends a text before the limit. Utterances are
those of dataset=tones, SOURCES a round and the same for all sides, which take turns in one process: one thread,
float32, CPU seconds, which other work on the machine changes little. The first round is the warm-up. Sides:

    speech_lstm, speech_transformer  as model=... has them, with features=logmel_8khz and a vocabulary of words
    hf_speech                        Whisper-tiny as a model of this package, with features=pretrained
    transformers                     the same network: its extractor, `generate`, and a plain step of cross-entropy

Measured: `features_s`, `decode_s` (greedy, at most LIMIT tokens), `mle_s` (a step of cross-entropy) and `rloo_s` (a
step of algorithm=rloo with SAMPLES samples: sampling, reward and update); not what transformers has no counterpart for.
`real_time_factor` is seconds of decoding, without features, for a second of sound, and `*_audio_per_s` seconds of sound
in a second of training. A ratio is of two steps of one round: lower quartile, median and upper quartile. Writes
benchmarks/results/speech.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1]))  # for the tests' own helpers

from tests.presets import composed, preset
from tests.world import numbered
from tokenrl_cli.config.build import build
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.dataset.tones import Tones
from tokenrl_cli.episodes.sampling import Decoding, generate
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.features.pretrained import Pretrained as Extracted
from tokenrl_cli.interfaces import Batch, Example, Features, Model, Texts, Waveform
from tokenrl_cli.model.adapter import NoAdapter
from tokenrl_cli.model.hf_speech import HfSpeech
from tokenrl_cli.tokenizer.pretrained import Pretrained
from tokenrl_cli.tokenizer.word import Word

SOURCES, SAMPLES, LIMIT, RATE, CLIP = 4, 4, 24, 1e-6, 1.0
BEGIN = [50257, 50362]
Measured = dict[str, float]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what `function` returned."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def write_random(place: Path) -> None:
    """A random Whisper of the size of tiny.en."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    words = "zero one two three four five six seven eight nine oh".split()
    words = [*words, *(f"w{i}" for i in range(len(words), 51_864))]
    words[50_256], words[50_255] = "</s>", "<unk>"
    engine = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=engine, unk_token="<unk>", eos_token="</s>").save_pretrained(place)
    ids = {"decoder_start_token_id": BEGIN[0], "bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 50256}
    torch.manual_seed(0)
    sizes = {"vocab_size": 51_864, "d_model": 384, "encoder_layers": 4, "decoder_layers": 4}
    sizes |= {"encoder_attention_heads": 6, "decoder_attention_heads": 6}
    model = WhisperForConditionalGeneration(
        WhisperConfig(encoder_ffn_dim=1536, decoder_ffn_dim=1536, **sizes, **ids)  # type: ignore[arg-type]
    )
    model.generation_config = GenerationConfig(no_timestamps_token_id=BEGIN[1], is_multilingual=False, **ids)
    model.save_pretrained(place)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(place)


class Overlap:
    """The share of the words of the reference that the text has at the same place."""

    def __call__(self, texts: Texts) -> np.ndarray:
        pairs = [(h.split(), r[0].split()) for h, r in zip(texts.hypotheses, texts.references, strict=True)]
        return np.array([sum(a == b for a, b in zip(h, r, strict=False)) / len(r) for h, r in pairs])


class Ours:
    """A model of this package, which two algorithms train in turn."""

    def __init__(self, tokenizer: Any, features: Features, model: Callable[[], Model], space: str) -> None:
        self.tokenizer, self.features, self.space = tokenizer, features, space
        self.model: Any = model()
        keys = (f"algorithm.optimizer.lr={RATE}", f"algorithm.optimizer.clip_norm={CLIP}")
        self.mle = preset("mle", self.model, tokenizer, LIMIT, *keys)
        self.rloo = preset("rloo", self.model, tokenizer, LIMIT, *keys, f"algorithm.samples_per_source={SAMPLES}")

    def batch(self, step: int, examples: list[Example]) -> Batch:
        sources: list[Any] = [each.source for each in examples]
        rows = [torch.from_numpy(self.features.frames(each).copy()) for each in sources]
        source, mask = padded(rows)
        texts = [each.references[0] for each in examples]
        ids = [torch.tensor([*self.tokenizer.encode(self.space + text), self.tokenizer.eos_id]) for text in texts]
        targets, real = padded(ids)
        names = [str(each.source) for each in examples]
        return Batch(
            step, source, mask, targets, real, targets, real, names, [[t] for t in texts], {}, *numbered(source)
        )

    def take(self, step: int, examples: list[Example]) -> Measured:
        features_s, batch = timed(lambda: self.batch(step, examples))

        def learn(algorithm: Any) -> dict[str, float]:
            rollout = algorithm.collect(batch)
            if algorithm.needs_rewards:
                rollout, _ = judge(rollout, batch, self.tokenizer, Overlap(), Terminal())
            metrics: dict[str, float] = algorithm.update(rollout)
            return metrics

        def decode() -> Any:
            greedy = Decoding(LIMIT, 0.0, 0, 1.0, 0.0, [], 1, 0.0)
            model = self.model.eval()
            return generate(model, batch.source, batch.source_mask, greedy, 1, self.tokenizer.eos_id, torch.Generator())

        decode_s, said = timed(decode)
        mle_s, _ = timed(lambda: learn(self.mle))
        rloo_s, _ = timed(lambda: learn(self.rloo))
        tokens = float(said.mask.sum())
        return {"features_s": features_s, "decode_s": decode_s, "mle_s": mle_s, "rloo_s": rloo_s, "tokens": tokens}


class Plain:
    """What one writes first with transformers."""

    def __init__(self, place: Path) -> None:
        from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoTokenizer

        self.extractor: Any = AutoFeatureExtractor.from_pretrained(place)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(place)
        self.model: Any = AutoModelForSpeechSeq2Seq.from_pretrained(place, dtype=torch.float32)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), RATE, weight_decay=0.0)

    def take(self, step: int, examples: list[Example]) -> Measured:
        features_s, features = timed(lambda: self.read(examples))
        decode_s, said = timed(lambda: self.model.eval().generate(features, max_new_tokens=LIMIT, num_beams=1))
        mle_s, _ = timed(lambda: self.learn(features, [each.references[0] for each in examples]))
        tokens = sum(row.index(50256) + 1 if 50256 in row else len(row) for row in said.tolist())
        return {"features_s": features_s, "decode_s": decode_s, "mle_s": mle_s, "tokens": tokens}

    def read(self, examples: list[Example]) -> torch.Tensor:
        from tokenrl_cli.data.audio import resampled

        waves = [resampled(sound_of(each), 16000).samples for each in examples]
        found: torch.Tensor = self.extractor(waves, sampling_rate=16000, return_tensors="pt").input_features
        return found

    def learn(self, features: torch.Tensor, texts: list[str]) -> float:
        rows = [[*self.tokenizer.encode(" " + text, add_special_tokens=False), 50256] for text in texts]
        given, _ = padded([torch.tensor([*BEGIN, *row[:-1]]) for row in rows])
        labels, real = padded([torch.tensor(row) for row in rows])
        logits = self.model.train()(input_features=features, decoder_input_ids=given).logits[:, len(BEGIN) - 1 :]
        wanted = labels.masked_fill(~real, -100)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return float(loss.detach())


def padded(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [n(, F)] as one tensor, and which of it is real."""
    whole = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return whole, torch.arange(whole.shape[1]) < torch.tensor([len(row) for row in rows]).unsqueeze(1)


def sound_of(example: Example) -> Waveform:
    sound = example.source.read()  # type: ignore[union-attr]
    assert isinstance(sound, Waveform)
    return sound


def sides(place: Path, data: Tones) -> dict[str, Any]:
    """All sides, by name."""
    made: dict[str, Any] = {}
    for name in ("speech_lstm", "speech_transformer"):
        config = composed(("dataset=tones", f"model={name}"))
        tokenizer = Word(config.tokenizer.vocabulary_size, config.tokenizer.min_count)
        tokenizer.train(data.example("train", i).references[0] for i in range(200))
        blocks: Any = {key: resolved(config[key]) for key in ("features", "model")}
        features: Any = build(blocks["features"], Features, [], "features")
        known = {"tokenizer": tokenizer, "features": features, "max_length": LIMIT}
        made[name] = Ours(tokenizer, features, lambda b=blocks["model"], k=known: build(b, Model, [], **k), "")
    own = Pretrained(str(place), None, False, None, "tokenizer")
    own.train(())
    frames = Extracted(str(place), [1.0], 512.0, 0.0, "features")
    frames.train(())
    made["hf_speech"] = Ours(
        own, frames, lambda: HfSpeech(own, frames, str(place), "float32", None, False, NoAdapter()), " "
    )
    made["transformers"] = Plain(place)
    return made


def resolved(block: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(block, resolve=True)


def summary(steps: dict[str, list[Measured]], audio: list[float]) -> dict[str, Any]:
    """Medians of each side, and how many times as fast it is as transformers."""
    found: dict[str, Any] = {}
    for name, taken in steps.items():
        found[name] = {key: round(statistics.median(each[key] for each in taken), 3) for key in taken[0]}
        pairs = list(zip(audio, taken, strict=True))
        found[name]["real_time_factor"] = round(statistics.median(each["decode_s"] / s for s, each in pairs), 4)
        for key in ("mle", "rloo"):
            if f"{key}_s" in taken[0]:
                value = statistics.median(s / each[f"{key}_s"] for s, each in pairs)
                found[name][f"{key}_audio_per_s"] = round(value, 3)
    ratios: dict[str, Any] = {}
    for name in list(steps)[:-1]:
        rounds = list(zip(steps[name], steps["transformers"], strict=True))
        parts = ("features_s", "decode_s", "mle_s")
        quartiles = {key: statistics.quantiles((b[key] / a[key] for a, b in rounds), n=4) for key in parts}
        ratios[f"{name} / transformers"] = {
            key.removesuffix("_s"): [round(value, 2) for value in values] for key, values in quartiles.items()
        }
    return {"sides": found, "times_as_fast": ratios}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--whisper", metavar="DIR", help="checkpoint of Whisper tiny.en; else a random one")
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    data = Tones(noise=[5.0, 20.0], corpus_seed=1, train_size=2000, val_size=4, test_size=4, max_source_length=600,
                 overlong="drop")  # fmt: skip
    results: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "repeats": given.repeats,
        "load_before": round(os.getloadavg()[0], 2),
        "whisper": "tiny.en" if given.whisper else "random, of its size",
        "shape": {"sources": SOURCES, "samples": SAMPLES, "limit": LIMIT},
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(given.whisper or folder)
        if not given.whisper:
            write_random(place)
        rivals, audio = sides(place, data), []
        steps: dict[str, list[Measured]] = {name: [] for name in rivals}
        for step in range(given.repeats + 1):
            examples = [data.example("train", step * SOURCES + i) for i in range(SOURCES)]
            audio.append(sum(len(sound_of(each).samples) / sound_of(each).rate for each in examples))
            for name in list(rivals) if step % 2 else list(rivals)[::-1]:
                steps[name].append(rivals[name].take(step, examples))
                print(step, name, {key: round(value, 2) for key, value in steps[name][-1].items()}, flush=True)
    results["audio_s"] = round(statistics.median(audio[1:]), 2)
    results |= summary({name: taken[1:] for name, taken in steps.items()}, audio[1:])
    results["load_after"] = round(os.getloadavg()[0], 2)
    out = Path(__file__).parent / "results" / "speech.json"
    out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
