"""The training loop: one for every algorithm, the warm start included."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from tokenrl_cli import streams
from tokenrl_cli.data.batching import Batching
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import (
    Algorithm,
    Rollout,
)
from tokenrl_cli.run.task import Task


@dataclass(frozen=True)
class Stage:
    """A stretch of the run: one algorithm on the batches of the steps from `start` to `end`."""

    name: str  # "warm_start" or "train"
    algorithm: Algorithm
    batching: Batching
    start: int
    end: int


class Observer(Protocol):
    """Looks on: logs, evaluates, saves, and says when to stop. Nothing it does changes what is learned."""

    def step(
        self,
        stage: Stage,
        done: int,
        rollout: Rollout,
        metrics: dict[str, float],
        columns: dict[str, list[Any]],
        seconds: dict[str, float],
    ) -> bool:
        """After `done` steps of the run. False stops the stage here."""


def run_stage(stage: Stage, done: int, task: Task, observer: Observer) -> None:
    """From `done` steps on. One global count over both stages; what a step draws is a function of (seed, step)."""
    for step in range(done, stage.end):
        torch.manual_seed(streams.derive(task.seed, "dropout", step))  # the only use of the global generator
        batch = stage.batching.batch(step).to(task.device)
        scored: dict[str, float] = {}
        columns: dict[str, list[Any]] = {}
        clock = [time.perf_counter()]
        with task.numerics():
            rollout = stage.algorithm.collect(batch)
            clock.append(time.perf_counter())
            if stage.algorithm.needs_rewards:
                assert task.credit is not None
                rollout, scores = judge(rollout, batch, task.tokenizer, task.reward, task.credit)
                scored, columns = scores.metrics, scores.columns
            clock.append(time.perf_counter())
            metrics = stage.algorithm.update(rollout)
            clock.append(time.perf_counter())
        seconds = dict(zip(("rollout", "reward", "update"), np.diff(clock).tolist(), strict=True))
        if not observer.step(stage, step + 1, rollout, metrics | scored, columns, seconds):
            break
