"""The recorder of a run: it logs, evaluates and saves at the intervals of the config, and decides when to stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tokenrl_cli.config.build import hint
from tokenrl_cli.config.ranges import Count, CountOrZero, Ge, Le, Size, Text, Weight
from tokenrl_cli.config.types import mismatch
from tokenrl_cli.interfaces import Evaluation, Finding, Model, ModelModule, Rollout, UserError
from tokenrl_cli.optim import NonFinite, over_steps
from tokenrl_cli.report.display import Display
from tokenrl_cli.report.journal import FILES, Journal
from tokenrl_cli.report.run_header import stage_name
from tokenrl_cli.run import checkpoint
from tokenrl_cli.run.evaluation import DIRECTIONS, acting_policy, decoding_for, direction, evaluate
from tokenrl_cli.run.loop import Stage
from tokenrl_cli.run.task import Task

WITHOUT_REWARD = 10  # consecutive batches without any reward after which a run stops


class Interrupted(Exception):
    """Raised after a signal has stopped the run at the end of a step and its checkpoint is saved. `status` is the exit
    code of the process: 128 + the number of the signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


@dataclass(frozen=True)
class Trainer:
    """The `trainer` block of the config. conf/trainer/default.yaml explains each value.

    Raises UserError if `monitor` begins with "loss"; types and ranges are checked by `config.build.check`, not here.
    """

    warm_start_steps: CountOrZero
    steps: CountOrZero
    warm_start_patience: CountOrZero
    warm_start_until: float | None
    warm_start_max_time: Weight
    batch_size: Size
    warm_start_batch_size: Size
    alike_lengths: bool
    max_tokens: Annotated[int, Ge(0)]
    eval_every: Count
    checkpoint_every: Count
    log_every: Count
    keep_last: Count
    keep_best: CountOrZero
    warm_start_monitor: Text
    warm_start_from: Literal["best", "last"]
    monitor: Text
    gate: float | None
    eval_examples: CountOrZero
    eval_batch_size: Size
    samples: CountOrZero
    max_time: Weight
    device: Literal["auto", "cpu", "cuda"]
    threads: Annotated[int, Ge(0), Le(10_000)]
    precision: Literal["fp32", "bf16"]

    def __post_init__(self) -> None:
        if self.monitor.startswith("loss"):
            raise UserError(
                "trainer.monitor",
                f"{self.monitor!r} cannot choose a checkpoint: the loss of RL is mostly noise around zero",
                "name an evaluation metric, e.g. trainer.monitor=bleu",
            )

    def check_monitors(self, metrics: Iterable[str]) -> None:
        """Raises UserError unless `monitor` and `warm_start_monitor` can choose a checkpoint: each must be one of
        `metrics`, the names of the corpus scores that an evaluation reports (`episodes.scoring.reported`), or of
        `evaluation.DIRECTIONS`."""
        known = sorted({*metrics, *DIRECTIONS})
        for key in ("warm_start_monitor", "monitor"):
            if (name := getattr(self, key)) not in known:
                problem = "is not a number of an evaluation by which a checkpoint could be chosen"
                raise UserError(
                    f"trainer.{key}={name}", problem + hint(name, known), f"choose one of {', '.join(known)}"
                )


