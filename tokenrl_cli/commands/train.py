"""`tokenrl train`: the warm start, then RL, then the table that says what was gained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from tokenrl_cli.run.training import Training


def run(config: DictConfig) -> float | None:
    """-> the objective: `trainer.monitor` at the best checkpoint, on val."""
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commandline.earlier_run import unused
    from tokenrl_cli.run.directory import locked, remove_traces

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
                remove_traces(run)  # there is nothing that it could be gone on with
            raise


def _checked(plain: dict[str, Any], run: Path, record: dict[str, Any], line: list[str]) -> Training:
    """The run of a resolved config, after all that can be said of it without a step."""
    from tokenrl_cli.commandline.earlier_run import config_of, filled, given, go_on, refuse_changes
    from tokenrl_cli.commandline.outside_data import refuse_missing, refuse_unnamed
    from tokenrl_cli.commands.idle import idle_findings
    from tokenrl_cli.commands.keys import Train, require_keys
    from tokenrl_cli.commands.validate import construct, readers
    from tokenrl_cli.data.splits import require_references
    from tokenrl_cli.interfaces import UserError
    from tokenrl_cli.run import checkpoint
    from tokenrl_cli.run.recorder import require_state
    from tokenrl_cli.run.training import Training

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
    parts = construct(plain)  # a value out of range is told now, not after the warm start
    idle = idle_findings(plain, parts["decode"], line)
    config = plain | {"started_in": str(Path.cwd())}
    if saved is not None:
        require_state(saved)
        refuse_changes(saved.config, saved.state["stage"], config)
    training = Training(config, run, saved, record, line, go_on(run, config), next_commands(run, config))
    training.found += idle
    require_references(training.task.dataset, readers(plain, parts, training.task.dataset))
    return training


def _record(raw: Any, plain: dict[str, Any]) -> dict[str, Any]:
    """What config.yaml of the run says: all that is true from now on, resolved but for where the data are."""
    from tokenrl_cli.commandline.earlier_run import kept, require_plain

    record = kept(raw, plain) | {"resume": None, "fallback": False, "started_in": str(Path.cwd())}
    require_plain({key: value for key, value in record.items() if key != "started_in"}, "config")
    return record


def _keep(run: Path, record: dict[str, Any]) -> None:
    from tokenrl_cli.files.records import yaml_text
    from tokenrl_cli.files.writing import write
    from tokenrl_cli.run.directory import CONFIG

    write(run / CONFIG, yaml_text(record))


def next_commands(run: Path, config: dict[str, Any]) -> list[str]:
    """What to type when a run is finished, to be pasted as it is. Generating reads none of its data."""
    from tokenrl_cli.commandline.arguments import override, typed
    from tokenrl_cli.commandline.outside_data import carried

    ckpt, imports = override("ckpt", str(run)), {"imports": config["imports"]}
    return [typed("eval", ckpt, *carried(config | {"init_from": None})), typed("generate", ckpt, *carried(imports))]
