"""`tokenrl train`: the warm start, then RL, then the table that says what was gained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from tokenrl_cli.interfaces import Finding
    from tokenrl_cli.run.checkpoint import Checkpoint
    from tokenrl_cli.run.loop import Stage
    from tokenrl_cli.run.recorder import Recorder


def run(config: DictConfig) -> float | None:
    """-> the objective: `trainer.monitor` at the best checkpoint, on val."""
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commandline.continuation import CONFIG, unused
    from tokenrl_cli.directory import forget, locked

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    run, line = Path(HydraConfig.get().runtime.output_dir), list(HydraConfig.get().overrides.task)
    with locked(run):
        if not plain["resume"]:
            unused(str(run), "")  # nobody else has begun there in the meantime
        record = _record(OmegaConf.to_container(config), plain)
        if not plain["resume"]:
            _keep(run, record)  # from now on the run can be gone on with
        training = None
        try:
            training = _checked(plain, run, record, line)
            return training.run()
        except (Exception, SystemExit):
            if not plain["resume"] and not (training and training.begun):
                forget(run, CONFIG)  # there is nothing that it could be gone on with
            raise


def _checked(plain: dict[str, Any], run: Path, record: dict[str, Any], line: list[str]) -> Training:
    """The run of a resolved config, after all that can be said of it without a step."""
    from tokenrl_cli.commandline.continuation import config_of, filled, given
    from tokenrl_cli.commandline.outside_data import refuse_missing, refuse_unnamed
    from tokenrl_cli.commands.idle import idle_findings
    from tokenrl_cli.commands.keys import Train, require_keys
    from tokenrl_cli.commands.validate import readers
    from tokenrl_cli.data.splits import require_references
    from tokenrl_cli.interfaces import UserError
    from tokenrl_cli.run import checkpoint
    from tokenrl_cli.run.assembly import require_stages

    require_keys(plain, Train)
    saved = None
    if plain["resume"]:
        started_in, theirs = config_of(run)
        saved = checkpoint.newest(run, plain["fallback"])
        read = plain if saved is None else {key: value for key, value in plain.items() if key != "init_from"}
        theirs = filled(theirs, plain["data_root"])
        refuse_unnamed(read, theirs, given(line))
        refuse_missing(read, theirs, started_in)
    elif plain["fallback"]:
        raise UserError("fallback=true", "goes with resume=RUN: it says which checkpoint to go on from")
    training = Training(plain | {"started_in": str(Path.cwd())}, run, saved, record, line)
    task, stages = training.task, require_stages(plain, plain["imports"], training.task)
    training.found += idle_findings(plain, task.decoding, line)
    require_references(task.dataset, readers(plain, task, stages))
    steps = {"warm_start": training.trainer.warm_start_steps, "algorithm": training.trainer.steps}
    training.rewarded = any(stages[key].needs_rewards for key, count in steps.items() if count)
    return training


def _record(raw: Any, plain: dict[str, Any]) -> dict[str, Any]:
    """What config.yaml of the run says: all that is true from now on, resolved but for where the data are."""
    from tokenrl_cli.commandline.continuation import kept, require_plain

    record = kept(raw, plain) | {"resume": None, "fallback": False, "started_in": str(Path.cwd())}
    require_plain({key: value for key, value in record.items() if key != "started_in"}, "config")
    return record


def _keep(run: Path, record: dict[str, Any]) -> None:
    from tokenrl_cli.commandline.continuation import CONFIG
    from tokenrl_cli.directory import write
    from tokenrl_cli.files.records import yaml_text

    write(run / CONFIG, yaml_text(record))


class Training:
    """One run in one directory, from wherever it stands to its results."""

    def __init__(
        self, config: dict[str, Any], run: Path, saved: Checkpoint | None, record: dict[str, Any], line: list[str]
    ) -> None:
        from tokenrl_cli.commandline.continuation import go_on, refuse_changes
        from tokenrl_cli.episodes.scoring import reported
        from tokenrl_cli.report.journal import Journal
        from tokenrl_cli.report.terminal import display
        from tokenrl_cli.run import assembly, checkpoint
        from tokenrl_cli.run.recorder import Recorder, Trainer, require_state

        self.config, self.directory, self.trust = config, run, config["imports"]
        self.record, self.line, self.go_on = record, line, go_on(run, config)
        self.found: list[Finding] = []  # before the first step
        self.begun = False  # whether that was taken
        self.rewarded = True  # a stage with steps learns from rewards
        self.trainer = Trainer(**config["trainer"])
        self.saved = saved
        if saved is not None:
            require_state(saved)
            refuse_changes(saved.config, saved.state["stage"], config)
        self.origin = self.saved
        if self.saved is None and config["init_from"]:
            self.origin = checkpoint.load(checkpoint.find(Path(config["init_from"]).expanduser(), ("best", "last")))
        assembly.use_threads(self.trainer.threads)
        device = assembly.device_of(self.trainer.device)
        precision = assembly.precision_of(self.trainer.precision)
        tokenizers = self.origin.tokenizer_dir if self.origin else None
        facts = (config, self.trust, device, precision, config["seed"], tokenizers)
        self.task = assembly.task_of(*facts, splits=assembly.SPLITS)
        is_metric = config["reward"] in config["metrics"].values()
        self.trainer.check_monitors(reported(self.task.reward, self.task.metrics, is_metric))
        self.model = assembly.model_of(config, self.trust, self.task)
        if self.origin is not None:
            checkpoint.restore(self.model, self.origin)
        if self.saved is None and self.origin is not None:
            self._check_start(self.origin)
        self.recorder: Recorder = Recorder(
            run, config, self.trainer, self.task, self.model, Journal(run), display(), self.go_on
        )

    def _check_start(self, origin: Checkpoint) -> None:
        """Refuses to begin from the model of a policy that is more than its model."""
        from tokenrl_cli.commandline.arguments import override
        from tokenrl_cli.interfaces import UserError
        from tokenrl_cli.run import assembly
        from tokenrl_cli.run.loop import agree

        if not any(name.startswith("policy.") for name in origin.algorithm):
            return
        policy = assembly.policy_of(origin, origin.config, self.trust, self.task)
        if not agree(policy, self.model, self.task):
            before = origin.path.parent / "warm_start"
            remedy = f"begin from what it began from, {override('init_from', str(before))}" if before.exists() else ""
            raise UserError(
                f"init_from={origin.path}",
                "acts by values: its model alone is not the policy that was learned",
                remedy or "name a checkpoint of the warm start",
            )

    def run(self) -> float | None:
        from tokenrl_cli.commands.facts import facts
        from tokenrl_cli.data.counts import split_findings
        from tokenrl_cli.interfaces import UserError
        from tokenrl_cli.optim import NonFinite
        from tokenrl_cli.run import checkpoint
        from tokenrl_cli.run.assembly import STAGES
        from tokenrl_cli.run.loop import rehearse, sampling_findings
        from tokenrl_cli.run.recorder import Interrupted
        from tokenrl_cli.run.reward_check import differing_metrics

        found = self.found + rehearse(self.task, self.rewarded)
        found += sampling_findings(self.task, ("val", "test"))
        _keep(self.directory, self.record)
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

    def _stage(self, name: str, start: int, steps: int) -> Stage:
        """A stage from its first step, or from where the checkpoint left it."""
        from tokenrl_cli.data.batching import Batching
        from tokenrl_cli.data.splits import drawn_by
        from tokenrl_cli.optim import horizon_findings
        from tokenrl_cli.run import assembly
        from tokenrl_cli.run.loop import Stage

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
        from tokenrl_cli.run.loop import run_stage

        self.stage, self.begun = stage.name, True
        if self.recorder.stopped is None and not self.recorder.over_budget():
            run_stage(stage, done, self.task, self.recorder)

    def _warm_start(self) -> None:
        """Imitation. Ends with the weights of its best or of its last evaluation, as `trainer.warm_start_from` says;
        `warm_start` names that checkpoint from then on."""
        from tokenrl_cli.interfaces import Finding
        from tokenrl_cli.run import checkpoint

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
        from tokenrl_cli.run import checkpoint
        from tokenrl_cli.run.loop import acting_policy, memory_findings

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
        from tokenrl_cli.interfaces import Finding
        from tokenrl_cli.report.results import results
        from tokenrl_cli.run import assembly, checkpoint
        from tokenrl_cli.run.loop import acting_policy

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
        recorder.display.final(summary, str(self.directory), next_commands(self.directory, self.config))
        return objective


def next_commands(run: Path, config: dict[str, Any]) -> list[str]:
    """What to type when a run is finished, to be pasted as it is. Generating reads none of its data."""
    from tokenrl_cli.commandline.arguments import override, typed
    from tokenrl_cli.commandline.outside_data import carried

    ckpt, imports = override("ckpt", str(run)), {"imports": config["imports"]}
    return [typed("eval", ckpt, *carried(config | {"init_from": None})), typed("generate", ckpt, *carried(imports))]
