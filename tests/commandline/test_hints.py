"""Hints for keys that other tools use, and for keys typed in the wrong place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from tests.running import tokenrl
from tokenrl_cli.commandline import hints
from tokenrl_cli.config.options import conf_dir, options, roots

Capture = pytest.CaptureFixture[str]
RATES = "'algorithm.optimizer.lr' of RL or 'warm_start.optimizer.lr' of the warm start"


def told(capsys: Capture, *words: str) -> str:
    capsys.readouterr()
    assert tokenrl(*words) == 2
    return capsys.readouterr().err


@pytest.mark.sample(12)
@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("lr=1e-3", RATES),
        ("learning_rate=1e-3", RATES),
        ("trainer.lr=1e-3", RATES),
        ("training.lr=1e-3", RATES),
        ("model.optimizer.lr=1e-3", RATES),
        ("epochs=3", "training is counted in steps: trainer.warm_start_steps=N, then trainer.steps=N of RL"),
        ("num_train_epochs=3", "training is counted in steps"),
        ("max_steps=3", "trainer.warm_start_steps=N for the warm start, trainer.steps=N for RL"),
        ("batch_size=3", "trainer.warm_start_batch_size=N for the warm start, trainer.batch_size=N for RL"),
        ("run_name=x", "did you mean 'out'?"),
        ("name=x", "did you mean 'out'?"),
        ("output_dir=x", "did you mean 'out'?"),
        ("logger=wandb", "every run writes metrics.jsonl"),
        ("wandb=true", "every run writes metrics.jsonl"),
        ("gpus=1", "did you mean 'trainer.device'?"),
        ("device=cpu", "did you mean 'trainer.device'?"),
        ("bf16=true", "did you mean 'trainer.precision'?"),
        ("temperature=2", "'algorithm.temperature' of RL or 'decode.temperature' of evaluation"),
        ("num_beams=2", "'decode.beam_size' of evaluation"),
        ("num_samples=2", "'algorithm.samples_per_source' of RL"),
        ("max_length=2", "did you mean 'decode.max_length'?"),
        ("patience=2", "did you mean 'trainer.warm_start_patience'?"),
        ("hidden_size=2", "did you mean 'model.hidden'?"),
        ("num_layers=2", "did you mean 'model.layers'?"),
        ("lr_scheduler=cosine", "optimizer/schedule@algorithm.optimizer.schedule=NAME for RL"),
        ("save_steps=2", "did you mean 'trainer.checkpoint_every'?"),
        ("eval_steps=2", "did you mean 'trainer.eval_every'?"),
        ("resume_from_checkpoint=x", "did you mean 'resume'?"),
        ("checkpoint=x", "resume=RUN continues a run; init_from=RUN starts a new one"),
        ("trainer.seed=3", "did you mean 'seed'?"),
        ("trainer.stpes=3", "did you mean 'trainer.steps'?"),
        ("chekpoint_every=3", "did you mean 'trainer.checkpoint_every'?"),
        ("baseline=greedy", "did you mean 'algorithm/baseline'?"),
        ("--lr=3", "values are typed as key=value, without dashes"),
    ],
)
def test_train_says_what_is_meant(typed: str, hint: str, capsys: Capture) -> None:
    assert hint in told(capsys, "train", typed)


@pytest.fixture
def ckpt(tmp_path: Path) -> str:
    """A checkpoint with only the files that composing a config reads."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train")
    from omegaconf import OmegaConf

    folder = tmp_path / "checkpoints" / "000001"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True), "utf-8")
    (folder / "manifest.json").write_text("{}")
    (folder.parent / "last").symlink_to("000001")
    return f"ckpt={tmp_path}"


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("command", "typed", "hint"),
    [
        ("eval", "checkpoint=x", "did you mean 'ckpt'?"),
        ("eval", "resume=x", "did you mean 'ckpt'?"),
        ("eval", "output_dir=x", "did you mean 'out'?"),
        ("eval", "num_beams=2", "did you mean 'decode.beam_size'?"),
        ("eval", "trainer.device=cpu", "did you mean 'device'?"),
        ("generate", "temperature=2", "did you mean 'decode.temperature' or 'algorithm.temperature'?"),
        ("generate", "input_file=x", "did you mean 'input'?"),
        ("generate", "lr=2", "this command trains nothing"),
        ("eval", "epochs=2", "this command trains nothing"),
    ],
)
def test_other_commands_name_their_own_keys(command: str, typed: str, hint: str, ckpt: str, capsys: Capture) -> None:
    assert hint in told(capsys, command, ckpt, typed)


def test_every_name_that_a_word_leads_to_is_a_key_of_some_command() -> None:
    known: set[str] = set()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for overrides in ([], *([f"model={name}"] for name in options(roots(None), "model"))):
            config: Any = compose("train", overrides)
            known |= {path.rpartition(".")[2] for path in hints.leaves(config)} | {"schedule"}
    for command in ("eval", "generate"):
        known |= set(re.findall(r"^(\w+):", (conf_dir() / f"{command}.yaml").read_text("utf-8"), re.MULTILINE))
    assert set(hints.SYNONYMS) <= known
