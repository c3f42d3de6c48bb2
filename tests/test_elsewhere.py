"""Nothing mixes tensors of the device with tensors of the CPU: whole runs on a device that is not the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.examples import FILES
from tests.presets import PRESETS
from tests.running import TINY
from tokenrl_cli.algorithm.networks import differentiable
from tokenrl_cli.run import assembly

ROOT = Path(__file__).parents[1]
FEW = ["trainer.warm_start_steps=1", "trainer.steps=2", "trainer.eval_every=2", "trainer.eval_examples=4"]
SHORT = [*TINY, *FEW, "trainer.batch_size=4", "trainer.warm_start_batch_size=4", "dataset.test_size=4"]


def elsewhere(folder: Path, *commands: list[str]) -> str:
    """What was said. Fails where a command does; skips where this torch cannot have such a device."""
    joined = [" ".join(f"'{word}'" for word in command) for command in commands]
    words = [sys.executable, "-c", "from tests.elsewhere import main; import sys; sys.exit(main(sys.argv[1:]))"]
    variables = {"PYTHONPATH": f"{ROOT}:{folder}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*words, *joined],
        capture_output=True,
        text=True,
        cwd=folder,
        env=variables,
    )
    if done.returncode == 77:
        pytest.skip("this torch knows no device written in Python")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_what_mixes_two_devices_is_seen(tmp_path: Path) -> None:
    code = (
        "import torch\nfrom tests.elsewhere import *\nregistered()\n"
        "with Everywhere():\n"
        "    far, near = torch.ones(2, device='elsewhere:0'), torch.ones(2)\n"
        "    assert (far + 1.0 + near.sum()).sum() == 8 and far[torch.tensor([0])].device == far.device\n"
        "    for wrong in (lambda: far + near, lambda: near[far.long()], lambda: torch.cat([far, near]), far.numpy,\n"
        "                  lambda: torch.rand(2, generator=torch.Generator(), device='elsewhere:0')):\n"
        "        try:\n            wrong()\n        except (RuntimeError, TypeError):\n            continue\n"
        "        raise SystemExit('a mixture went through')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}
    )
    if "_setup_privateuseone_for_python_backend" not in dir(torch.utils.backend_registration):
        pytest.skip("this torch knows no device written in Python")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_runs_resume_are_evaluated_and_generate_on_a_device(tmp_path: Path) -> None:
    """A model of a user's own among them, whose recurrent layers are in evaluation mode when RL takes its gradient."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "lines.txt").write_text("a b c\nc b\n", "utf-8")
    own = [word for word in SHORT if not word.startswith("model")]
    elsewhere(
        tmp_path,
        ["train", *SHORT, "algorithm=dqn", "hydra.run.dir=dqn"],
        ["train", "resume=dqn", "trainer.steps=3"],
        ["eval", "ckpt=dqn", "examples=4", "decode=beam"],
        ["generate", "ckpt=dqn", "input=lines.txt", "output=said.txt"],
        ["train", "--config-dir", "myconf", "model=bag", "imports=[my_model]", *own, "hydra.run.dir=bag"],
    )
    assert json.loads((tmp_path / "bag" / "results.json").read_text("utf-8"))["format"] == 1
    assert len((tmp_path / "said.txt").read_text("utf-8").splitlines()) == 2


@pytest.mark.slow
def test_every_preset_and_model_runs_on_a_device(tmp_path: Path) -> None:
    presets = [["train", *SHORT, f"algorithm={name}", f"hydra.run.dir={name}"] for name in PRESETS]
    own = [word for word in SHORT if not word.startswith("model")]
    names = ("rnn", "lstm", "transformer", "gpt")
    models = [["train", *own, f"model={name}", "algorithm=ppo", f"hydra.run.dir={name}"] for name in names]
    elsewhere(tmp_path, *presets, *models)


def test_a_recurrent_layer_takes_a_gradient_in_evaluation_mode_and_drops_nothing() -> None:
    """cuDNN takes it in training mode alone."""
    layer = differentiable(torch.nn.GRU(2, 3, 2, dropout=0.9, batch_first=True)).eval()
    modes: list[tuple[bool, float]] = []
    layer.register_forward_pre_hook(lambda part, _: modes.append((part.training, part.dropout)))
    read = torch.randn(4, 5, 2)
    one, other = layer(read)[0], layer(read)[0]
    assert torch.equal(one, other)
    assert modes == [(True, 0.0)] * 2
    assert (layer.training, layer.dropout) == (False, 0.9)
    with torch.no_grad():
        assert torch.equal(layer(read)[0], one)
        assert modes[-1] == (False, 0.9)
    layer.train()
    layer(read)
    assert modes[-1] == (True, 0.9)


def test_float32_is_float32_on_a_gpu_whichever_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert assembly.device_of("auto") == torch.device("cuda")
    assert not torch.backends.cudnn.allow_tf32
