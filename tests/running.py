"""Whole runs, small enough for tests: the command itself, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenrl_cli.cli import status
from tokenrl_cli.run import checkpoint

TINY = [
    "dataset=reverse",
    "dataset.symbols=5",
    "dataset.min_symbols=2",
    "dataset.max_symbols=4",
    "model=gru",
    "model.embedding=16",
    "model.hidden=24",
    "reward=token_accuracy",
    "decode.max_length=6",
    "trainer.warm_start_steps=6",
    "trainer.steps=6",
    "trainer.batch_size=8",
    "trainer.warm_start_batch_size=8",
    "trainer.eval_every=3",
    "trainer.checkpoint_every=100",
    "trainer.log_every=2",
    "trainer.eval_examples=8",
    "trainer.monitor=token_accuracy",
    "trainer.device=cpu",
    "trainer.gate=null",
    "dataset.test_size=16",
]
QUICK = [  # beside TINY, where it only matters that a run ends
    "trainer.warm_start_steps=2",
    "trainer.steps=2",
    "trainer.eval_every=100",
    "trainer.eval_examples=4",
    "dataset.test_size=4",
]


def tokenrl(*arguments: str) -> int:
    """The exit status of `tokenrl ARGUMENTS`."""
    try:
        return status(arguments)
    except SystemExit as stop:  # an interrupted run
        return int(stop.code or 0)


def train(run: Path, *overrides: str, tiny: bool = True) -> int:
    """`tokenrl train` into the directory `run`."""
    return tokenrl("train", *(TINY if tiny else []), *overrides, f"hydra.run.dir={run}")


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    for record in records:
        del record["time"]
        timed = [name for name in record["metrics"] if name.startswith("time/") or name == "tokens_per_second"]
        for name in timed:
            del record["metrics"][name]
    return records


def weights(run: Path, name: str = "last") -> dict[str, bytes]:
    """Every tensor file of a checkpoint, byte for byte."""
    folder = run / "checkpoints" / name
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def acting(run: Path, name: str) -> dict[str, bytes]:
    """What a checkpoint's policy acts by, byte for byte: all of it that one that is kept to be evaluated alone has."""
    saved = checkpoint.load(checkpoint.find(run, (name,)))
    kept = saved.model | {key: value for key, value in saved.algorithm.items() if key.startswith("policy.")}
    return {key: value.numpy().tobytes() for key, value in kept.items()}
