"""What the studies share: a run of the command, and what its last checkpoint says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.run import assembly, checkpoint
from tokenrl_cli.run.evaluation import evaluate

DECODINGS = {
    "greedy": {"temperature": 0.0, "beam_size": 1},
    "beam": {"temperature": 0.0, "beam_size": 5, "length_penalty": 1.0},
    "sample": {"temperature": 1.0, "beam_size": 1},
}


def run(folder: Path, *overrides: str, quiet: bool = False) -> None:
    """A run of the command, unless it is finished; one that was stopped goes on."""
    if (folder / "results.json").is_file():
        return
    stopped = (folder / "config.yaml").is_file()
    words = [f"resume={folder}"] if stopped else [*overrides, f"hydra.run.dir={folder}"]
    command = [sys.executable, "-m", "tokenrl_cli", "train", *words]
    done = subprocess.run(command, capture_output=quiet, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}\n{done.stderr or ''}")


def evaluated(
    folder: Path, decode: str = "greedy", link: str = "last", reward: dict[str, Any] | None = None
) -> Evaluation:
    """The test split as the run's checkpoint `link` says it; scored by its own reward, unless `reward` is given."""
    saved = checkpoint.load(checkpoint.find(folder, (link,)))
    if reward is not None:
        saved = replace(saved, config=saved.config | {"reward": reward})
    device = assembly.device_of("cpu")
    precision = assembly.precision_of("fp32")
    task = assembly.task_of(saved.config, [], device, precision, saved.config["seed"], saved.tokenizer_dir)
    policy = assembly.policy_of(saved, saved.config, [], task)
    decoding = replace(task.decoding, **DECODINGS[decode])  # type: ignore[arg-type]
    return evaluate(policy, task, "test", 0, 128, decoding, "eval", saved.step)
