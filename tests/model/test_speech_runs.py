"""Whole runs from pretrained checkpoints for speech, through the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.model.test_speech_checkpoints import WAVE, WHISPER
from tests.running import lines, tokenrl, train, weights
from tokenrl_cli.episodes.sampling import Decoding, generate
from tokenrl_cli.features.pretrained import Pretrained as Extracted
from tokenrl_cli.interfaces import Recording, Waveform
from tokenrl_cli.model.adapter import NoAdapter
from tokenrl_cli.model.hf_speech import HfSpeech
from tokenrl_cli.tokenizer.pretrained import Pretrained

transformers = pytest.importorskip("transformers")

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|0.00|>", "<|0.02|>"]
WORDS = "zero one two three four five six seven eight nine ( oh".split()
SIZE = len(SPECIAL) + len(WORDS)
RUN = [
    *("dataset=tones", "features=pretrained", "dataset.max_source_length=400", "dataset.test_size=4"),
    *("dataset.train_size=16", "dataset.val_size=4", "reward=wer", "trainer.monitor=wer", "decode.max_length=6"),
    *("trainer.batch_size=2", "trainer.warm_start_batch_size=2", "algorithm.samples_per_source=2"),
    *("trainer.eval_every=2", "trainer.checkpoint_every=100", "trainer.log_every=1", "trainer.eval_examples=2"),
    *("trainer.device=cpu", "trainer.gate=null", "trainer.warm_start_steps=2"),
]


def whisper(place: Path) -> Path:
    """A tiny random Whisper that reads 4 s, with its tokenizer and its feature extractor."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    sizes: dict[str, Any] = WHISPER | {"vocab_size": SIZE, "num_mel_bins": 8, "max_source_positions": 200}
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(**sizes | {"decoder_start_token_id": SPECIAL.index("<s>")})
    )
    for parameter in model.parameters():  # away from one token for everything
        parameter.data += 0.3 * torch.randn_like(parameter)
    model.generation_config.suppress_tokens = [SIZE - 2]
    model.save_pretrained(place)
    transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=4).save_pretrained(place)
    engine = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>"))
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **names).save_pretrained(place)
    return place


def hubert(place: Path) -> Path:
    """A tiny random HuBERT whose outputs are 20 ms apart, with its feature extractor."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = WAVE | {"conv_kernel": (20, 32), "conv_stride": (10, 32)}
    transformers.HubertModel(transformers.HubertConfig(**sizes)).save_pretrained(place)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained a Whisper with an adapter for two and two steps."""
    home = tmp_path_factory.mktemp("whisper")
    line = [*RUN, "model=hf_speech", f"model.path={whisper(home / 'at')}", "model/adapter=lora", "model.adapter.r=2"]
    assert train(home / "whole", *line, "trainer.steps=2", tiny=False) == 0
    assert train(home / "further", *line, "trainer.steps=1", tiny=False) == 0
    return home


def test_a_stopped_run_of_whisper_goes_on_with_the_same_bits(run: Path) -> None:
    assert tokenrl("train", f"resume={run / 'further'}", "trainer.steps=2", f"model.path={run / 'at'}") == 0
    assert weights(run / "further") == weights(run / "whole")
    assert lines(run / "further")[-3:] == lines(run / "whole")[-3:]


def test_an_evaluation_needs_the_checkpoint_and_neither_its_extractor_nor_its_tokenizer(run: Path) -> None:
    names = ("preprocessor_config.json", "tokenizer.json")
    for name in names:
        (run / "at" / name).rename(run / name)
    try:
        assert tokenrl("eval", f"ckpt={run / 'whole'}", f"model.path={run / 'at'}", "split=test_seen") == 0
    finally:
        for name in names:
            (run / name).rename(run / "at" / name)
    assert list((run / "whole").glob("eval/test_seen-*/results.json"))


def test_times_and_suppressed_tokens_are_not_among_those_that_can_be_said(run: Path) -> None:
    table = json.loads((run / "whole/checkpoints/last/tokenizer/target/pretrained.json").read_text())
    unsaid = {SPECIAL.index(name) for name in SPECIAL if name not in ("</s>", "<unk>")} | {SIZE - 2}
    assert set(table["theirs"]) == set(range(SIZE)) - unsaid


def test_an_encoder_of_speech_trains_with_the_decoder_and_freezes(tmp_path: Path) -> None:
    sizes = ["model.embedding=8", "model.hidden=8", "freeze=[network.feature_extractor]", "model.recompute=true"]
    line = [*RUN, "model=hf_speech_encoder", f"model.path={hubert(tmp_path / 'at')}", *sizes, "tokenizer=word"]
    line += ["dataset.max_source_length=64000", "trainer.steps=1"]
    assert train(tmp_path / "run", *line, tiny=False) == 0
    assert max(each["step"] for each in lines(tmp_path / "run")) == 3


def test_features_that_are_not_of_the_checkpoint_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*RUN, "trainer.steps=1", "model=hf_speech", f"model.path={whisper(tmp_path / 'at')}"]
    for words, said in [
        (["features=logmel"], "model.path: a pretrained model needs the features of its checkpoint"),
        ([f"features.path={hubert(tmp_path / 'other')}"], "model.path: the model reads 8 numbers a frame"),
        (["model=hf_speech_encoder"], "a 'whisper' checkpoint, which model=hf_speech_encoder does not read"),
        (["dataset.max_source_length=600", "tokenizer=word"], "model.path: a pretrained model needs the tokenizer"),
    ]:
        capsys.readouterr()
        assert train(tmp_path / "run", *line, *words, tiny=False) == 2
        assert said in capsys.readouterr().err


def test_an_export_is_read_by_transformers_and_says_the_same(run: Path) -> None:
    """The same frames give the ids that greedy decoding of the run gives, however long they are there."""
    place = run / "exported"
    assert tokenrl("export", f"ckpt={run / 'whole'}", f"to={place}", f"model.path={run / 'at'}") == 0
    assert "AutoModelForSpeechSeq2Seq" in (place / "README.md").read_text()
    extractor, features = (
        transformers.AutoFeatureExtractor.from_pretrained(place),
        Extracted("", [1.0], 1, 0, "features"),
    )
    network = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(place)
    tokenizer = Pretrained("none", None, False, None, "tokenizer")
    tokenizer.load(run / "whole/checkpoints/last/tokenizer/target")
    features.load(run / "whole/checkpoints/last/tokenizer/source")
    model = HfSpeech(tokenizer, features, str(place), "float32", None, False, NoAdapter())
    sound = 0.1 * np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    frames = torch.tensor(features.frames(Recording("noise", lambda: Waveform(sound, 16_000)))).unsqueeze(0)
    greedy = Decoding(6, 0.0, 0, 1.0, 0.0, [], 1, 0.0)
    mask = torch.ones(frames.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        ours = generate(model, frames, mask, greedy, 1, tokenizer.eos_id, torch.Generator())
        given = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
        theirs = network.generate(given)[0].tolist()
    said = [tokenizer.theirs[i] for i in ours.actions[0][ours.mask[0]].tolist()]
    assert len(set(said)) > 1
    assert said == theirs[theirs[0] == SPECIAL.index("<s>") :]
