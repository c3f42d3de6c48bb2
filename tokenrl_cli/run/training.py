"""A training run: the warm start, then the RL stage, then the results on test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenrl_cli.data.batching import Batching
from tokenrl_cli.data.counts import fault_findings, split_findings
from tokenrl_cli.data.splits import drawn_by
from tokenrl_cli.episodes.scoring import reported
from tokenrl_cli.files.records import read_json, yaml_text
from tokenrl_cli.files.writing import write
from tokenrl_cli.interfaces import Finding, UserError
from tokenrl_cli.optim import NonFinite, horizon_findings
from tokenrl_cli.report.display import choose_display
from tokenrl_cli.report.journal import Journal
from tokenrl_cli.report.results import results
from tokenrl_cli.run import assembly, checkpoint, start
from tokenrl_cli.run.assembly import STAGES
from tokenrl_cli.run.checkpoint import Checkpoint
from tokenrl_cli.run.directory import CONFIG
from tokenrl_cli.run.evaluation import acting_policy, same_policy
from tokenrl_cli.run.findings import memorisation_findings, sampling_findings
from tokenrl_cli.run.header import run_header
from tokenrl_cli.run.loop import Stage, run_stage
from tokenrl_cli.run.recorder import Interrupted, Recorder, Trainer
from tokenrl_cli.run.reward_check import check_rewards, differing_metrics


class Training:
    """A run in its directory, from its start or from a checkpoint to its results.

    `saved` is the checkpoint to resume from, None at the start. `record` becomes config.yaml of the run, `line` holds
    the overrides as typed, `go_on` is the command that resumes the run after an interruption, `afterwards` are commands
    to suggest at its end. The constructor builds all objects, with the initial or the saved weights, and writes no
    file; it makes the directory if it is missing, and sets the number of threads and the global generator of torch. It
    raises UserError for a config that cannot run.
    """

    def __init__(
        self,
        config: dict[str, Any],
        run: Path,
        saved: Checkpoint | None,
        record: dict[str, Any],
        line: list[str],
        go_on: str,
        afterwards: list[str],
    ) -> None:
        self.config, self.directory, self.trust = config, run, config["imports"]
        self.record, self.line, self.go_on, self.afterwards = record, line, go_on, afterwards
        self.begun = False  # whether the first stage was entered
        self.trainer = Trainer(**config["trainer"])
        self.saved = saved
        # where the initial weights and the tokenizers come from: the checkpoint to resume, or that of init_from
        self.origin = self.saved
        if self.saved is None:
            self.origin = start.origin_of(config["init_from"])
        assembly.use_threads(self.trainer.threads)
        device = assembly.device_of(self.trainer.device)
        precision = assembly.precision_of(self.trainer.precision)
        tokenizers = self.origin.tokenizer_dir if self.origin else None
        numerics = device, precision, config["seed"]
        self.task = assembly.task_of(config, self.trust, *numerics, tokenizers, splits=assembly.SPLITS)
        # a monitor that no evaluation reports is an error now, not at the first evaluation
        is_metric = config["reward"] in config["metrics"].values()
        self.trainer.check_monitors(reported(self.task.reward, self.task.metrics, is_metric))
        self.model = assembly.model_of(config, self.trust, self.task)
        if self.origin is not None:
            checkpoint.restore(self.model, self.origin)
        if self.saved is None and self.origin is not None:
            self._check_start(self.origin)
        if self.saved is None and start.pretrained_directory(config["init_from"]):
            start.take_pretrained(self.model, config, self.trust, self.task)
        self.recorder: Recorder = Recorder(
            run, config, self.trainer, self.task, self.model, Journal(run), choose_display(), self.go_on
        )

    def _check_start(self, origin: Checkpoint) -> None:
        """Raises UserError if the policy of `origin`, the checkpoint of init_from, is not its model alone.

        Only the weights of the model are taken over. If a policy chooses tokens by Q-values from a head of its own, the
        run would start from another policy than the one that was learned.
        """
        if not any(name.startswith("policy.") for name in origin.algorithm):
            return
        # its own config: the one of this run may have another algorithm
        policy = assembly.policy_of(origin, origin.config, self.trust, self.task)
        if not same_policy(policy, self.model, self.task):
            before = origin.path.parent / "warm_start"
            problem = "chooses tokens by learned values: its model alone is not the policy that was learned"
            example = f", e.g. {before}" if before.exists() else ""
            raise UserError(f"init_from={origin.path}", problem, f"name a checkpoint of the warm start{example}")

    def run(self, findings: list[Finding], learns: bool) -> float | None:
        """Runs the warm start, RL and the final evaluation on test, and writes everything into the directory of the
        run. Call it once, holding the lock of the run (`directory.locked`). Returns the objective: the value of
        `trainer.monitor` on val at the best checkpoint, where the one that RL started from counts, too. It may be NaN.

        `findings` are those of the checks of the config, reported with the others before the first step; `learns` says
        whether any stage that has steps learns from rewards.

        Raises UserError if it `learns` and no demonstration, or no text of WITHOUT_REWARD (10) steps in a row, has a
        reward; if a reward fails or does not fit the credit; and if a loss, gradient, parameter or probability is not
        finite: the step is then not saved. After Ctrl-C, SIGTERM or SIGHUP it finishes the step, saves a checkpoint and
        raises SystemExit with 128 + the signal; a second one raises KeyboardInterrupt at once, without saving. A first
        signal during the evaluation on test, after the last step, is ignored; outside the main thread, and before the
        first stage, signals act as they do elsewhere.
        """
        # checks that score demonstrations come before config.yaml is replaced: if one fails, the run is as it was
        found = findings + check_rewards(self.task, learns)
        found += sampling_findings(self.task, ("val", "test"))
        write(self.directory / CONFIG, yaml_text(self.record))
        if self.saved is not None:
            checkpoint.restore_links(self.directory, self.saved)
            self.recorder.resume(self.saved.state)
        elif self.config["resume"]:
            self.recorder.journal.cut({})  # no checkpoint yet: start again with empty logs
        stages = [("warm_start", self.trainer.warm_start_steps), ("train", self.trainer.steps)]
        done = self.saved.state["step"] if self.saved else 0
        self.recorder.display.start(str(self.directory), stages, done, run_header(self.config, self.task, self.model))
        if self.config["resume"] and self.saved is None:
            self.recorder.display.message("no checkpoint was saved yet: the run starts again")
        differing = differing_metrics(self.config["reward"], self.task.reward, self.config["metrics"])
        found += fault_findings(self.task.dataset, assembly.SPLITS)
        found += split_findings(self.task.dataset, self.task.source_reader, self.task.tokenizer)
        for finding in [*found, *differing]:
            self.recorder.note(finding)
        try:
            with self.recorder.signals():
                if self.saved is None or self.saved.state["stage"] == "warm_start":
                    self._warm_start()
                stage = self._reinforce()
                return self._finish(stage)
        except NonFinite as error:
            last = self.directory / "checkpoints" / "last"
            good = f"the last good checkpoint is {last.resolve()}" if last.exists() else "there is no checkpoint yet"
            raise UserError(
                f"step {error.step or self.recorder.done + 1} of seed {self.task.seed}",
                f"{error.problem}: the run stopped and did not save this step; {good}",
                f"lower the learning rate, or clip: {self.go_on} {STAGES[self.stage]}.optimizer.lr=...",
            ) from None
        except Interrupted as stop:
            self.recorder.display.message(f"saved; resume with: {self.go_on}")
            raise SystemExit(stop.status) from None
        finally:
            self.recorder.display.close()

    def _stage(self, name: str, first: int, steps: int) -> Stage:
        """A new stage of `steps` steps from step `first` of the run on: its algorithm and its batches. Notes their
        findings."""
        task, size = self.task, self.trainer.warm_start_batch_size if name == "warm_start" else self.trainer.batch_size
        algorithm = assembly.algorithm_of(self.config, self.trust, task, self.model, name)
        limit = task.decoding.max_length
        tokenizers, alike = (task.source_reader, task.tokenizer), self.trainer.alike_lengths
        split, member = drawn_by(task.dataset, name)
        varies_speed = not algorithm.needs_rewards
        batching = Batching(task.dataset, split, size, *tokenizers, limit, task.seed, alike, member, varies_speed)
        schedule = (self.config[assembly.STAGES[name]].get("optimizer") or {}).get("schedule") or {}
        for finding in [*batching.findings(), *horizon_findings(assembly.STAGES[name], schedule, steps)]:
            self.recorder.note(finding)
        return Stage(name, algorithm, batching, first, first + steps)

    def _run(self, stage: Stage, done: int) -> None:
        """Trains a stage from step `done` of the run on, unless it has ended already."""
        self.stage, self.begun = stage.name, True
        if self.recorder.stopped is None and not self.recorder.over_budget():
            run_stage(stage, done, self.task, self.recorder)

    def _warm_start(self) -> None:
        """Runs the warm start, from its beginning or from the checkpoint.

        Then loads the weights of its best or last checkpoint, as `trainer.warm_start_from` says, and points the links
        `warm_start` and `best` at it. Notes a finding if its reward on val is below `trainer.gate`.
        """
        stage = self._stage("warm_start", 0, self.trainer.warm_start_steps)
        done = 0
        if self.saved is not None:
            done = self.saved.state["step"]
            checkpoint.restore_state(stage.algorithm.load_state_dict, self.saved, self.saved.algorithm)
        self._run(stage, done)
        recorder = self.recorder
        if recorder.latest is None or recorder.latest["step"] != recorder.done:  # no step was taken
            recorder.save(stage, recorder.done, recorder.evaluate_on_val(stage, recorder.done))
        chosen = checkpoint.load(self.directory / "checkpoints" / self.trainer.warm_start_from)
        checkpoint.restore(self.model, chosen)
        for name in ("warm_start", "best"):
            checkpoint.set_link(self.directory, name, chosen.path)
        recorder.begin_rl(chosen.state["evaluated"])
        assert recorder.best is not None
        gate, reward = self.trainer.gate, recorder.best["reward"]
        if gate is not None and not reward >= gate:  # NaN counts as below
            text = (
                f"the warm start has a reward of {reward:.3f} on val, below trainer.gate={gate:g}: "
                "train it longer, or the gain of RL may only be what more imitation would give"
            )
            recorder.note(Finding("gate", "warning", recorder.done, text, "trainer.warm_start_steps"))

    def _reinforce(self) -> Stage:
        """Runs the RL stage, which has an optimiser of its own, and returns it. Its policy is evaluated before its
        first step."""
        saved = self.saved.state if self.saved is not None and self.saved.state["stage"] == "train" else None
        done = saved["step"] if saved else self.recorder.done
        stage = self._stage("train", saved["stage_start"] if saved else done, self.trainer.steps)
        if saved and self.saved is not None:
            checkpoint.restore_state(stage.algorithm.load_state_dict, self.saved, self.saved.algorithm)
        elif self.trainer.steps:
            # a Q-learning policy differs from the warm start even before its first update
            policy = acting_policy(stage.algorithm)
            val = self.recorder.evaluate(policy, "val", "train", done)
            if stage.algorithm.needs_rewards:
                for finding in memorisation_findings(policy, self.task, self.trainer.eval_batch_size, val):
                    self.recorder.note(finding)
        self._run(stage, done)
        return stage

    def _last_of_rl(self) -> Path | None:
        """The checkpoint that holds the policy of the end of RL; None if RL took no step since the last one."""
        last = checkpoint.find(self.directory / "checkpoints" / "last")
        state = read_json(last / "state.json", "checkpoint")  # alone: the tensors are as large as those in memory
        return last if state["run"]["stage"] == "train" and state["step"] == self.recorder.done else None

    def _finish(self, stage: Stage) -> float | None:
        """Evaluates the policies of the warm start, of the end and of the best checkpoint on test, writes results.json,
        shows the table, and returns the objective. A first signal does not stop it, and its message says so. Raises
        Interrupted, before all this, if a signal came and no step followed that would have stopped the run."""
        recorder = self.recorder
        if recorder.signal:
            raise Interrupted(recorder.signal)
        recorder.on_signal = "the run ends with the evaluation on test; a second signal stops it at once"
        if over := recorder.over_budget():
            recorder.note(Finding("budget", "note", recorder.done, f"stopped early: {over}", None))
        rows = {"final": recorder.evaluate(acting_policy(stage.algorithm), "test", "final", recorder.done)}
        evaluated = {self._last_of_rl(): rows["final"]}
        for name in ("warm_start", "best"):
            path = checkpoint.find(self.directory / "checkpoints" / name)
            if path in evaluated:  # decoding again would give the same texts
                rows[name] = recorder.record(replace(evaluated[path], stage=name))
                continue
            saved = checkpoint.load(path)
            # training is over: a model of its own would be read from a pretrained checkpoint once more
            policy = assembly.policy_in(self.model, saved, self.config, self.trust, self.task)
            rows[name] = evaluated[path] = recorder.evaluate(policy, "test", name, saved.step)
        objective = recorder.best["value"] if recorder.best else None
        summary = results(rows, objective, recorder.elapsed, recorder.spent, recorder.findings)
        recorder.journal.results(summary | {"overrides": self.line})
        recorder.display.final(summary, str(self.directory), self.afterwards)
        return objective
