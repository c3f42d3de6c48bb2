"""`tokenrl validate`: checks the config of `train`, reads its data, and prints what would run. Trains nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from tokenrl_cli.data.splits import Reader
    from tokenrl_cli.interfaces import Algorithm
    from tokenrl_cli.run.task import Task


@dataclass(frozen=True)
class ReferenceMetric:
    """Stands for a metric of every evaluation that is computed from references, such as nll, in a `Reader`."""

    needs_references: bool = True


def run(config: DictConfig) -> None:
    """Checks the config and its data, and prints to standard output the `_target_` of each block, the seed, data_root,
    the sizes of the splits and the steps; notes go to standard error. Called by Hydra, on whose state (HydraConfig) it
    depends. Makes no directory. Trains the tokenizers on the data, or loads those of init_from.

    Raises UserError for almost every mistake for which `train` would stop before its first step, but runs no reward on
    demonstrations and does not try whether the weights of init_from fit; OSError if the directory of the run could not
    be written.
    """
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commandline.earlier_run import typed_values
    from tokenrl_cli.commandline.outside_data import refuse_outside_judges
    from tokenrl_cli.commands.idle import idle_findings
    from tokenrl_cli.commands.keys import Train, require_keys
    from tokenrl_cli.data.splits import require_references
    from tokenrl_cli.run.assembly import SPLITS
    from tokenrl_cli.run.start import origin_of

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    require_keys(plain, Train)
    require_place(plain["out"])
    start, line = origin_of(plain["init_from"]), HydraConfig.get().overrides.task
    refuse_outside_judges(plain, typed_values(line))
    task, stages = assembled(plain, start.tokenizer_dir if start else None)
    for finding in idle_findings(plain, task.decoding, line):
        print(f"{finding.severity}: {finding.text}", file=sys.stderr)
    require_references(task.dataset, reference_readers(plain, task, stages))
    trainer = plain["trainer"]
    print("\n".join(f"{name:<24} {target}" for name, target in targets(plain)))
    for name in ("seed", "data_root"):
        print(f"{name:<24} {plain[name]}")
    sizes = {split: task.dataset.size(split) for split in SPLITS}
    counts = [f"{split} {'unlimited' if size is None else f'{size:,}'}" for split, size in sizes.items()]
    print(f"{'examples':<24} {', '.join(counts)}")
    print(
        f"{'would run':<24} {trainer['warm_start_steps']} steps of warm start x {trainer['warm_start_batch_size']} "
        f"sources, then {trainer['steps']} steps of RL x {trainer['batch_size']}; {trainer['monitor']} chooses the best"
    )


def require_place(out: str | None) -> None:
    """Raises UserError if the directory `out` holds a run already, and OSError if nothing could be written to it, or to
    outputs/ if `out` is empty. Makes no directory."""
    from tokenrl_cli.commandline.earlier_run import require_unused
    from tokenrl_cli.files.writing import require_room

    place = Path(out or "outputs").expanduser()
    if out:
        require_unused(str(place), "")
    require_room(place)


def assembled(config: dict[str, Any], tokenizers: Path | None) -> tuple[Task, dict[str, Algorithm]]:
    """Builds everything of a run but its model: the task, and the algorithms of both stages as
    `assembly.require_stages` returns them, only to be looked at. `config` is the whole resolved config of `train`.

    Reads the data. Trains the tokenizers on it, or loads those of a checkpoint from the folder `tokenizers`. Seeds the
    global generator of torch. Raises UserError if a component cannot be built from this config, if components do not
    fit each other, or if a split is missing or empty.
    """
    from tokenrl_cli.episodes.scoring import reported
    from tokenrl_cli.run import assembly
    from tokenrl_cli.run.recorder import Trainer

    trainer, trust = Trainer(**config["trainer"]), config["imports"]
    device, precision = assembly.device_of(trainer.device), assembly.precision_of(trainer.precision)
    task = assembly.task_of(config, trust, device, precision, config["seed"], tokenizers, splits=assembly.SPLITS)
    trainer.check_monitors(reported(task.reward, task.metrics, config["reward"] in config["metrics"].values()))
    return task, assembly.require_stages(config, trust, task)


def reference_readers(config: dict[str, Any], task: Task, stages: dict[str, Algorithm]) -> list[Reader]:
    """Returns everything in a run that may read references, each with the split that it reads and what to change if
    that has none, for `data.splits.require_references`. `config` is the whole resolved config of `train`, `task` and
    `stages` are what `assembled` returns for it. A stage without steps is left out."""
    from tokenrl_cli.data.splits import Reader, drawn_by
    from tokenrl_cli.episodes.scoring import keyed_parts, name_of
    from tokenrl_cli.run.evaluation import REFERENCE_METRICS

    trainer, found = config["trainer"], []
    rewards = [(key, part.reward) for key, part in keyed_parts(task.reward)]
    if rewards[0][0] == "reward":
        rewards = [(f"reward={name_of(task.reward)}", task.reward)]
    other = "choose a reward that needs none: repetition, coverage, likelihood, a function of yours ..."
    remedies = {
        "warm_start": "trainer.warm_start_steps=0, perhaps with init_from=RUN",
        "algorithm": "an algorithm without demonstrations, e.g. algorithm=rloo",
    }
    for stage, key, steps in (("warm_start", "warm_start", "warm_start_steps"), ("train", "algorithm", "steps")):
        if trainer[steps]:
            split, member = drawn_by(task.dataset, stage)
            found.append(Reader(f"{key}={_kind(stages[key])}", stages[key], split, remedies[key], member))
            if stages[key].needs_rewards:
                found += [Reader(name, part, split, other, member) for name, part in rewards]
    for split in ("val", "test"):
        found += [Reader(name, part, split, other) for name, part in rewards]
        metrics = {f"metrics.{name}": metric for name, metric in task.metrics.items()}
        found += [Reader(key, metric, split, f"~{key}") for key, metric in metrics.items()]
    for key, usual, acts in (
        ("warm_start_monitor", "reward", trainer["warm_start_steps"]),
        ("monitor", "sampled_reward", True),
    ):
        if acts and trainer[key] in REFERENCE_METRICS:
            name = f"trainer.{key}={trainer[key]}"
            found.append(Reader(name, ReferenceMetric(), "val", f"trainer.{key}={usual}"))
    return found


def _kind(part: Any) -> str:
    """The name of the option that a component was built from: the last part of its module."""
    return type(part).__module__.rpartition(".")[2]


def targets(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns (key, `_target_`), for printing: first of every block at the root of a config of `train`, in the order of
    the config, then of every metric, whose key is "metrics.NAME". Blocks inside other blocks are left out. KeyError
    where the config has no `metrics`, which may be empty."""
    from tokenrl_cli.config.build import is_block

    filled = [(name, block["_target_"]) for name, block in config.items() if is_block(block)]
    metrics = [(f"metrics.{name}", block["_target_"]) for name, block in config["metrics"].items()]
    return filled + metrics
