"""Models from pretrained checkpoints: the contract of every model, over tiny random ones of many architectures."""

from __future__ import annotations

import copy
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper

from tests.model import contract
from tests.model.contract import LIMIT, ragged, stepwise
from tokenrl_cli.episodes.beam import beam_search
from tokenrl_cli.episodes.sampling import Decoding, generate
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.model import pretrained
from tokenrl_cli.model.adapter import Adapter, NoAdapter
from tokenrl_cli.model.hf_causal import HfCausal
from tokenrl_cli.model.hf_encoder_decoder import HfEncoderDecoder
from tokenrl_cli.model.hf_seq2seq import HfSeq2seq

transformers = pytest.importorskip("transformers")


class Tokens:
    """Seven tokens; EOS is 0. In the checkpoint they are seven of its twenty."""

    eos_id, unknown_id = 0, None

    def __init__(self, theirs: list[int]) -> None:
        self.theirs, self.size = theirs, len(theirs)


TOKENS, SIZE = Tokens([2, 5, 7, 8, 9, 10, 13]), 20
TOKENS_OF = torch.tensor(TOKENS.theirs)
LONE = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
GROUPED = LONE | {"num_key_value_heads": 1}
PAIR = {
    **{"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2},
    **{"decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "init_std": 0.3},
}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "initializer_factor": 1.0}
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {  # name -> class, sizes
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "llama": ("LlamaForCausalLM", GROUPED),
    "qwen2": ("Qwen2ForCausalLM", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", GROUPED | {"head_dim": 8}),
    "mistral": ("MistralForCausalLM", GROUPED | {"sliding_window": 4}),
    "gemma2": ("Gemma2ForCausalLM", GROUPED | {"head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3ForCausalLM", GROUPED | {"head_dim": 8, "sliding_window": 4}),
    "phi3": ("Phi3ForCausalLM", GROUPED),
    "granite": ("GraniteForCausalLM", GROUPED | {"logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    "cohere": ("CohereForCausalLM", GROUPED | {"logit_scale": 0.25}),
    "gpt_neox": ("GPTNeoXForCausalLM", LONE),
    "opt": ("OPTForCausalLM", LONE | {"ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 32}),
    "lfm2": ("Lfm2ForCausalLM", GROUPED | {"layer_types": ["conv", "full_attention"]}),
    "bloom": ("BloomForCausalLM", {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
}
SEQ2SEQ: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", T5),
    "t5_v1_1": (
        "T5ForConditionalGeneration",
        T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "bart": ("BartForConditionalGeneration", PAIR | {"forced_bos_token_id": 1}),
    "mbart": ("MBartForConditionalGeneration", PAIR | {"decoder_start_token_id": 15}),
    "marian": ("MarianMTModel", PAIR | {"decoder_start_token_id": 0}),
    "pegasus": ("PegasusForConditionalGeneration", PAIR | {"decoder_start_token_id": 0}),
    "m2m_100": ("M2M100ForConditionalGeneration", PAIR | {"decoder_start_token_id": 2, "forced_bos_token_id": 16}),
}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertModel", LONE),
    "roberta": ("RobertaModel", LONE),
}
NAMES = [*CAUSAL, *SEQ2SEQ, *ENCODERS, "bert_new"]
SINGLE = ("bloom", "gemma2")  # transformers gives NaN for them in float64
every = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def config_of(model: Any, sizes: dict[str, Any]) -> Any:
    usual = {"vocab_size": SIZE, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 32}
    known = model.config_class
    usual |= {"initializer_range": 0.3, "decoder_start_token_id": 0 if "T5" in model.__name__ else 2} | sizes
    if known.model_type == "gpt2":
        usual.pop("max_position_embeddings")
    if known.model_type in ENCODERS:
        usual.pop("decoder_start_token_id")
    return known(**usual)


def saved(home: Path, name: str) -> Path:
    """The directory of a tiny random checkpoint."""
    place = home / name
    if not place.is_dir():
        kind, sizes = (CAUSAL | SEQ2SEQ | ENCODERS)[name]
        cls = getattr(transformers, kind)
        torch.manual_seed(0)
        model = cls(config_of(cls, sizes))
        for parameter in model.parameters():  # away from symmetric starts
            parameter.data += 0.05 * torch.randn_like(parameter)
        for bias in [value for key, value in model.named_buffers() if key == "final_logits_bias"]:
            bias.copy_(torch.randn_like(bias))
        model.save_pretrained(place)
        named = {key: value for key, value in sizes.items() if key in ("decoder_start_token_id", "forced_bos_token_id")}
        if named:
            (place / "generation_config.json").write_text(json.dumps(named))
    return place


def read(
    path: Path | str,
    name: str,
    tokens: Any = TOKENS,
    recompute: bool = False,
    dtype: Any = "float32",
    adapter: Adapter | None = None,
) -> Any:
    torch.manual_seed(1)
    adapter = adapter or NoAdapter()
    if name in CAUSAL:
        return HfCausal(tokens, tokens, str(path), dtype, None, recompute, adapter)
    if name in SEQ2SEQ:
        return HfSeq2seq(tokens, tokens, str(path), dtype, None, recompute, adapter)
    if name in ENCODERS:
        return HfEncoderDecoder(tokens, tokens, str(path), None, None, dtype, None, recompute, adapter)
    new: Any = {"width": 16, "heads": 2, "feedforward": 24, "layers": 2, "dropout": 0.1}
    return HfEncoderDecoder(tokens, tokens, None, None, new, dtype, None, recompute, adapter)


@cache
def _built(home: Path, name: str) -> Any:
    return read(name if name == "bert_new" else saved(home, name), name)


def built(home: Path, name: str) -> Any:
    """A copy of the model, in evaluation mode."""
    return copy.deepcopy(_built(home, name)).eval()


@pytest.mark.sample(5)
@every
@torch.no_grad()
def test_one_step_at_a_time_is_the_teacher_forced_pass(home: Path, name: str) -> None:
    model = built(home, name)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        if dtype == torch.float64 and (name in SINGLE or name not in ("gpt2", "opt", *SEQ2SEQ, "bert")):
            continue
        whole = contract.check_steps(model.to(dtype), tolerance)
        assert torch.equal(model.project(whole.hidden[:, 2:4]), whole.logits[:, 2:4])
        assert whole.logits.std() > 0.05, "differences of such a model would not show"


@pytest.mark.sample(8)
@every
def test_a_row_alone_says_what_it_says_in_a_ragged_batch(home: Path, name: str) -> None:
    contract.check_company(built(home, name))


@every
@torch.no_grad()
def test_padding_and_later_actions_change_nothing_but_the_source_does(home: Path, name: str) -> None:
    model = built(home, name)
    source, mask, actions, _ = ragged()
    before = model(source, mask, actions).logits
    junk = torch.where(mask, source, (source + 3) % 7)
    assert torch.equal(model(junk, mask, actions).logits, before)
    contract.check_order(model, (1, 4))
    assert not torch.allclose(model((source + 1) % 7, mask, actions).logits, before, atol=1e-4)


@every
def test_repeating_and_reordering_a_state_is_repeating_and_reordering_its_rows(home: Path, name: str) -> None:
    contract.check_states(built(home, name))


@every
def test_rows_that_share_a_source_say_and_learn_the_same_as_with_a_copy_each(home: Path, name: str) -> None:
    model, (source, mask, actions, _) = built(home, name), ragged()
    model = model if name in SINGLE else model.double()  # some architectures compute norms in float32 all the same
    tolerance = 1e-5
    row = torch.tensor([2, 0, 0, 3, 2, 2])
    actions = torch.cat([actions, (actions[:2] + 1) % 7])

    def learned(*given: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        output = model(*given)
        output.logits.log_softmax(-1).square().mean().backward()
        return output.logits, {key: value.grad.clone() for key, value in model.named_parameters()}

    logits, gradients = learned(source, mask, actions, row)
    wanted = learned(source[row], mask[row], actions)
    assert (logits - wanted[0]).abs().max() < tolerance
    for key, gradient in gradients.items():
        assert (gradient - wanted[1][key]).abs().max() < tolerance * max(1, gradient.abs().max()), key


@pytest.mark.sample(8)
@every
def test_an_empty_source_says_the_same_in_any_company_and_half_precision_is_finite(home: Path, name: str) -> None:
    contract.check_empty_source(built(home, name))


@pytest.mark.sample(6)
@every
def test_one_beam_is_greedy_and_more_beams_and_samples_run(home: Path, name: str) -> None:
    model = built(home, name)
    source, mask, _, _ = ragged()
    contract.check_beam(model)
    drawing = Decoding(LIMIT, 1.0, 0, 1.0, 0.0, [], 1, 0.0)
    several = generate(model, source, mask, drawing, 3, 0, torch.Generator().manual_seed(0))
    rows = torch.arange(4).repeat_interleave(3)
    scored = model(source, mask, several.actions, rows).logits.log_softmax(-1)
    scored = scored.gather(-1, several.actions.unsqueeze(-1)).squeeze(-1)
    assert ((scored - several.logprobs).abs() * several.mask).max() < 1e-5


@every
def test_every_parameter_learns_and_padding_teaches_nothing(home: Path, name: str) -> None:
    contract.check_gradients(built(home, name), 1e-4)


@every
def test_weights_are_saved_once_and_restored(home: Path, name: str) -> None:
    model = built(home, name)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data.zero_()
    state = model.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    assert all(value.is_floating_point() for value in state.values())
    other.load_state_dict(load(save(state)))
    source, mask, actions, _ = ragged()
    assert torch.equal(model(source, mask, actions).logits, other(source, mask, actions).logits)
    names = {id(value) for value in other.state_dict(keep_vars=True).values()}
    assert {id(value) for value in other.parameters()} <= names, "tied weights are still tied"


def test_without_gradients_no_layer_is_prepared_to_be_recomputed(home: Path) -> None:
    model, (source, mask, actions, _) = read(saved(home, "gpt2"), "gpt2", recompute=True), ragged()
    layers = [each for each in model.modules() if isinstance(each, CheckpointWrapper)]
    for layer in layers:
        layer.checkpoint_fn = None  # a call would fail
    with torch.no_grad():
        model(source, mask, actions)
    assert len(layers) == 2
    with pytest.raises(TypeError, match="not callable"):
        model(source, mask, actions)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "t5", "bart", "bert"])
def test_recomputing_activations_changes_no_gradient_and_keeps_fewer_tensors(home: Path, name: str) -> None:
    model, (source, mask, actions, _) = built(home, name), ragged()
    lean = copy.deepcopy(read(saved(home, name), name, recompute=True)).eval()
    assert set(lean.state_dict()) == set(model.state_dict())
    lean.load_state_dict(model.state_dict())
    row, kept = torch.tensor([2, 0, 0, 3]), []

    def learned(model: Any) -> list[Tensor]:
        count = [0]
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: (count.__setitem__(0, count[0] + 1), x)[1], lambda x: x
        ):
            loss = model(source, mask, actions, row).logits.log_softmax(-1).square().mean()
        loss.backward()
        kept.append(count[0])
        return [value.grad for value in model.parameters()]

    for one, other in zip(learned(model), learned(lean), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert kept[1] < kept[0] / 2
    assert torch.allclose(stepwise(lean, source, mask, actions), stepwise(model, source, mask, actions), atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "t5", "bert_new"])
def test_dropout_acts_in_training_mode_alone(home: Path, name: str) -> None:
    model, (source, mask, actions, _) = built(home, name), ragged()
    assert torch.equal(model(source, mask, actions).logits, model(source, mask, actions).logits)
    model.train()
    assert not torch.equal(model(source, mask, actions).logits, model(source, mask, actions).logits)


GENERATED = ["gpt2", "llama", "qwen3", "gemma2", "t5", "bart", "marian", "m2m_100"]


@pytest.mark.parametrize("name", GENERATED)
@torch.no_grad()
def test_greedy_and_beam_decoding_are_those_of_transformers(home: Path, name: str) -> None:
    """Both are barred from what our tokenizer cannot say, and beams from EOS: of hypotheses that are cut at the limit
    transformers drops all where one has ended. Without a length penalty, scores are sums."""
    model = built(home, name)
    own = model.network
    source, mask, _, _ = ragged()
    given = _inputs(model, source, mask)
    if name not in CAUSAL:
        own.generation_config.forced_bos_token_id = None  # it is in the prompt
        given["decoder_input_ids"] = torch.tensor([model.begin] * len(source))
    barred = [each for each in range(SIZE) if each not in TOKENS.theirs]
    begin = 0 if name in CAUSAL else len(model.begin)
    for beams in (1, 3):
        decoding = Decoding(LIMIT, 0.0, 0, 1.0, 0.0, [0] * (beams > 1), beams, 0.0)
        forbidden = [*barred, *[2] * (beams > 1)]
        ours = beam_search(model, source, mask, decoding, 0) if beams > 1 else None
        ours = ours or generate(model, source, mask, decoding, 1, 0, torch.Generator())
        theirs = own.generate(
            **given,
            generation_config=transformers.GenerationConfig(
                max_new_tokens=LIMIT,
                num_beams=beams,
                do_sample=False,
                length_penalty=0.0,
                early_stopping="never" if beams > 1 else False,
                suppress_tokens=forbidden,
                renormalize_logits=True,
                decoder_start_token_id=model.begin[0] if begin else None,
                pad_token_id=0,
                eos_token_id=2,
            ),
        )
        said = theirs[:, given["input_ids"].shape[1] if name in CAUSAL else begin :]
        for row in range(4):
            length = int(ours.mask[row].sum())
            wanted = [TOKENS.theirs[i] for i in ours.actions[row, :length].tolist()]
            assert said[row, :length].tolist() == wanted, (beams, row)
            assert set(said[row, length:].tolist()) <= {0}


def _inputs(model: Any, source: Tensor, mask: Tensor) -> dict[str, Tensor]:
    ids, seen = model._prompt(source, mask) if isinstance(model, HfCausal) else model._source(source, mask)
    return {"input_ids": ids, "attention_mask": seen.long()}


def test_rows_are_framed_and_padded_on_either_side() -> None:
    ids = torch.tensor([[5, 6, 9], [7, 9, 9], [9, 9, 9]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    framed, seen = pretrained.framed(ids, mask, [1], [2, 3], 0, "right")
    assert framed.tolist() == [[1, 5, 6, 2, 3, 0], [1, 7, 2, 3, 0, 0], [1, 2, 3, 0, 0, 0]]
    assert torch.equal(seen, framed > 0)
    framed, seen = pretrained.framed(ids, mask, [1], [], 0, "left")
    assert framed.tolist() == [[0, 1, 5, 6], [0, 0, 1, 7], [0, 0, 0, 1]]
    assert torch.equal(seen, framed > 0)
    framed, seen = pretrained.framed(ids, mask, [], [], 4, "left")
    assert framed.tolist() == [[4, 5, 6], [4, 4, 7], [4, 4, 4]]
    assert seen.tolist() == [[False, True, True], [False, False, True], [False, False, True]]


@torch.no_grad()
def test_what_the_checkpoints_tokenizer_puts_around_a_text_is_around_every_source(home: Path, tmp_path: Path) -> None:
    """A tokenizer that is shared with the targets cannot write it; a source tokenizer of its own does."""
    place, source, mask, actions = tmp_path / "t5", *ragged()[:3]
    shutil.copytree(saved(home, "t5"), place)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"</s>": 2, "a": 3, "?": 4}, unk_token="?"))
    end = [("</s>", 2)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    tokenizer.save(str(place / "tokenizer.json"))
    shared, own = (
        read(place, "t5"),
        HfSeq2seq(TOKENS, Tokens(TOKENS.theirs), str(place), "float32", None, False, NoAdapter()),
    )
    ended = torch.where(mask, source, 0)  # our id 0 is </s>
    ended, longer = torch.cat([ended, ended[:, :1] * 0], 1), torch.cat([mask[:, :1], mask], 1)
    wanted = own(ended, longer, actions).logits
    assert torch.allclose(shared(source, mask, actions).logits, wanted, atol=1e-5)
    assert not torch.allclose(own(source, mask, actions).logits, wanted, atol=1e-4)


@torch.no_grad()
def test_a_pair_may_be_of_two_checkpoints_and_is_read_again_as_one(home: Path, tmp_path: Path) -> None:
    paths = str(saved(home, "bert")), str(saved(home, "gpt2"))
    torch.manual_seed(0)
    model = HfEncoderDecoder(TOKENS, TOKENS, *paths, None, "float32", [1], False, NoAdapter()).eval()
    source, mask, actions, _ = ragged()
    model.network.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"decoder_start_token_id": 1}')
    again = HfEncoderDecoder(TOKENS, TOKENS, str(tmp_path), None, None, "float32", None, False, NoAdapter()).eval()
    assert torch.equal(again(source, mask, actions).logits, model(source, mask, actions).logits)


@torch.no_grad()
def test_a_gguf_file_is_read(tmp_path: Path) -> None:
    """A Llama, written tensor by tensor."""
    gguf = pytest.importorskip("gguf")
    sizes = GROUPED | {"num_key_value_heads": 2, "max_position_embeddings": 32}
    torch.manual_seed(0)
    cls = transformers.LlamaForCausalLM
    own = cls(config_of(cls, sizes)).eval()
    writer = gguf.GGUFWriter(str(tmp_path / "tiny.gguf"), "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(16)
    writer.add_block_count(2)
    writer.add_feed_forward_length(24)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(SIZE)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for key, value in own.state_dict().items():
        if "q_proj" in key or "k_proj" in key:  # GGUF holds the halves of rotary pairs interleaved
            value = value.view(2, 2, 4, 16).transpose(1, 2).reshape(16, 16)
        stem, _, end = key.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{end}", value.numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = HfCausal(TOKENS, TOKENS, str(tmp_path), "float32", [], False, NoAdapter()).eval()
    source = torch.tensor([[1, 2, 3]])
    wanted = own(TOKENS_OF[source]).logits[:, -1:][..., TOKENS.theirs]
    assert torch.allclose(model(source, source > 0, source[:, :1]).logits, wanted, atol=1e-4)


def test_on_the_meta_device_the_config_alone_is_read(home: Path, tmp_path: Path) -> None:
    for name in ("gpt2", "t5", "bert"):
        place = tmp_path / name
        place.mkdir()
        (place / "config.json").write_bytes((saved(home, name) / "config.json").read_bytes())
        with torch.device("meta"):
            model = read(place, name)
        assert {value.device.type for value in model.parameters()} == {"meta"}
        wanted = {key: value.shape for key, value in built(home, name).named_parameters()}
        assert {key: value.shape for key, value in model.named_parameters()} == wanted


def test_weights_can_be_bfloat16(home: Path) -> None:
    for name in ("gpt2", "t5", "bert_new"):
        model = read("" if name == "bert_new" else saved(home, name), name, dtype="bfloat16")
        assert {value.dtype for value in model.parameters()} == {torch.bfloat16}


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("given", "to", "use"),
    [("t5", "gpt2", "hf_seq2seq"), ("bart", "gpt2", "hf_seq2seq"), ("bert", "gpt2", "hf_encoder_decoder"),
     ("gpt2", "t5", "hf_causal"), ("bert", "t5", "hf_encoder_decoder"), ("llama", "bert", "hf_causal"),
     ("t5", "bert", "hf_seq2seq")],
)  # fmt: skip
def test_a_checkpoint_of_another_kind_is_refused_with_the_model_that_reads_it(
    home: Path, given: str, to: str, use: str
) -> None:
    with pytest.raises(UserError, match=rf"^path: .* checkpoint, which model=hf_\w+ does not read\n  use model={use}$"):
        read(saved(home, given), to)


def test_an_encoder_without_a_decoder_is_refused(tmp_path: Path) -> None:
    sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    cls = transformers.DistilBertModel
    cls(config_of(cls, sizes)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no decoder of the architecture 'distilbert'"):
        read(tmp_path, "bert")


def test_an_architecture_that_generates_nothing_is_refused(tmp_path: Path) -> None:
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="it is no model that generates text"):
        read(tmp_path, "gpt2")


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("MambaForCausalLM", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
        ("RwkvForCausalLM", {"hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16}),
    ],
)
def test_an_architecture_that_cannot_keep_the_contract_is_refused_by_name(
    tmp_path: Path, kind: str, sizes: dict[str, Any]
) -> None:
    cls = getattr(transformers, kind)
    torch.manual_seed(0)
    cls(config_of(cls, sizes)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"^path: {kind} cannot be (used|run)") as refused:
        read(tmp_path, "gpt2")
    assert "GPT-2, Llama, Qwen, T5, BART, Marian and BERT can be used" in str(refused.value)


def test_a_head_that_is_not_the_models_own_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained.Scaling, "of", classmethod(lambda cls, config: cls(1.0, 1.0, None)))
    for name in ("granite", "gemma2", "t5"):
        with pytest.raises(UserError, match=r"differ from those of its own forward pass, by .* standard deviations"):
            read(saved(home, name), name)


def test_logits_of_another_width_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = HfCausal._own_logits
    monkeypatch.setattr(HfCausal, "_own_logits", lambda *inputs: right(*inputs)[..., :-1])
    with pytest.raises(UserError, match=r"^path: GPT2LMHeadModel cannot be used: \[2, 3, \d+\] logits of its own"):
        read(saved(home, "gpt2"), "gpt2")


def test_a_tokenizer_that_is_not_the_checkpoints_is_refused(home: Path) -> None:
    with pytest.raises(UserError, match=r"the model has 20 tokens, and source_tokenizer has the id 20: they differ"):
        read(saved(home, "gpt2"), "gpt2", Tokens([2, 20]))

    class Own:
        size, eos_id, unknown_id = 7, 0, None

    for name in ("gpt2", "t5", "bert"):
        with pytest.raises(UserError, match=r"use source_tokenizer=pretrained"):
            read(saved(home, name), name, Own())


def test_a_source_that_is_longer_than_the_checkpoints_positions_is_refused(home: Path) -> None:
    for name, key in (("gpt2", "dataset.max_source_length"), ("bart", "dataset.max_source_length")):
        source = torch.ones(1, 33, dtype=torch.int64)
        with pytest.raises(UserError, match=rf"^{key}: .*33 tokens.* 32 positions"):
            built(home, name)(source, source > 0, source[:, :1])
    long = torch.ones(1, 40, dtype=torch.int64)
    with pytest.raises(UserError, match=r"^decode.max_length: .* 32 positions"):
        built(home, "bart")(long[:, :4], long[:, :4] > 0, long)


def test_begin_tokens_are_the_checkpoints_or_those_of_the_setting(home: Path) -> None:
    assert built(home, "bart").begin == [2, 1]
    assert built(home, "mbart").begin == [15]
    assert built(home, "m2m_100").begin == [2, 16]
    assert built(home, "t5").begin == [0]
    assert built(home, "bert").begin == [1]
    assert HfSeq2seq(TOKENS, TOKENS, str(saved(home, "mbart")), "float32", [2, 17], False, NoAdapter()).begin == [2, 17]
    with pytest.raises(UserError, match=r"^begin: holds 20, and the last id of the checkpoint is 19"):
        HfSeq2seq(TOKENS, TOKENS, str(saved(home, "mbart")), "float32", [20], False, NoAdapter())


def test_begin_tokens_can_be_named(home: Path, tmp_path: Path) -> None:
    place, words = tmp_path / "mbart", {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "a", "?"])}
    engine = tokenizers.models.WordLevel(words, unk_token="?")
    shutil.copytree(saved(home, "mbart"), place)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(engine), eos_token="</s>", extra_special_tokens=["ro_RO"]
    ).save_pretrained(place)

    def begun(*begin: int | str) -> list[int]:
        model = HfSeq2seq(TOKENS, TOKENS, str(place), "float32", list(begin), False, NoAdapter())
        return list(model.begin)

    assert begun("</s>", "ro_RO") == begun(2, 5) == [2, 5]
    assert begun(2, "a") == [2, 3]
    with pytest.raises(UserError, match=r"^begin: holds 'ro_RU', which is no token of .* \(did you mean 'ro_RO'"):
        begun("ro_RU")
    causal = tmp_path / "gpt2"
    shutil.copytree(saved(home, "gpt2"), causal)
    shutil.copy(place / "tokenizer.json", causal)
    assert HfCausal(TOKENS, TOKENS, str(causal), "float32", ["ro_RO"], False, NoAdapter()).begin == [5]
