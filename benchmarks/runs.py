"""What the studies share: a run of the command, and what its last checkpoint says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenrl_cli.episodes.scoring import corpus_score, per_text, scored, texts_of
from tokenrl_cli.interfaces import CorpusScore, Evaluation, Texts
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.run import assembly, checkpoint
from tokenrl_cli.run.evaluation import batches_of, decode, evaluate, joined

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
    again = [each for each in overrides if each.startswith("model.path=")]  # a base elsewhere must be named again
    words = [f"resume={folder}", *again] if stopped else [*overrides, f"hydra.run.dir={folder}"]
    command = [sys.executable, "-m", "tokenrl_cli", "train", *words]
    done = subprocess.run(command, capture_output=quiet, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}\n{done.stderr or ''}")


def evaluated(
    folder: Path,
    decode: str = "greedy",
    link: str = "last",
    reward: dict[str, Any] | None = None,
    split: str = "test",
) -> Evaluation:
    """A split as the run's checkpoint `link` says it; scored by its own reward, unless `reward` is given."""
    saved = checkpoint.load(checkpoint.find(folder, (link,)))
    if reward is not None:
        saved = replace(saved, config=saved.config | {"reward": reward})
    device = assembly.device_of("cpu")
    precision = assembly.precision_of("fp32")
    task = assembly.task_of(saved.config, [], device, precision, saved.config["seed"], saved.tokenizer_dir)
    policy = assembly.policy_of(saved, saved.config, [], task)
    decoding = replace(task.decoding, **DECODINGS[decode])  # type: ignore[arg-type]
    return evaluate(policy, task, split, 0, 128, decoding, "eval", saved.step)


def decoded(folder: Path, split: str, examples: int, batch_size: int, link: str = "last") -> dict[str, CorpusScore]:
    """The corpus scores of a run's metrics and reward on the first `examples` of a split (0: all), decoded as the run
    says. Other than `evaluated` it samples nothing and scores no reference, which costs a large model most of its
    time."""
    saved = checkpoint.load(checkpoint.find(folder, (link,)))
    task = assembly.task_of(
        saved.config, [], assembly.device_of("cpu"), assembly.precision_of("fp32"), saved.config["seed"],
        saved.tokenizer_dir,
    )  # fmt: skip
    policy = assembly.policy_of(saved, saved.config, [], task)
    texts: list[Texts] = []
    order: list[int] = []
    for indices, batch in batches_of(task, split, examples, batch_size):
        rollout = decode(policy, batch, task, task.decoding, torch.Generator())
        texts.append(texts_of(rollout, batch, task.tokenizer))
        order += indices
    whole = joined(texts, order)
    (folder / f"{split}.txt").write_text("\n".join(whole.hypotheses) + "\n", "utf-8")
    scores = per_text(scored(task.reward, whole).scores, whole.mask)
    return {name: corpus_score(metric, whole) for name, metric in task.metrics.items()} | {
        "reward": mean_score(np.asarray(scores, np.float64), "mean")
    }
