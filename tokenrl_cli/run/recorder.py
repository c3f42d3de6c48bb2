"""Where a run is watched: what is logged, when it is evaluated and saved, and why it stops."""

from __future__ import annotations

import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tokenrl_cli.config.build import hint
from tokenrl_cli.config.ranges import Count, CountOrNone, Ge, Le, Size, Text, Weight
from tokenrl_cli.config.types import mismatch
from tokenrl_cli.interfaces import Evaluation, Finding, Model, Rollout, UserError
from tokenrl_cli.optim import NonFinite, over_steps
from tokenrl_cli.report.journal import FILES, Journal
from tokenrl_cli.report.terminal import Display
from tokenrl_cli.run import checkpoint
from tokenrl_cli.run.loop import DIRECTIONS, Stage, Task, acting_policy, decoding_for, direction, evaluate

WITHOUT_REWARD = 10  # batches on end without a single reward after which a run stops


class Interrupted(Exception):
    """A signal asked the run to stop, and everything is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


@dataclass(frozen=True)
class Trainer:
    """The `trainer` block: values and meanings in conf/trainer/."""

    warm_start_steps: CountOrNone
    steps: CountOrNone
    warm_start_patience: CountOrNone
    batch_size: Size
    warm_start_batch_size: Size
    alike_lengths: bool
    max_tokens: Annotated[int, Ge(0)]
    eval_every: Count
    checkpoint_every: Count
    log_every: Count
    keep_last: Count
    keep_best: CountOrNone
    warm_start_monitor: Text
    warm_start_from: Literal["best", "last"]
    monitor: Text
    gate: float | None
    eval_examples: CountOrNone
    eval_batch_size: Size
    samples: CountOrNone
    max_time: Weight
    device: Literal["auto", "cpu", "cuda"]
    threads: Annotated[int, Ge(0), Le(10_000)]
    precision: Literal["fp32", "bf16"]

    def __post_init__(self) -> None:
        if self.monitor.startswith("loss"):
            raise UserError(
                "trainer.monitor",
                f"{self.monitor!r} cannot choose a checkpoint: the loss of RL is noise around zero",
                "name an evaluation metric, e.g. trainer.monitor=bleu",
            )

    def check_monitors(self, metrics: Iterable[str]) -> None:
        """Whether what chooses checkpoints will be a number of every evaluation that knows better from worse: one of
        the `metrics` of the config, or of `train.DIRECTIONS`. Raises UserError."""
        known = sorted({*metrics, *DIRECTIONS})
        for key in ("warm_start_monitor", "monitor"):
            if (name := getattr(self, key)) not in known:
                problem = "is no number of an evaluation that says which checkpoint is better"
                raise UserError(
                    f"trainer.{key}={name}", problem + hint(name, known), f"choose one of {', '.join(known)}"
                )


MEASURED: dict[str, Any] = {"value": float, "better": int, "score": float, "step": int, "reward": float}
STATE: dict[str, Any] = {  # what `Recorder.state` gives; a dictionary says what its values are
    "stage": Literal["warm_start", "train"],
    "step": int,
    "stage_start": int,
    "warm_start": int | None,
    "best": MEASURED,
    "evaluated": MEASURED,
    "stale": int,
    "stopped": str | None,
    "tokens": int,
    "unrewarded": int,
    "window": {},
    "spent": {"tokens": int, "rollout": float, "reward": float, "update": float},
    "findings": list,
    "elapsed": float,
    "journal": dict.fromkeys(FILES, int),
}


def require_state(saved: checkpoint.Checkpoint) -> None:
    """Whether a checkpoint holds the state of a run, as far as types tell. Raises UserError."""
    wrong = list(_wrong(saved.state, STATE, ""))
    if not wrong and not 0 <= saved.state["stage_start"] <= saved.state["step"] == saved.step:
        wrong.append(f"step: must be {saved.step}, and stage_start no more")
    for each in [] if wrong else saved.state["findings"]:
        if not isinstance(each, dict) or each.keys() != {field.name for field in fields(Finding)}:
            wrong.append("findings: one is no finding")
    for name, seen in [] if wrong else saved.state["window"].items():
        if not isinstance(seen, list) or any(mismatch(each, float) for each in seen):
            wrong.append(f"window.{name}: must be a list of numbers")
    if wrong:
        problem = f"is not the state of a run: {wrong[0]}"
        raise UserError(str(saved.path / "state.json"), problem, "take another checkpoint of the run")


def _wrong(value: Any, wanted: Any, where: str) -> Iterator[str]:
    """What is wrong with a value, or with what it holds."""
    if value is None and wanted is MEASURED:  # nothing has been evaluated yet
        return
    if not isinstance(wanted, dict):
        if problem := mismatch(value, wanted):
            yield f"{where}: {problem}"
    elif not isinstance(value, dict):
        yield f"{where}: must be a dictionary"
    else:
        for key, kind in wanted.items():
            yield from _wrong(value.get(key), kind, f"{where}.{key}".lstrip("."))


class Recorder:
    """The observer of a run that keeps it on disk and shows it. All it remembers goes through `state` and back."""

    def __init__(
        self,
        run: Path,
        config: dict[str, Any],
        trainer: Trainer,
        task: Task,
        model: Any,
        journal: Journal,
        display: Display,
        go_on: str,
    ) -> None:
        self.run, self.config, self.trainer, self.task, self.model = run, config, trainer, task, model
        self.journal, self.display = journal, display
        self.go_on = go_on  # the command that goes on with this run
        self.warm_start: int | None = None  # step of the checkpoint that RL started from, once it has
        self.best: dict[str, Any] | None = None  # of this stage, by its monitor: as `_measured` gives it
        self.latest: dict[str, Any] | None = None  # the last evaluation on val, by trainer.monitor
        self.stale = 0  # evaluations since then
        self.done = 0  # steps of the run
        self.stopped: str | None = None  # why this stage ended early
        self.tokens = 0  # sampled and recited
        self.unrewarded = 0  # steps of the RL stage, the last ones without a break, in which no row had a reward
        self.window: dict[str, list[float]] = defaultdict(list)  # of the step metrics not logged yet
        self.spent = {"tokens": 0, "rollout": 0.0, "reward": 0.0, "update": 0.0}  # of the RL stage
        self.findings: list[Finding] = []
        self.before = 0.0  # seconds of the parts of this run before this process
        self.began = time.monotonic()
        self.signal: int | None = None

    # --- what the loop calls

    def step(
        self,
        stage: Stage,
        done: int,
        rollout: Rollout,
        metrics: dict[str, float],
        seconds: dict[str, float],
    ) -> bool:
        self.done = done
        self._require_rewards(stage, done, rollout)
        tokens = int(rollout.mask.sum())
        self._count(stage, tokens, metrics, seconds)
        self.display.step(stage.name, done, metrics | {"tokens_per_second": tokens / max(sum(seconds.values()), 1e-9)})
        last = done == stage.end
        over = self.over_budget()
        if done % self.trainer.log_every == 0 or last or over:
            self._log(stage, done)
        improved = False
        if done % self.trainer.eval_every == 0 or last or over:
            improved = self.judge(stage, done)
        patience = self.trainer.warm_start_patience
        if stage.name == "warm_start" and patience and self.stale >= patience:
            self.stopped = f"{self.trainer.warm_start_monitor} has not improved in {patience} evaluations"
        stop = last or bool(over) or self.stopped is not None
        if done % self.trainer.checkpoint_every == 0 or improved or stop or self.signal:
            self.save(stage, done, improved)
        if self.signal:
            raise Interrupted(self.signal)
        return not stop

    def judge(self, stage: Stage, done: int) -> bool:
        """Evaluates the stage's policy on val. True if it is the best of the stage so far, by the stage's monitor."""
        evaluation = self.evaluate(acting_policy(stage.algorithm), "val", stage.name, done)
        found = self.latest = self._measured(self.trainer.monitor, evaluation)
        if stage.name == "warm_start" and self.trainer.warm_start_steps:
            found = self._measured(self.trainer.warm_start_monitor, evaluation)
        if self.best is None or found["score"] > self.best["score"] or math.isnan(self.best["value"]):
            self.best, self.stale = found, 0
            return True
        self.stale += 1
        return False

    def _measured(self, monitor: str, evaluation: Evaluation) -> dict[str, Any]:
        """What an evaluation says by a monitor: its value, whether more (1) or less (-1) of it is better, a score of
        which more is better, the step, and the reward."""
        better, value = direction(monitor, evaluation), evaluation.metrics[monitor]
        found = {"value": value, "better": better, "score": better * value, "step": evaluation.step}
        return found | {"reward": evaluation.metrics["reward"]}

    def switch(self, start: dict[str, Any]) -> None:
        """RL begins, from the evaluated checkpoint `start` of the warm start: what is kept of that stage's monitor ends
        here, and the best of the run is so far what it starts from, by `trainer.monitor`."""
        why = "its last"
        if self.trainer.warm_start_from == "best" and self.best is not None:
            end = "highest" if self.best["better"] > 0 else "lowest"
            why = f"the {end} {self.trainer.warm_start_monitor} ({self.best['value']:.4g})"
        if self.trainer.warm_start_steps and self.trainer.steps:
            self.display.message(f"RL starts from step {start['step']} of the warm start, {why}")
        self.best, self.stale, self.stopped, self.warm_start = start, 0, None, start["step"]

    def evaluate(self, policy: Model, split: str, stage: str, step: int) -> Evaluation:
        examples = self.trainer.eval_examples if split == "val" else 0
        size, decoding = self.trainer.eval_batch_size, decoding_for(self.task, split, examples)
        progress = partial(self.display.evaluating, stage, split, step)
        try:
            evaluation = evaluate(policy, self.task, split, examples, size, decoding, stage, step, progress)
        except NonFinite as error:
            error.step = step
            raise
        self.journal.metrics(step, stage, split, evaluation.decode, self.elapsed, evaluation.metrics)
        self.journal.samples(evaluation, self.trainer.samples)
        self.display.evaluation(evaluation, self.trainer.samples)
        return evaluation

    def save(self, stage: Stage, done: int, best: bool) -> None:
        """A checkpoint of everything, after what it describes was logged."""
        path = checkpoint.save(
            self.run,
            done,
            self.model,
            stage.algorithm.state_dict(),
            self.state(stage, done),
            self.config,
            {"target": self.task.tokenizer, "source": self.task.source_tokenizer},
        )
        checkpoint.point(self.run, "last", path)
        if best:
            checkpoint.point(self.run, "best", path)
        checkpoint.prune(self.run, self.trainer.keep_last, self.trainer.keep_best)

    # --- what it remembers

    @property
    def elapsed(self) -> float:
        return self.before + time.monotonic() - self.began

    def over_budget(self) -> str | None:
        if self.trainer.max_tokens and self.tokens >= self.trainer.max_tokens:
            return f"the budget of {self.trainer.max_tokens} tokens is spent"
        if self.trainer.max_time and self.elapsed >= self.trainer.max_time:
            return f"the {self.trainer.max_time:g} s of trainer.max_time are over"
        return None

    def note(self, finding: Finding) -> None:
        """Keeps a finding for results.json and shows it at once; the same sentence is said once a run."""
        if finding.text not in [each.text for each in self.findings]:
            self.findings.append(finding)
            self.display.message(finding.text)

    def state(self, stage: Stage, done: int) -> dict[str, Any]:
        return {
            "stage": stage.name,
            "step": done,
            "stage_start": stage.start,
            "warm_start": self.warm_start,
            "best": self.best,
            "evaluated": self.latest if self.latest and self.latest["step"] == done else None,
            "stale": self.stale,
            "stopped": self.stopped,
            "tokens": self.tokens,
            "unrewarded": self.unrewarded,
            "window": dict(self.window),
            "spent": self.spent,
            "findings": [asdict(finding) for finding in self.findings],
            "elapsed": self.elapsed,
            "journal": self.journal.position(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint: forgets what was logged after it."""
        self.done = state["step"]
        self.best, self.stale, self.stopped = state["best"], state["stale"], state["stopped"]
        self.latest, self.warm_start = state["evaluated"], state.get("warm_start")
        self.tokens, self.before = state["tokens"], state["elapsed"]
        self.unrewarded = state["unrewarded"]
        self.findings = [Finding(**finding) for finding in state["findings"]]
        self.window = defaultdict(list, state["window"])
        self.spent = state["spent"]
        self.journal.cut(state["journal"])

    @contextmanager
    def signals(self) -> Iterator[None]:
        """The first Ctrl-C, SIGTERM or SIGHUP asks for a stop after this step; the second stops at once, but a SIGHUP
        never: a terminal that closes may send several. A SIGHUP that was ignored at the start (nohup) stays so."""

        def remember(signum: int, frame: object) -> None:
            if self.signal is not None and signum == signal.SIGHUP:
                return
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = signum
            self.display.message(f"{signal.Signals(signum).name}: stopping after this step")

        heeded = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            heeded.append(signal.SIGHUP)
        before = {name: signal.signal(name, remember) for name in heeded}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def _require_rewards(self, stage: Stage, done: int, rollout: Rollout) -> None:
        """Stops a run that learns from no reward at all: WITHOUT_REWARD batches on end, or a whole shorter stage. One
        batch without is no reason: a reward may apply to few sources."""
        nothing = rollout.rewards is not None and not bool(rollout.valid.any())
        self.unrewarded = self.unrewarded + 1 if nothing else 0
        if self.unrewarded >= min(WITHOUT_REWARD, stage.end - stage.start):
            raise UserError(
                f"step {done}",
                f"no text of the last {self.unrewarded} batches has a reward: each is NaN, or None of a function",
                f"mend the reward, then {self.go_on}",
            )

    def _count(self, stage: Stage, tokens: int, metrics: dict[str, float], seconds: dict[str, float]) -> None:
        self.tokens += tokens
        for name, value in metrics.items():
            self.window[name].append(value)
        for name, value in seconds.items():
            self.window[f"time/{name}"].append(value)
        self.window["tokens_per_second"].append(tokens / max(sum(seconds.values()), 1e-9))
        if stage.name == "train":
            self.spent["tokens"] += tokens
            for name, value in seconds.items():
                self.spent[name] += value

    def _log(self, stage: Stage, done: int) -> None:
        """One line for the steps since the last: means, but the extremes of what is named /min or /max."""
        values = {name: over_steps(name, seen) for name, seen in self.window.items()}
        self.journal.metrics(done, stage.name, "train", None, self.elapsed, values)
        self.window.clear()