# a reward where no text has one is NaN, and a perplexity may overflow to infinity
MEASURED = Annotated[float, "NaN and infinity included"]
MONITORED: dict[str, Any] = {"value": MEASURED, "better": int, "score": MEASURED, "step": int, "reward": MEASURED}
STATE: dict[str, Any] = {  # the types of the values that `Recorder.state` returns
    "stage": Literal["warm_start", "train"],
    "step": int,
    "stage_start": int,
    "warm_start": int | None,
    "best": MONITORED,
    "evaluated": MONITORED,
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
    """Raises UserError unless the state of the recorder in a checkpoint can be resumed: it must have the keys and types
    of STATE, the step of the checkpoint, a `stage_start` not above that step, findings with the fields of a Finding,
    and lists of numbers in `window`. What a run has measured may be NaN or infinite; other numbers must be finite.

    None is allowed for `best` and `evaluated`, and where STATE says so. Other keys are ignored. Neither the weights nor
    the state of the algorithm are checked; `checkpoint.restore` and `checkpoint.restore_state` do that.
    """
    wrong = list(_wrong(saved.state, STATE, ""))
    if not wrong and not 0 <= saved.state["stage_start"] <= saved.state["step"] == saved.step:
        wrong.append(f"step: must be {saved.step}, and stage_start not above it")
    keys = {field.name for field in fields(Finding)}
    if not wrong and any(not isinstance(each, dict) or each.keys() != keys for each in saved.state["findings"]):
        wrong.append("findings: each must have the fields of a finding")
    for name, values in [] if wrong else saved.state["window"].items():
        if not isinstance(values, list) or any(list(_wrong(each, MEASURED, name)) for each in values):
            wrong.append(f"window.{name}: must be a list of numbers")
    if wrong:
        problem = f"is not the state of a run: {wrong[0]}"
        raise UserError(str(saved.path / "state.json"), problem, "take another checkpoint of the run")


def _wrong(value: Any, wanted: Any, where: str) -> Iterator[str]:
    """Yields a description of each key that is missing and of each value, at any depth, that does not have its `wanted`
    type. `where` is the key of `value`."""
    if value is None and wanted is MONITORED:  # not evaluated yet
        return
    if not isinstance(wanted, dict):
        if problem := "" if wanted is MEASURED and isinstance(value, float) else mismatch(value, wanted):
            yield f"{where}: {problem}"
    elif not isinstance(value, dict):
        yield f"{where}: must be a dictionary"
    else:
        for key, kind in wanted.items():
            inner = f"{where}.{key}".lstrip(".")
            if key in value:
                yield from _wrong(value[key], kind, inner)
            else:
                yield f"{inner}: is missing"


class Recorder:
    """The observer of the training loop: writes logs and checkpoints, and shows the run.

    Everything that it remembers between steps is in `state`, so that a resumed run continues as if it had never been
    stopped. It writes into the directory `run`; `config` is stored in each checkpoint; `go_on` is the command that
    resumes the run, for messages.
    """

    def __init__(
        self,
        run: Path,
        config: dict[str, Any],
        trainer: Trainer,
        task: Task,
        model: ModelModule,
        journal: Journal,
        display: Display,
        go_on: str,
    ) -> None:
        self.run, self.config, self.trainer, self.task, self.model = run, config, trainer, task, model
        self.journal, self.display = journal, display
        self.go_on = go_on  # the command that resumes this run
        self.warm_start: int | None = None  # step of the checkpoint that RL started from; None before
        self.best: dict[str, Any] | None = None  # best of this stage by its monitor, as `_monitored` returns it
        self.latest: dict[str, Any] | None = None  # the latest evaluation on val, by trainer.monitor
        self.stale = 0  # evaluations since the best one
        self.done = 0  # steps done in the run
        self.stopped: str | None = None  # why this stage ended early
        self.tokens = 0  # in all rollouts, sampled texts and demonstrations
        self.unrewarded = 0  # consecutive latest steps in which no text had a reward
        self.window: dict[str, list[float]] = defaultdict(list)  # metrics of the steps since the last log line
        self.spent = {"tokens": 0, "rollout": 0.0, "reward": 0.0, "update": 0.0}  # tokens and seconds of the RL stage
        self.findings: list[Finding] = []
        self.before = 0.0  # seconds that earlier processes spent on this run
        self.began = time.monotonic()
        self.signal: int | None = None
        self.on_signal = "stopping after this step"  # what the first signal does, as its message says

    # --- called by the loop

    def step(
        self,
        stage: Stage,
        done: int,
        rollout: Rollout,
        metrics: dict[str, float],
        seconds: dict[str, float],
    ) -> bool:
        """Records a step, the one after which `done` steps of the run are done, with its rollout, metrics and `seconds`
        ("rollout", "reward", "update"), and logs, evaluates and saves if it is time. Returns False if the stage is
        over: by its number of steps, by max_tokens or max_time, or because the warm start has stopped improving or has
        reached `warm_start_until` or `warm_start_max_time`.

        Raises Interrupted after saving if a signal has arrived; UserError if no text had a reward in the last
        WITHOUT_REWARD (10) steps (or in all steps of a shorter stage); NonFinite if an evaluation meets a probability
        that is not finite.
        """
        self.done = done
        self._require_rewards(stage, done, rollout)
        tokens = int(rollout.mask.sum())
        self._count(stage, tokens, metrics, seconds)
        self.display.step(stage.name, done, metrics | {"tokens_per_second": tokens / max(sum(seconds.values()), 1e-9)})
        # The order matters: a checkpoint records how far the logs are written, and which evaluation was the best.
        last = done == stage.end
        over = self.over_budget() or self._warm_start_over_time(stage)
        if done % self.trainer.log_every == 0 or last or over:
            self._log(stage, done)
        improved = False
        if done % self.trainer.eval_every == 0 or last or over:
            improved = self.evaluate_on_val(stage, done)
            self._stop_at(stage)
        patience = self.trainer.warm_start_patience
        if stage.name == "warm_start" and patience and self.stale >= patience:
            self.stopped = f"{self.trainer.warm_start_monitor} has not improved in {patience} evaluations"
        if stage.name == "warm_start" and over and not self.over_budget():
            self.stopped = over
        if self.stopped and self.latest:
            reached = f"its reward on val is {self.latest['reward']:.3f}"
            self.display.message(f"{stage_name(stage.name)} ends at step {done}, {reached}: {self.stopped}")
        stop = last or bool(over) or self.stopped is not None
        if done % self.trainer.checkpoint_every == 0 or improved or stop or self.signal:
            self.save(stage, done, improved)
        if self.signal:
            raise Interrupted(self.signal)
        return not stop

    def evaluate_on_val(self, stage: Stage, done: int) -> bool:
        """Evaluates the policy of a stage on val after `done` steps of the run (see `evaluate`), and updates `latest`,
        `best` and `stale`. Switches the policy to evaluation mode.

        Returns whether it is better than every earlier evaluation of the stage, by the monitor of the stage (that of RL
        if the warm start has no steps); in RL it must also be better than the checkpoint that RL started from. A best
        of NaN is always replaced. Raises NonFinite if a probability is not finite, UserError if a reward or metric
        fails.
        """
        evaluation = self.evaluate(acting_policy(stage.algorithm), "val", stage.name, done)
        found = self.latest = self._monitored(self.trainer.monitor, evaluation)
        # with 0 steps the warm start is only evaluated as the start of RL, so the monitor of RL applies
        if stage.name == "warm_start" and self.trainer.warm_start_steps:
            found = self._monitored(self.trainer.warm_start_monitor, evaluation)
        # a best of NaN, which no comparison would ever replace, gives way to anything
        if self.best is None or found["score"] > self.best["score"] or math.isnan(self.best["value"]):
            self.best, self.stale = found, 0
            return True
        self.stale += 1
        return False

    def _stop_at(self, stage: Stage) -> None:
        """Ends the warm start where the latest evaluation on val has reached `trainer.warm_start_until`."""
        wanted = self.trainer.warm_start_until
        if stage.name == "warm_start" and wanted is not None and self.latest and self.latest["reward"] >= wanted:
            self.stopped = f"trainer.warm_start_until={wanted:g} is reached"

    def _warm_start_over_time(self, stage: Stage) -> str | None:
        """Says that `trainer.warm_start_max_time` is over, in a warm start where it is; else None."""
        limit = self.trainer.warm_start_max_time
        if stage.name == "warm_start" and limit and self.elapsed >= limit:
            return f"trainer.warm_start_max_time={limit:g} seconds is reached"
        return None

    def _monitored(self, monitor: str, evaluation: Evaluation) -> dict[str, Any]:
        """The summary of an evaluation by which checkpoints are compared: the value of the monitor, whether higher (1)
        or lower (-1) is better, a score of which higher is better, the step, and the reward."""
        better, value = direction(monitor, evaluation), evaluation.metrics[monitor]
        found = {"value": value, "better": better, "score": better * value, "step": evaluation.step}
        return found | {"reward": evaluation.metrics["reward"]}

    def begin_rl(self, start: dict[str, Any]) -> None:
        """Begins the RL stage. `start` is the summary of the checkpoint that RL starts from, a dictionary as `latest`
        is, with the keys value (that of `trainer.monitor`), better (1 or -1), score, step and reward; it becomes the
        best of the run. Forgets the best of the warm start, its patience and why it ended. Shows a message if both
        stages have steps."""
        why = "its last checkpoint"
        if self.trainer.warm_start_from == "best" and self.best is not None:
            end = "highest" if self.best["better"] > 0 else "lowest"
            why = f"the {end} {self.trainer.warm_start_monitor} ({self.best['value']:.4g})"
        if self.trainer.warm_start_steps and self.trainer.steps:
            self.display.message(f"RL starts from step {start['step']} of the warm start, {why}")
        self.best, self.stale, self.stopped, self.warm_start = start, 0, None, start["step"]

    def evaluate(self, policy: Model, split: str, stage: str, step: int) -> Evaluation:
        """Evaluates a policy, which must be in evaluation mode, on a split; logs its metrics and `trainer.samples`
        texts, and shows them. On val only the first `trainer.eval_examples` examples are decoded (0: all).

        Raises NonFinite, with its `step` set to `step`, if a probability is not finite; UserError if a reward or metric
        fails.
        """
        examples = self.trainer.eval_examples if split == "val" else 0
        size, decoding = self.trainer.eval_batch_size, decoding_for(self.task, split, examples)
        progress = partial(self.display.evaluating, stage, split, step)
        try:
            evaluation = evaluate(policy, self.task, split, examples, size, decoding, stage, step, progress)
        except NonFinite as error:
            error.step = step
            raise
        return self.record(evaluation)

    def record(self, evaluation: Evaluation) -> Evaluation:
        """Logs the metrics of an evaluation and `trainer.samples` of its texts, shows them, and returns it."""
        step, stage, split = evaluation.step, evaluation.stage, evaluation.split
        self.journal.metrics(step, stage, split, evaluation.decode, self.elapsed, evaluation.metrics)
        self.journal.samples(evaluation, self.trainer.samples)
        self.display.evaluation(evaluation, self.trainer.samples)
        return evaluation

    def save(self, stage: Stage, done: int, best: bool) -> None:
        """Writes a checkpoint after `done` steps of the run, points the link `last` at it (and `best`, if `best` is
        True), and removes the checkpoints that are not needed any more; see `checkpoint.prune`. Logs must be written
        before: the checkpoint records how far the log files go."""
        path = checkpoint.save(
            self.run,
            done,
            self.model,
            stage.algorithm.state_dict(),
            self.state(stage, done),
            self.config,
            {"target": self.task.tokenizer, "source": self.task.source_reader},
        )
        checkpoint.set_link(self.run, "last", path)
        if best:
            checkpoint.set_link(self.run, "best", path)
        checkpoint.prune(self.run, self.trainer.keep_last, self.trainer.keep_best)

    # --- what is remembered

    @property
    def elapsed(self) -> float:
        """Seconds spent on this run, earlier processes included."""
        return self.before + time.monotonic() - self.began

    def over_budget(self) -> str | None:
        """Says in a sentence which limit of the run is reached, `trainer.max_tokens` or `trainer.max_time` (seconds),
        by all its steps and processes so far; None if neither is. A limit of 0 is none."""
        if self.trainer.max_tokens and self.tokens >= self.trainer.max_tokens:
            return f"trainer.max_tokens={self.trainer.max_tokens} is reached"
        if self.trainer.max_time and self.elapsed >= self.trainer.max_time:
            return f"trainer.max_time={self.trainer.max_time:g} seconds is reached"
        return None

    def note(self, finding: Finding) -> None:
        """Adds a finding to those of the run, which go into checkpoints and results.json, and shows its text. Does
        nothing if a finding with the same text was noted before."""
        if finding.text not in [each.text for each in self.findings]:
            self.findings.append(finding)
            self.display.message(finding.text)

    def state(self, stage: Stage, done: int) -> dict[str, Any]:
        """Returns everything that `resume` needs after step `done` of the run, one of `stage`, as plain values for
        JSON; STATE has the types. Floats may be NaN. Its lists and dictionaries are partly those of the recorder, so
        write it before the next step."""
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
        """Restores what was remembered from `state`, which `require_state` has checked. Keeps parts of `state` without
        copying them. Cuts metrics.jsonl and samples.jsonl to what was written before that checkpoint, and removes
        results.json."""
        self.done = state["step"]
        self.best, self.stale, self.stopped = state["best"], state["stale"], state["stopped"]
        self.latest, self.warm_start = state["evaluated"], state["warm_start"]
        self.tokens, self.before = state["tokens"], state["elapsed"]
        self.unrewarded = state["unrewarded"]
        self.findings = [Finding(**finding) for finding in state["findings"]]
        self.window = defaultdict(list, state["window"])
        self.spent = state["spent"]
        self.journal.cut(state["journal"])

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handles signals while the block runs: the first Ctrl-C, SIGTERM or SIGHUP is remembered, and `step` stops the
        run after the current step; a second one raises KeyboardInterrupt at once. The message that the first one shows
        is `on_signal`.

        A SIGHUP after another signal is ignored, because a terminal that closes may send several. So is every SIGHUP if
        it was ignored when the block began, as under nohup. Does nothing outside the main thread: Python allows no
        other to set handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def remember(signum: int, _frame: object) -> None:
            if self.signal is not None and signum == signal.SIGHUP:
                return
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = signum
            self.display.message(f"{signal.Signals(signum).name}: {self.on_signal}")

        handled = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handled.append(signal.SIGHUP)
        before = {name: signal.signal(name, remember) for name in handled}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def _require_rewards(self, stage: Stage, done: int, rollout: Rollout) -> None:
        """Raises UserError if no text of the last WITHOUT_REWARD batches, or of a shorter stage, has a reward. One such
        batch is no reason to stop: a reward may apply to few sources."""
        none = rollout.rewards is not None and not bool(rollout.valid.any())
        self.unrewarded = self.unrewarded + 1 if none else 0
        if self.unrewarded >= min(WITHOUT_REWARD, stage.end - stage.start):
            raise UserError(
                f"step {done}",
                f"no text of the last {self.unrewarded} batches has a reward: all are NaN, or None from a function",
                f"correct the reward, then {self.go_on}",
            )

    def _count(self, stage: Stage, tokens: int, metrics: dict[str, float], seconds: dict[str, float]) -> None:
        """Adds the numbers of a step to those of the next log line and of the run."""
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
        """Writes one line for the steps since the last line: means, and the extremes of metrics named /min or /max."""
        values = {name: over_steps(name, values) for name, values in self.window.items()}
        self.journal.metrics(done, stage.name, "train", None, self.elapsed, values)
        self.window.clear()
