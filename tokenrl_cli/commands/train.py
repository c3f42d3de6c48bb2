"""`tokenrl train`: the warm start, then RL, then the table of results."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from tokenrl_cli.interfaces import Finding
    from tokenrl_cli.run.training import Training


def run(config: DictConfig) -> float | None:
    """Trains, and returns the objective: `trainer.monitor` at the best checkpoint, on val, which may be NaN; see
    `Training.run`. Called by Hydra, on whose state (HydraConfig) it depends; the directory of the run is the one that
    Hydra has made.

    Holds the lock of the run meanwhile. If a new run fails before its first stage has begun, config.yaml, .hydra,
    train.log and the lock are removed; not if a signal ends it there. Raises UserError for a mistake of the user's,
    SystemExit if a signal stopped the run and it was saved, KeyboardInterrupt if it was not.
    """
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commandline.earlier_run import require_unused
    from tokenrl_cli.run.directory import locked, remove_traces

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    run, line = Path(HydraConfig.get().runtime.output_dir), list(HydraConfig.get().overrides.task)
    with locked(run):
        if not plain["resume"]:
            require_unused(str(run), "")  # again, under the lock: another process may have started a run there
        record = _record(OmegaConf.to_container(config), plain)
        if not plain["resume"]:
            _write_config(run, record)  # from now on the run can be resumed
        training = None
        try:
            training, findings, learns = _prepared(plain, run, record, line)
            return training.run(findings, learns)
        except (Exception, SystemExit):
            if not plain["resume"] and not (training and training.begun):
                remove_traces(run)  # there is nothing to resume
            raise


def trained(config: DictConfig) -> tuple[Path, dict[str, Any]]:
    """Trains as `run` does, and returns the directory of the run and its resolved config, for a caller in Python.
    Called by Hydra. Raises UserError for a mistake of the user's, SystemExit if a signal stopped the run and it was
    saved, KeyboardInterrupt if it was not."""
    from hydra.core.hydra_config import HydraConfig

    run(config)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return Path(HydraConfig.get().runtime.output_dir), plain


def in_checkpoint(key: str, value: Any) -> bool:
    """Returns whether a run that goes on from a checkpoint need not read the files that the root key `key` of its
    config names, with the value `value`: True for init_from, and for tokenizers and features of this package, which the
    checkpoint holds. One of the user's may read its files."""
    from tokenrl_cli.config.build import PACKAGE, is_block

    tokenizer = key in ("tokenizer", "source_tokenizer", "features") and is_block(value)
    return key == "init_from" or (tokenizer and str(value["_target_"]).startswith(f"{PACKAGE}."))


def _prepared(
    plain: dict[str, Any], run: Path, record: dict[str, Any], line: list[str]
) -> tuple[Training, list[Finding], bool]:
    """The Training for a resolved config, after every check that needs no step; the findings of these checks, and
    whether a stage that has steps learns from rewards. `record` is what config.yaml will hold, `line` the overrides as
    typed. Raises UserError."""
    from tokenrl_cli.commandline.earlier_run import (
        read_run_config,
        refuse_changes,
        resume_command,
        typed_values,
        with_data_root,
    )
    from tokenrl_cli.commandline.outside_data import refuse_missing, refuse_outside_data, refuse_outside_judges
    from tokenrl_cli.commands.idle import idle_findings
    from tokenrl_cli.commands.keys import Train, require_keys
    from tokenrl_cli.commands.validate import reference_readers
    from tokenrl_cli.data.splits import require_references
    from tokenrl_cli.interfaces import UserError
    from tokenrl_cli.run import checkpoint
    from tokenrl_cli.run.assembly import require_stages
    from tokenrl_cli.run.recorder import require_state
    from tokenrl_cli.run.training import Training

    require_keys(plain, Train)
    saved = None
    if plain["resume"]:
        started_in, run_config = read_run_config(run)
        saved = checkpoint.newest(run, plain["fallback"])
        # with a checkpoint init_from is not read any more, nor is the path of a tokenizer: it holds them
        read = plain if saved is None else {key: value for key, value in plain.items() if not in_checkpoint(key, value)}
        run_config = with_data_root(run_config, plain["data_root"])
        refuse_outside_data(read, run_config, typed_values(line))
        refuse_missing(read, run_config, started_in)
    elif plain["fallback"]:
        raise UserError("fallback=true", "goes with resume=RUN: it says which checkpoint to resume from")
    refuse_outside_judges(plain, typed_values(line))
    config = plain | {"started_in": str(Path.cwd())}
    if saved is not None:
        require_state(saved)
        refuse_changes(saved.config, saved.state["stage"], config)
    training = Training(config, run, saved, record, line, resume_command(run, config), next_commands(run, config))
    task, stages = training.task, require_stages(plain, plain["imports"], training.task)
    findings = idle_findings(plain, task.decoding, line)
    require_references(task.dataset, reference_readers(plain, task, stages))
    steps = {"warm_start": training.trainer.warm_start_steps, "algorithm": training.trainer.steps}
    return training, findings, any(stages[key].needs_rewards for key, count in steps.items() if count)


def _record(raw: Any, plain: dict[str, Any]) -> dict[str, Any]:
    """The content of config.yaml of a run: the config that holds from now on, resolved except for ${data_root} in
    paths. Raises UserError if a value holds another "${"."""
    from tokenrl_cli.commandline.earlier_run import recorded_values, require_plain

    record = recorded_values(raw, plain) | {"resume": None, "fallback": False, "started_in": str(Path.cwd())}
    require_plain({key: value for key, value in record.items() if key != "started_in"}, "config")
    return record


def _write_config(run: Path, record: dict[str, Any]) -> None:
    """Writes config.yaml of a run."""
    from tokenrl_cli.files.records import yaml_text
    from tokenrl_cli.files.writing import write
    from tokenrl_cli.run.directory import CONFIG

    write(run / CONFIG, yaml_text(record))


def next_commands(run: Path, config: dict[str, Any]) -> list[str]:
    """Returns the commands to suggest when a run is finished, ready to paste into a shell: one that evaluates, one that
    generates. `config` is the whole resolved config of the run; imports, and paths outside data_root and the current
    directory, that they need are among their overrides."""
    from tokenrl_cli.commandline.arguments import command_line, override
    from tokenrl_cli.commandline.outside_data import required_overrides
    from tokenrl_cli.commands.keys import Eval, Generate

    def command(name: str, schema: type[Eval | Generate]) -> str:
        read = {each.name: config[each.name] for each in fields(schema) if each.name in config}
        return command_line(name, override("ckpt", str(run)), *required_overrides(read))

    return [command("eval", Eval), command("generate", Generate)]
