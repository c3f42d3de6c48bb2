"""The training loop: one for every algorithm, the warm start included."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

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
    """One stage of a run: an algorithm, its batches, and its range of steps. Steps are counted over the whole run: the
    stage begins after `start` steps and is over after `end`."""

    name: str  # "warm_start" or "train"
    algorithm: Algorithm
    batching: Batching
    start: int
    end: int


class Observer(Protocol):
    """What the training loop calls after each step: it logs, evaluates, saves, and decides when to stop. It must not
    change what is learned."""

    def step(
        self,
        stage: Stage,
        done: int,
        rollout: Rollout,
        metrics: dict[str, float],
        seconds: dict[str, float],
    ) -> bool:
        """Called after each step, with the number of steps `done` in the run, the rollout (with rewards, if the
        algorithm needs them), the metrics of the update and of the reward in this step, and the seconds spent on
        "rollout", "reward" and "update". Returns False to end the stage. What it raises ends the run."""


def run_stage(stage: Stage, done: int, task: Task, observer: Observer) -> None:
    """Trains a stage from step `done` of the run to its end, or until `observer.step` returns False.

    Steps are counted over both stages. All random draws of a step are functions of (seed, step), so that a resumed run
    repeats them. Changes the model and the algorithm of the stage, and seeds the global generator of torch. The task
    must have a credit where the algorithm needs rewards. Raises NonFinite if a loss, a gradient, a parameter or a
    probability is not finite, UserError if a reward or the credit fails, and what `observer.step` raises.
    """
    for step in range(done, stage.end):
        torch.manual_seed(streams.derive(task.seed, "dropout", step))  # the only use of the global generator
        batch = stage.batching.batch(step).to(task.device)
        reward_metrics: dict[str, float] = {}
        clock = [time.perf_counter()]  # the beginning and the end of each of the three parts
        with task.numerics():
            rollout = stage.algorithm.collect(batch)
            clock.append(time.perf_counter())
            if stage.algorithm.needs_rewards:
                assert task.credit is not None
                rollout, scores = judge(rollout, batch, task.tokenizer, task.reward, task.credit)
                reward_metrics = scores.metrics
            clock.append(time.perf_counter())
            metrics = stage.algorithm.update(rollout)  # replay, epochs and micro-batches are in here
            clock.append(time.perf_counter())
        seconds = dict(zip(("rollout", "reward", "update"), np.diff(clock).tolist(), strict=True))
        if not observer.step(stage, step + 1, rollout, metrics | reward_metrics, seconds):
            break
