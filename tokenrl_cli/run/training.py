"""One run in one directory: the warm start, then RL, then the results on test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenrl_cli.config.build import locate
from tokenrl_cli.data.batching import Batching
from tokenrl_cli.data.counts import split_findings
from tokenrl_cli.data.splits import drawn_by
from tokenrl_cli.episodes.scoring import reported
from tokenrl_cli.files.records import yaml_text
from tokenrl_cli.files.writing import write
from tokenrl_cli.interfaces import Finding, UserError
from tokenrl_cli.optim import NonFinite, horizon_findings
from tokenrl_cli.report.display import choose_display
from tokenrl_cli.report.journal import Journal
from tokenrl_cli.report.results import results
from tokenrl_cli.run import assembly, checkpoint
from tokenrl_cli.run.assembly import STAGES
from tokenrl_cli.run.checkpoint import Checkpoint
from tokenrl_cli.run.directory import CONFIG
from tokenrl_cli.run.evaluation import acting_policy, agree
from tokenrl_cli.run.facts import facts
from tokenrl_cli.run.findings import memory_findings, sampling_findings
from tokenrl_cli.run.loop import Stage, run_stage
from tokenrl_cli.run.recorder import Interrupted, Recorder, Trainer
from tokenrl_cli.run.reward_check import check_rewards, differing_metrics


class Training:
    """One run in one directory, from wherever it stands to its results.

    `record` is what config.yaml of the run says from its first step on. `line` holds the overrides as they were typed,
    `go_on` the command that goes on with the run when it was interrupted, `afterwards` those to type when it is done.
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
        self.found: list[Finding] = []  # before the first step
        self.begun = False  # whether that was taken
        self.trainer = Trainer(**config["trainer"])
        self.saved = saved
        self.origin = self.saved
        if self.saved is None and config["init_from"]:
            self.origin = checkpoint.load(checkpoint.find(Path(config["init_from"]).expanduser(), ("best", "last")))
        assembly.use_threads(self.trainer.threads)
        device = assembly.device_of(self.trainer.device)
        precision = assembly.precision_of(self.trainer.precision)
        tokenizers = self.origin.tokenizer_dir if self.origin else None
        numerics = device, precision, config["seed"]
        self.task = assembly.task_of(config, self.trust, *numerics, tokenizers, splits=assembly.SPLITS)
        is_metric = config["reward"] in config["metrics"].values()
        self.trainer.check_monitors(reported(self.task.reward, self.task.metrics, is_metric))
        self.model = assembly.model_of(config, self.trust, self.task)
        if self.origin is not None:
            checkpoint.restore(self.model, self.origin)
        if self.saved is None and self.origin is not None:
            self._check_start(self.origin)
        self.recorder: Recorder = Recorder(
            run, config, self.trainer, self.task, self.model, Journal(run), choose_display(), self.go_on
        )

    def _check_start(self, origin: Checkpoint) -> None:
        """Refuses to begin from the model of a policy that is more than its model."""
        if not any(name.startswith("policy.") for name in origin.algorithm):
            return
        policy = assembly.policy_of(origin, origin.config, self.trust, self.task)
        if not agree(policy, self.model, self.task):
            before = origin.path.parent / "warm_start"
            problem = "acts by values: its model alone is not the policy that was learned"
            start = f", which {before} is" if before.exists() else ""
            raise UserError(f"init_from={origin.path}", problem, f"name a checkpoint of the warm start{start}")

    def run(self) -> float | None:
        found = self.found + check_rewards(self.task, self._learns_from_rewards())
        found += sampling_findings(self.task, ("val", "test"))
        write(self.directory / CONFIG, yaml_text(self.record))
        if self.saved is not None:
            checkpoint.point_as(self.directory, self.saved)
            self.recorder.resume(self.saved.state)
        elif self.config["resume"]:
            self.recorder.journal.cut({})
        stages = [("warm_start", self.trainer.warm_start_steps), ("train", self.trainer.steps)]
        done = self.saved.state["step"] if self.saved else 0
        self.recorder.display.start(str(self.directory), stages, done, facts(self.config, self.task, self.model))
        if self.config["resume"] and self.saved is None:
            self.recorder.display.message("nothing was saved yet: the run begins again")
        blocks = (self.config["reward"], self.task.reward, self.config["metrics"], self.task.metrics)
        found += split_findings(self.task.dataset, self.task.source_tokenizer, self.task.tokenizer)
        for finding in [*found, *differing_metrics(*blocks)]:
            self.recorder.note(finding)
        try:
            with self.recorder.signals():
                if self.saved is None or self.saved.state["stage"] == "warm_start":
                    self._warm_start()
                stage = self._reinforce()
                return self._finish(stage)
        except NonFinite as error:
            last = self.directory / "checkpoints" / "last"
            kept = f"the last good checkpoint is {last.resolve()}" if last.exists() else "there is no checkpoint yet"
            raise UserError(
                f"step {error.step or self.recorder.done + 1} of seed {self.task.seed}",
                f"{error.problem}: the run stopped and saved nothing of it; {kept}",
                f"lower the learning rate, or clip: {self.go_on} {STAGES[self.stage]}.optimizer.lr=...",
            ) from None
        except Interrupted as stop:
            self.recorder.display.message(f"saved; go on with: {self.go_on}")
            raise SystemExit(stop.status) from None
        finally:
            self.recorder.display.close()

    def _learns_from_rewards(self) -> bool:
        """Whether a stage with steps has an algorithm that needs rewards."""
        steps = {"warm_start": self.trainer.warm_start_steps, "algorithm": self.trainer.steps}
        kinds: list[Any] = [locate(self.config[key]["_target_"], self.trust) for key, count in steps.items() if count]
        return any(getattr(kind, "needs_rewards", True) for kind in kinds)

    def _stage(self, name: str, start: int, steps: int) -> Stage:
        """A stage from its first step, or from where the checkpoint left it."""
        task, size = self.task, self.trainer.warm_start_batch_size if name == "warm_start" else self.trainer.batch_size
        algorithm = assembly.algorithm_of(self.config, self.trust, task, self.model, name)
        limit = task.decoding.max_length
        tokenizers, alike = (task.source_tokenizer, task.tokenizer), self.trainer.alike_lengths
        split, member = drawn_by(task.dataset, name)
        batching = Batching(task.dataset, split, size, *tokenizers, limit, task.seed, alike, member)
        schedule = (self.config[assembly.STAGES[name]].get("optimizer") or {}).get("schedule") or {}
        for finding in [*batching.findings(), *horizon_findings(assembly.STAGES[name], schedule, steps)]:
            self.recorder.note(finding)
        return Stage(name, algorithm, batching, start, start + steps)

    def _run(self, stage: Stage, done: int) -> None:
        self.stage, self.begun = stage.name, True
        if self.recorder.stopped is None and not self.recorder.over_budget():
            run_stage(stage, done, self.task, self.recorder)

    def _warm_start(self) -> None:
        """Imitation. Ends with the weights of its best or of its last evaluation, as `trainer.warm_start_from` says;
        `warm_start` names that checkpoint from then on."""
        stage = self._stage("warm_start", 0, self.trainer.warm_start_steps)
        done = 0
        if self.saved is not None:
            done = self.saved.state["step"]
            checkpoint.restore_state(stage.algorithm.load_state_dict, self.saved, self.saved.algorithm)
        self._run(stage, done)
        recorder = self.recorder
        if recorder.latest is None or recorder.latest["step"] != recorder.done:  # no step was taken
            recorder.save(stage, recorder.done, recorder.judge(stage, recorder.done))
        chosen = checkpoint.load(self.directory / "checkpoints" / self.trainer.warm_start_from)
        checkpoint.restore(self.model, chosen)
        for name in ("warm_start", "best"):
            checkpoint.point(self.directory, name, chosen.path)
        recorder.switch(chosen.state["evaluated"])
        assert recorder.best is not None
        gate, reward = self.trainer.gate, recorder.best["reward"]
        if gate is not None and not reward >= gate:
            text = (
                f"the warm start earns a reward of {reward:.3f} on val, short of its gate of {gate:g}: "
                "train it longer before believing what RL adds"
            )
            recorder.note(Finding("gate", "warning", recorder.done, text, "trainer.warm_start_steps"))

    def _reinforce(self) -> Stage:
        """The RL stage, with an optimiser of its own; its policy is evaluated before its first step."""
        saved = self.saved.state if self.saved is not None and self.saved.state["stage"] == "train" else None
        done = saved["step"] if saved else self.recorder.done
        stage = self._stage("train", saved["stage_start"] if saved else done, self.trainer.steps)
        if saved and self.saved is not None:
            checkpoint.restore_state(stage.algorithm.load_state_dict, self.saved, self.saved.algorithm)
        elif self.trainer.steps:
            policy = acting_policy(stage.algorithm)
            val = self.recorder.evaluate(policy, "val", "train", done)
            if stage.algorithm.needs_rewards:
                for finding in memory_findings(policy, self.task, self.trainer.eval_batch_size, val):
                    self.recorder.note(finding)
        self._run(stage, done)
        return stage

    def _finish(self, stage: Stage) -> float | None:
        """Warm start, final and best on test; what RL gained, with its interval; results.json and the table."""
        recorder = self.recorder
        if over := recorder.over_budget():
            recorder.note(Finding("budget", "note", recorder.done, f"stopped early: {over}", None))
        rows = {"final": recorder.evaluate(acting_policy(stage.algorithm), "test", "final", recorder.done)}
        for name in ("warm_start", "best"):
            saved = checkpoint.load(self.directory / "checkpoints" / name)
            policy = assembly.policy_of(saved, self.config, self.trust, self.task)
            rows[name] = recorder.evaluate(policy, "test", name, saved.step)
        objective = recorder.best["value"] if recorder.best else None
        summary = results(rows, objective, recorder.elapsed, recorder.spent, recorder.findings)
        recorder.journal.results(summary | {"overrides": self.line})
        recorder.display.final(summary, str(self.directory), self.afterwards)
        return objective
