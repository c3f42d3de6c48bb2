"""Runs that train an adapter: what is saved, resuming to the bit, and the pretrained model that is needed again."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tokenrl_cli
from tests.running import QUICK, TINY, lines, tokenrl, train, weights
from tokenrl_cli import hub
from tokenrl_cli.interfaces import UserError

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

LORA = [each for each in [*TINY, *QUICK] if not each.startswith("model")]
LORA += ["model=hf_causal", "model/adapter=lora", "model.adapter.r=2", "tokenizer=pretrained", "trainer.steps=3"]
LORA += ["warm_start.optimizer.lr=0.02", "algorithm.optimizer.lr=0.02"]
ALGORITHMS = {
    "rloo": ["algorithm=rloo", "algorithm.kl_loss_coef=0.1", "algorithm.kl_coef=0.1", "model.adapter.dropout=0.2"],
    "ppo": ["algorithm=ppo", "algorithm.kl_loss_coef=0.1", "algorithm/reference=moving_average"],
    "soft_q": ["algorithm=soft_q"],
    "ilql": ["algorithm=ilql"],
}


def pretrained(place: Path, seed: int = 0) -> Path:
    """A tiny random causal checkpoint that knows the numbers 0 to 4, with its tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["</s>", "<unk>", *"01234"])}, "<unk>"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.decoder = decoders.WordPiece()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=engine, eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(place)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=7, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, bos_token_id=0, eos_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained(tmp_path_factory.mktemp("pretrained") / "tiny")


def words(base: Path, name: str) -> list[str]:
    return [*LORA, f"model.path={base}", f"tokenizer.path={base}", *ALGORITHMS[name]]


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """name of an algorithm -> a finished run of it."""
    home, found = tmp_path_factory.mktemp("runs"), {}

    def run(name: str) -> Path:
        if name not in found:
            found[name] = home / name
            assert train(found[name], *words(base, name), tiny=False) == 0
        return found[name]

    return run


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "name", [each if each in ("rloo", "ilql") else pytest.param(each, marks=pytest.mark.slow) for each in ALGORITHMS]
)
def test_a_stopped_run_resumes_to_the_same_bits(base: Path, runs: Any, tmp_path: Path, name: str) -> None:
    stopped = tmp_path / "stopped"
    assert train(stopped, *words(base, name), "trainer.steps=1", tiny=False) == 0
    assert tokenrl("train", f"resume={stopped}", "trainer.steps=3", f"model.path={base}", f"tokenizer.path={base}") == 0
    assert weights(stopped) == weights(runs(name))
    assert lines(stopped)[-3:-2] == lines(runs(name))[-3:-2]


@pytest.mark.slow
def test_a_run_of_bfloat16_weights_resumes_to_the_same_bits_and_reads_its_checkpoint_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, found = hub.weights, list[Path]()
    monkeypatch.setattr(hub, "weights", lambda path, *more, **named: found.append(path) or read(path, *more, **named))
    half = [*words(base, "rloo")[:-1], "model/adapter=none", "model.dtype=bfloat16"]
    half = [word for word in half if not word.startswith("model.adapter.")]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, *half, tiny=False) == 0
    assert found == [base]
    assert train(stopped, *half, "trainer.steps=1", tiny=False) == 0
    found.clear()
    assert tokenrl("train", f"resume={stopped}", "trainer.steps=3", f"model.path={base}", f"tokenizer.path={base}") == 0
    assert found == [base]
    assert weights(stopped) == weights(whole)
    saved = load_file(whole / "checkpoints" / "last" / "optimizer.safetensors")
    assert any(name.endswith(".master") and value.dtype == torch.float32 for name, value in saved.items())


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_checkpoint_holds_only_what_was_trained(base: Path, runs: Any, name: str) -> None:
    folder = runs(name) / "checkpoints"
    first, last = (load_file(folder / link / "model.safetensors") for link in ("warm_start", "last"))
    assert all("lora_" in key for key in last)
    assert any(not torch.equal(first[key], last[key]) for key in last), "RL has changed something"
    beside = load_file(folder / "last" / "algorithm.safetensors")
    copies = [key for key in beside if ".network." in key]
    assert copies
    assert all("lora_" in key for key in copies), "references and targets are saved as what was trained, too"
    state = json.loads((folder / "last" / "state.json").read_text("utf-8"))
    assert list(state["bases"]) == ["path"]
    assert state["bases"]["path"]["path"] == str(base)


