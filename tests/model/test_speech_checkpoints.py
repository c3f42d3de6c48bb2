"""Whisper, and wav2vec2 and HuBERT with our decoder: the contract of every model, over tiny random checkpoints."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.model import contract
from tests.model.contract import ragged
from tokenrl_cli.episodes.sampling import Decoding, generate
from tokenrl_cli.model.adapter import Adapter, NoAdapter
from tokenrl_cli.model.hf_speech import HfSpeech, HfSpeechEncoder, whisper_begin
from tokenrl_cli.model.pretrained import require_contract

transformers = pytest.importorskip("transformers")


class Tokens:
    """Seven tokens; EOS is 0. In the checkpoint they are seven of its twenty."""

    eos_id, unknown_id = 0, None
    theirs = (2, 5, 7, 8, 9, 10, 13)
    size = len(theirs)


TOKENS: Any = Tokens()
MELS: Any = SimpleNamespace(width=4, extractor="WhisperFeatureExtractor")
WAVES: Any = SimpleNamespace(width=1, extractor="Wav2Vec2FeatureExtractor")
WHISPER = {
    **{"vocab_size": 20, "num_mel_bins": 4, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24},
    **{"max_source_positions": 12, "max_target_positions": 16, "init_std": 0.3, "pad_token_id": 0},
    **{"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3, "begin_suppress_tokens": None},
}
WAVE = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    **{"conv_dim": (8, 8), "conv_kernel": (4, 3), "conv_stride": (2, 2), "num_feat_extract_layers": 2},
    **{"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "initializer_range": 0.3, "layerdrop": 0.0},
}
LAYER = WAVE | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "whisper": ("WhisperForConditionalGeneration", WHISPER),
    "wav2vec2": ("Wav2Vec2Model", WAVE),
    "wav2vec2_layer": ("Wav2Vec2Model", LAYER),
    "hubert": ("HubertModel", WAVE),
    "hubert_layer": ("HubertModel", LAYER),
}
every = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speech_checkpoints")


def saved(home: Path, name: str) -> Path:
    """The directory of a tiny random checkpoint."""
    place = home / name
    if not place.is_dir():
        kind, sizes = KINDS[name]
        cls = getattr(transformers, kind)
        torch.manual_seed(0)
        model = cls(cls.config_class(**sizes))
        for parameter in model.parameters():  # away from symmetric starts
            parameter.data += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(place)
    return place


def read(
    place: Path, name: str, adapter: Adapter | None = None, recompute: bool = False, dtype: Any = "float32"
) -> Any:
    torch.manual_seed(1)
    adapter = adapter or NoAdapter()
    if name == "whisper":
        return HfSpeech(TOKENS, MELS, str(place), dtype, None, recompute, adapter)
    sizes: Any = ("lstm", 12, 16, 1, 0.0, True)
    return HfSpeechEncoder(TOKENS, WAVES, str(place), dtype, recompute, adapter, *sizes)


class Heard(nn.Module):
    """The model, given token ids: each is `times` frames of its own, so that it keeps the contract of all models."""

    def __init__(self, model: Any, frame: int, times: int) -> None:
        super().__init__()
        self.model, self.width, self.times = model, model.width, times
        table = torch.randn(7, times, frame, generator=torch.Generator().manual_seed(4))
        self.register_buffer("table", table)

    def frames(self, source: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.table[source].flatten(1, 2)
        return frames, mask.repeat_interleave(self.times, 1)

    def forward(self, source: Tensor, mask: Tensor, actions: Tensor, source_row: Tensor | None = None) -> Any:
        return self.model(*self.frames(source, mask), actions, source_row)

    def start(self, source: Tensor, mask: Tensor) -> Any:
        return self.model.start(*self.frames(source, mask))

    def step(self, state: Any, previous: Tensor | None) -> Any:
        return self.model.step(state, previous)


@cache
def built(home: Path, name: str) -> Any:
    model = read(saved(home, name), name)
    return Heard(model, 4, 5).eval() if name == "whisper" else Heard(model, 1, 15).eval()


@every
def test_one_step_at_a_time_is_the_teacher_forced_pass(home: Path, name: str) -> None:
    contract.check_steps(built(home, name), 1e-4)


@every
def test_a_row_alone_says_what_it_says_in_a_ragged_batch_with_junk_in_its_padding(home: Path, name: str) -> None:
    contract.check_company(built(home, name))


@every
def test_no_output_depends_on_its_own_or_a_later_action(home: Path, name: str) -> None:
    contract.check_order(built(home, name), (0, 3, 5))


@every
def test_repeating_and_reordering_a_state_is_repeating_and_reordering_its_rows(home: Path, name: str) -> None:
    contract.check_states(built(home, name))


@every
def test_an_empty_source_says_the_same_in_any_company_and_half_precision_is_finite(home: Path, name: str) -> None:
    contract.check_empty_source(built(home, name))


@every
def test_a_beam_of_one_is_greedy_decoding(home: Path, name: str) -> None:
    contract.check_beam(built(home, name))


@every
def test_rows_that_share_a_source_say_the_same_as_with_a_copy_each(home: Path, name: str) -> None:
    model, (source, mask, actions, _) = built(home, name), ragged()
    row = torch.tensor([2, 0, 0, 3])
    with torch.no_grad():
        apart = model(source[row], mask[row], actions).logits
        assert torch.allclose(model(source, mask, actions, row).logits, apart, atol=1e-5)


@every
@pytest.mark.parametrize("recompute", [False, True])
def test_every_parameter_that_may_learn_does_and_padding_teaches_nothing(
    home: Path, name: str, recompute: bool
) -> None:
    model = read(saved(home, name), name, recompute=recompute)
    source, mask, actions, response = ragged()
    heard = Heard(model, 4, 5) if name == "whisper" else Heard(model, 1, 15)

    def gradients(junk: int) -> dict[str, Tensor]:
        model.zero_grad()
        given = (
            torch.where(mask, source, (source + junk) % 7),
            mask,
            torch.where(response, actions, (actions + junk) % 7),
        )
        nll = -heard(*given).logits.log_softmax(-1).gather(-1, given[2].unsqueeze(-1)).squeeze(-1)
        nll[response].sum().backward()
        return {key: value.grad.clone() for key, value in model.named_parameters() if value.requires_grad}

    wanted = gradients(0)
    assert len(wanted) >= len(list(model.parameters())) - 1
    for key, value in gradients(1).items():
        assert value.isfinite().all(), key
        assert torch.allclose(value, wanted[key], atol=1e-4), key


@torch.no_grad()
def test_greedy_ids_of_whisper_are_those_of_transformers(home: Path) -> None:
    """Of frames as long as the encoder reads, with the ids that cannot be said suppressed."""
    model = read(saved(home, "whisper"), "whisper")
    frames = torch.randn(4, 24, 4, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(4, 24, dtype=torch.bool)
    ours = generate(model, frames, mask, Decoding(8, 0.0, 0, 1.0, 0.0, [], 1, 0.0), 1, 0, torch.Generator())
    settings = transformers.GenerationConfig(
        decoder_start_token_id=3, pad_token_id=0, eos_token_id=2, max_new_tokens=8, do_sample=False,
        suppress_tokens=[i for i in range(20) if i not in Tokens.theirs], is_multilingual=False,
    )  # fmt: skip
    theirs = model.network.generate(frames.transpose(1, 2), generation_config=settings)
    rows = zip(ours.actions, ours.mask, strict=True)
    said = [[Tokens.theirs[i] for i in row[real].tolist()] for row, real in rows]
    assert len({tuple(row) for row in said}) > 1
    for row, other in zip(said, theirs.tolist(), strict=True):
        other = other[1:] if other[0] == 3 else other
        assert row == (other[: other.index(2) + 1] if 2 in other else other)


def test_the_logits_of_whisper_are_those_of_its_own_forward_pass(home: Path) -> None:
    model = read(saved(home, "whisper"), "whisper")
    source, mask, _, _ = ragged()
    require_contract(model, model._own_logits, Heard(model, 4, 5).frames(source[:2], mask[:2]))


def test_begin_of_a_whisper(home: Path, tmp_path: Path) -> None:
    assert whisper_begin(saved(home, "whisper"), None, 20) == [3]
    assert whisper_begin(saved(home, "whisper"), [3, 4], 20) == [3, 4]
