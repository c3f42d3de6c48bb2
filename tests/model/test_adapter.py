"""LoRA on pretrained models: what learns, what is saved, and copies that share the weights of the checkpoint."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save, save_file
from torch import Tensor

from tests.model.contract import ragged, stepwise
from tests.model.test_pretrained import home as home
from tests.model.test_pretrained import read, saved
from tokenrl_cli.algorithm.networks import frozen_copy, move
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.model.adapter import Adapter, Lora
from tokenrl_cli.model.adapter import save as save_adapter

peft = pytest.importorskip("peft")

NAMES = ["gpt2", "llama", "t5", "bart", "bert"]
every = pytest.mark.parametrize("name", NAMES)


def lora(**changes: Any) -> Adapter:
    given: dict[str, Any] = {"r": 2, "alpha": 4.0, "dropout": 0.0, "targets": "all-linear", "path": None}
    return Lora(**given | changes)


def adapted(home: Path, name: str, **changes: Any) -> Any:
    """A tiny checkpoint with LoRA whose B is not 0, as after some training."""
    model = read(saved(home, name), name, adapter=lora(**changes))
    draws = torch.Generator().manual_seed(2)
    for key, value in model.named_parameters():
        if "lora_B" in key:
            value.data = 0.3 * torch.randn(value.shape, generator=draws)
    return model


def logits(model: Any) -> Tensor:
    source, mask, actions, _ = ragged()
    with torch.no_grad():
        found: Tensor = model(source, mask, actions).logits
    return found


def places(*models: Any) -> int:
    """The bytes of all parameters of several models, shared memory once."""
    sizes = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for m in models for each in m.parameters()
    }
    return sum(sizes.values())


@pytest.mark.sample(2)
@every
def test_only_the_adapter_learns_and_what_the_checkpoint_lacks(home: Path, name: str) -> None:
    model = read(saved(home, name), name, adapter=lora())
    assert torch.equal(logits(model), logits(read(saved(home, name), name))), "B is 0 at the start"
    assert not torch.equal(logits(adapted(home, name)), logits(model))
    learning = {key for key, value in model.named_parameters() if value.requires_grad}
    new = {key for key in learning if "lora_" not in key}
    assert learning - new
    if name == "bert":
        assert all("crossattention" in key or ".cls." in key for key in new)
        assert any("crossattention" in key for key in new)
        assert not any("lora_" in key for key in learning if "crossattention" in key)
    else:
        assert not new
    source, mask, actions, _ = ragged()
    adapted(home, name)(source, mask, actions).logits.log_softmax(-1).square().mean().backward()


@every
def test_steps_are_the_teacher_forced_pass_under_an_adapter(home: Path, name: str) -> None:
    model, (source, mask, actions, _) = adapted(home, name), ragged()
    with torch.no_grad():
        assert (logits(model) - stepwise(model, source, mask, actions)).abs().max() < 1e-5


@pytest.mark.sample(4)
@pytest.mark.parametrize("recompute", [False, True])
@every
def test_the_state_holds_what_learns_and_the_checkpoint_gives_the_rest(home: Path, name: str, recompute: bool) -> None:
    model = adapted(home, name)
    model.recompute = recompute
    state = model.state_dict()
    kept = {id(value) for value in model.state_dict(keep_vars=True).values()}
    assert {id(each) for each in model.parameters() if each.requires_grad} <= kept
    assert not {id(each) for each in model.parameters() if not each.requires_grad} & kept
    torch.manual_seed(5)
    other = read(saved(home, name), name, recompute=recompute, adapter=lora())
    for each in other.parameters():
        if each.requires_grad:
            each.data.zero_()
    other.load_state_dict(load(save(state)))
    assert torch.equal(logits(other), logits(model))
    whole = copy.deepcopy(model)
    for each in whole.parameters():
        each.data.zero_()
    assert not torch.equal(logits(whole), logits(model))


@every
def test_a_frozen_copy_is_the_policy_and_shares_the_checkpoint(home: Path, name: str) -> None:
    model = adapted(home, name)
    kept = frozen_copy(model)
    before = logits(model)
    assert torch.equal(logits(kept), before)
    small = sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)
    assert places(model, kept) == places(model) + small
    assert not any(each.requires_grad for each in kept.parameters())
    for each in model.parameters():
        if each.requires_grad:
            each.data += 0.1
    after = logits(model)
    assert not torch.equal(after, before)
    assert torch.equal(logits(kept), before), "the policy moves, and the reference stays"
    half = frozen_copy(kept)
    move(kept, model, 0.0)
    assert torch.equal(logits(kept), before)
    move(kept, model, 1.0)
    assert torch.equal(logits(kept), after)
    assert torch.equal(logits(half), after), "a copy of what learns no more shares all of it"


def test_a_moving_copy_goes_as_far_as_one_that_shares_nothing(home: Path) -> None:
    model = adapted(home, "gpt2")
    shared, alone = frozen_copy(model), copy.deepcopy(model).requires_grad_(False)
    for each in model.parameters():
        if each.requires_grad:
            each.data *= 1.5
    for kept in (shared, alone):
        move(kept, model, 0.25)
    for ours, theirs in zip(shared.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_adapters_of_half_precision_are_float32(home: Path) -> None:
    model = read(saved(home, "llama"), "llama", dtype="bfloat16", adapter=lora())
    assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
    assert {value.dtype for value in model.parameters() if not value.requires_grad} == {torch.bfloat16}
    assert logits(model).isfinite().all()


def test_what_was_learned_beside_an_adapter_is_not_left_out_of_a_file(home: Path, tmp_path: Path) -> None:
    model = adapted(home, "bert")
    learned = {name.removeprefix("network."): value for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"^adapter=true: .* the checkpoint lacks, such as decoder\."):
        save_adapter(model.network, learned, tmp_path, None, "SEQ_2_SEQ_LM")
    assert not list(tmp_path.iterdir())


def test_on_the_meta_device_the_same_learns(home: Path) -> None:
    for name in NAMES[:-1]:
        with torch.device("meta"):
            model = read(saved(home, name), name, adapter=lora())
        assert {value.device.type for value in model.parameters()} == {"meta"}
        wanted = {key: value.requires_grad for key, value in adapted(home, name).named_parameters()}
        assert {key: value.requires_grad for key, value in model.named_parameters()} == wanted


def test_dropout_of_the_adapter_acts_in_training_mode_alone(home: Path) -> None:
    model = adapted(home, "llama", dropout=0.5)
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))


def test_targets_name_layers(home: Path) -> None:
    model = adapted(home, "llama", targets=["q_proj", "v_proj"])
    assert {key.split(".")[-4] for key, value in model.named_parameters() if value.requires_grad} == {
        "q_proj", "v_proj"
    }  # fmt: skip
    with pytest.raises(UserError, match=r"^adapter.targets: does not fit the network: (.|\n)*it has .*k_proj.*q_proj"):
        adapted(home, "llama", targets=["query"])


def test_a_new_model_has_nothing_to_adapt() -> None:
    from tests.model.test_pretrained import TOKENS
    from tokenrl_cli.model.hf_encoder_decoder import HfEncoderDecoder

    new: Any = {"width": 16, "heads": 2, "feedforward": 24, "layers": 2, "dropout": 0.1}
    with pytest.raises(UserError, match="path: is null: an adapter needs a checkpoint"):
        HfEncoderDecoder(TOKENS, TOKENS, None, None, new, "float32", None, False, lora())  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- a saved adapter


old_names = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers


def of_peft(home: Path, place: Path) -> Any:
    """An adapter that peft trained and saved, and its network."""
    import transformers

    network = transformers.AutoModelForCausalLM.from_pretrained(saved(home, "llama"))
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    torch.manual_seed(3)
    network = peft.get_peft_model(network, config)
    network.save_pretrained(place)
    return network


@old_names
def test_a_saved_adapter_is_read(home: Path, tmp_path: Path) -> None:
    network = of_peft(home, tmp_path)
    model = read(saved(home, "llama"), "llama", adapter=lora(path=str(tmp_path)))
    ids = torch.arange(8).view(2, 4)
    with torch.no_grad():
        assert torch.equal(model.network(ids).logits, network(ids).logits)
    assert set(model.bases) == {"path", "adapter.path"}


@old_names
def test_an_adapter_that_cannot_be_used_is_refused(home: Path, tmp_path: Path) -> None:
    def refused(message: str, name: str = "llama") -> None:
        with pytest.raises(UserError, match=message):
            read(saved(home, name), name, adapter=lora(path=str(tmp_path)))

    refused("^adapter.path: .* has no adapter_config.json")
    of_peft(home, tmp_path)
    refused("^adapter.path: does not fit the network", "gpt2")
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    plain = json.loads(config.read_text())
    config.write_text(json.dumps(plain | {"r": 4}))
    refused(r"^adapter.path: the weights in .* do not fit: size mismatch")
    config.write_text(json.dumps(plain | {"target_modules": ["q_proj", "v_proj"]}))
    refused(r"^adapter.path: the weights in .* are of another network: .*v_proj.* is not in both")
    config.write_text(json.dumps(plain | {"peft_type": "IA3"}))
    refused("^adapter.path: .* kind IA3, and must be LORA")
    config.write_text(json.dumps(plain | {"modules_to_save": ["lm_head"]}))
    refused(r"^adapter.path: .* replaces whole modules \(lm_head\)")
    config.write_text(json.dumps(plain))
    weights.write_bytes(weights.read_bytes()[:50])
    refused("^adapter.path: the weights in")
    save_file({}, weights)
    refused("^adapter.path: the weights in .* are of another network")
    weights.unlink()
    refused("^adapter.path: .* has no adapter_model.safetensors; pickled weights are not read")