@pytest.mark.slow
def test_the_reference_is_what_a_whole_copy_would_be(
    base: Path, runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import copy

    from tokenrl_cli.algorithm.gradient import reference

    monkeypatch.setattr(reference, "frozen_copy", lambda model: copy.deepcopy(model).requires_grad_(False).eval())
    assert train(tmp_path / "run", *words(base, "ppo"), tiny=False) == 0
    assert weights(tmp_path / "run") == weights(runs("ppo"))


def moved(base: Path, runs: Any, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A copy of a run, without its pretrained model; where that lies now; and another model of the same shapes."""
    run = tmp_path / "run"
    shutil.copytree(runs("rloo"), run, symlinks=True)
    for file in [run / "config.yaml", *run.glob("checkpoints/0*/config.yaml")]:
        text = file.read_text("utf-8").replace(str(base), str(tmp_path / "gone"))
        file.write_text(text, "utf-8")
        if file.parent != run:
            seal(file)
    shutil.copytree(base, tmp_path / "moved")
    return run, tmp_path / "moved", pretrained(tmp_path / "other", seed=1)


def seal(file: Path) -> None:
    """Gives a changed file of a checkpoint its new SHA-256."""
    from tokenrl_cli.run.checkpoint import _entry

    manifest = file.parent / "manifest.json"
    whole = json.loads(manifest.read_text("utf-8"))
    whole["files"][file.name] = _entry(file)
    manifest.write_text(json.dumps(whole), "utf-8")


def test_a_moved_pretrained_model_is_named_and_a_changed_one_refused(
    base: Path, runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, there, other = moved(base, runs, tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = [
        ["eval", f"ckpt={run}", "split=val"],
        ["generate", f"ckpt={run}", "split=val", f"output={tmp_path / 'out.txt'}"],
        ["train", f"resume={run}", "trainer.steps=4"],
    ]
    for command in commands:
        capsys.readouterr()
        assert tokenrl(*command) == 2, command
        assert f"model.path: there is no directory {tmp_path / 'gone'}" in capsys.readouterr().err
        assert tokenrl(*command, f"model.path={other}") == 2, command
        told = capsys.readouterr().err
        assert f"model.path: {other} has the SHA-256 " in told
        assert f"was trained from {base} with " in told
        assert tokenrl(*command, "model.adapter.r=3", f"model.path={there}") == 2, command
        assert "model.adapter.r=3: cannot be changed" in capsys.readouterr().err
        assert tokenrl(*command, f"model.path={there}") == 0, command
    from tokenrl_cli import api

    loaded = api.load(run, overrides=[f"model.path={there}"])
    assert [each.text for each in loaded.generate(["1 2"])]
    results = [json.loads(file.read_text("utf-8")) for file in run.glob("eval/*/results.json")]
    assert [os.path.realpath(each["ckpt"]) for each in results]


def test_a_pretrained_model_that_only_a_strange_run_names_is_not_read(
    base: Path, runs: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And the commands that a run prints name it."""
    (tmp_path / "in.txt").write_text("1 2\n")
    reading = [f"input={tmp_path}/in.txt", f"output={tmp_path}/out.txt"]
    for command in (["eval", f"ckpt={runs('rloo')}"], ["generate", f"ckpt={runs('rloo')}", *reading]):
        capsys.readouterr()
        assert tokenrl(*command) == 2
        told = capsys.readouterr().err
        assert f"model.path={base}: lies outside data_root and the current directory" in told
        assert tokenrl(*command, "model=gru") == 2
    judged = [*TINY, "reward=likelihood", f"reward.checkpoint={runs('rloo')}"]
    capsys.readouterr()
    for command in (["validate", *judged], ["train", *judged, f"out={tmp_path / 'judged'}"]):
        assert tokenrl(*command) == 2
        assert f"that run was trained from model.path={base}, which lies outside data_root" in capsys.readouterr().err
    with pytest.raises(UserError, match="that run was trained from"):
        tokenrl_cli.reward("likelihood", checkpoint=str(runs("rloo")))
    from tokenrl_cli.commandline.earlier_run import read_run_config, resume_command
    from tokenrl_cli.commands.train import next_commands

    config = read_run_config(runs("rloo"))[1]
    assert f"model.path={base}" in resume_command(runs("rloo"), config)
    for line in next_commands(runs("rloo"), config):
        _, command, *given = shlex.split(line)
        assert tokenrl(command, *given, *(reading if command == "generate" else ["split=val"])) == 0, line


def test_a_run_starts_from_the_adapter_of_another(base: Path, runs: Any, tmp_path: Path) -> None:
    given = [*words(base, "rloo"), f"init_from={runs('rloo')}/checkpoints/last", "trainer.warm_start_steps=0"]
    assert train(tmp_path / "next", *given, "trainer.steps=0", tiny=False) == 0
    assert weights(tmp_path / "next")["model.safetensors"] == weights(runs("rloo"))["model.safetensors"]
