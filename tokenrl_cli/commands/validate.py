"""`tokenrl validate`: checks the config of `train`, reads its data, and prints what would run. Trains nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from tokenrl_cli.data.splits import Reader
    from tokenrl_cli.interfaces import Dataset


@dataclass(frozen=True)
class Vocabulary:
    """Stands in for a trained tokenizer when components are only checked: they read nothing but these sizes and ids."""

    size: int = 8
    eos_id: int = 0
    unknown_id: int | None = 1


@dataclass(frozen=True)
class ReferenceMetric:
    """Stands in for a number of an evaluation that is computed from references, such as nll."""

    needs_references: bool = True


def run(config: DictConfig) -> None:
    """Checks the config and its data, and prints the target of each block, the seed, the sizes of the splits and the
    steps. Raises UserError where `train` would."""
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commands.idle import idle_findings
    from tokenrl_cli.config.build import build
    from tokenrl_cli.data.splits import require_references
    from tokenrl_cli.episodes.scoring import check_columns
    from tokenrl_cli.interfaces import Dataset
    from tokenrl_cli.run import checkpoint
    from tokenrl_cli.run.assembly import SPLITS, split_sizes

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    parts = require_valid(plain)
    for finding in idle_findings(plain, parts["decode"], HydraConfig.get().overrides.task):
        print(f"{finding.severity}: {finding.text}", file=sys.stderr)
    require_place(plain["out"])
    if plain["init_from"]:
        checkpoint.load(checkpoint.find(Path(plain["init_from"])))
    dataset = build(plain["dataset"], Dataset, plain["imports"], seed=plain["seed"])
    sizes = split_sizes(dataset, SPLITS)
    check_columns([part for key, part in parts.items() if key.startswith(("reward", "metrics."))], dataset)
    require_references(dataset, reference_readers(plain, parts, dataset))
    trainer = plain["trainer"]
    print("\n".join(f"{name:<24} {target}" for name, target in targets(plain)))
    for name in ("seed", "data_root"):
        print(f"{name:<24} {plain[name]}")
    counts = [f"{split} {'unlimited' if size is None else f'{size:,}'}" for split, size in sizes.items()]
    print(f"{'examples':<24} {', '.join(counts)}")
    print(
        f"{'would run':<24} {trainer['warm_start_steps']} steps of warm start x {trainer['warm_start_batch_size']} "
        f"sources, then {trainer['steps']} steps of RL x {trainer['batch_size']}; {trainer['monitor']} chooses the best"
    )


def require_place(out: str | None) -> None:
    """Raises UserError or OSError if the directory `out`, or outputs/ without it, cannot hold a new run."""
    from tokenrl_cli.commandline.earlier_run import require_unused
    from tokenrl_cli.files.writing import require_room

    place = Path(out or "outputs").expanduser()
    if out:
        require_unused(str(place), "")
    require_room(place)


def require_valid(config: dict[str, Any]) -> dict[str, Any]:
    """Raises UserError if a run with this config of train could not start. Returns what `build_parts` returns."""
    from tokenrl_cli.commands.keys import Train, require_keys
    from tokenrl_cli.config.build import build
    from tokenrl_cli.interfaces import Dataset

    require_keys(config, Train)
    build(config["dataset"], Dataset, config["imports"], seed=config["seed"])
    return build_parts(config)


def build_parts(config: dict[str, Any]) -> dict[str, Any]:
    """Builds every component of a config except the data set once, with a tiny vocabulary, because constructors check
    which settings go together. Raises UserError.

    Returns the components that may read references, by key (`reward`, `metrics.NAME`, and the algorithms `warm_start`
    and `algorithm`), and `decode`. Networks of this package are built without memory, so that the size of any network
    can be checked.
    """
    from tokenrl_cli.config.build import build
    from tokenrl_cli.episodes.sampling import Decoding
    from tokenrl_cli.episodes.scoring import reported
    from tokenrl_cli.interfaces import Algorithm, Credit, Model, Reward, Tokenizer
    from tokenrl_cli.run.assembly import (
        device_of,
        frozen_loader,
        meta_device,
        precision_of,
        require_loadable_policy,
        require_memory,
    )
    from tokenrl_cli.run.recorder import Trainer

    trust = config["imports"]
    trainer = Trainer(**config["trainer"])
    precision_of(trainer.precision)
    device = device_of(trainer.device)
    facts: dict[str, Any] = {"tokenizer": Vocabulary(), "seed": config["seed"], "device": device}
    facts["frozen"] = frozen_loader(trust, device)  # called by rewards that read a saved run, later
    decoding: Decoding = build(config["decode"], Decoding, trust)
    facts["max_length"] = decoding.max_length
    for name in ("tokenizer", "source_tokenizer"):
        if config.get(name):
            build(config[name], Tokenizer, trust)
    parts: dict[str, Any] = {"decode": decoding, "reward": build(config["reward"], Reward, trust, **facts)}
    parts |= {f"metrics.{name}": build(block, Reward, trust, **facts) for name, block in config["metrics"].items()}
    trainer.check_monitors(reported(parts["reward"], config["metrics"], config["reward"] in config["metrics"].values()))
    build(config["credit"], Credit, trust, **facts)
    # tensors without memory, so that even a model larger than this machine is only counted
    with meta_device(*(config[name] for name in ("model", "warm_start", "algorithm"))):
        model = build(config["model"], Model, trust, source_tokenizer=facts["tokenizer"], **facts)
        require_memory(model.parameters(), device)
        for name in ("warm_start", "algorithm"):
            parts[name] = build(
                config[name], Algorithm, trust, model=model, source_tokenizer=facts["tokenizer"], **facts
            )
            require_memory(parts[name].state_dict().values(), device)
            require_loadable_policy(parts[name], model)
    return parts


def reference_readers(config: dict[str, Any], parts: dict[str, Any], dataset: Dataset) -> list[Reader]:
    """Everything in a run that may read references, each with the split that it reads and what to change if that has
    none. `parts` are those that `build_parts` returns."""
    from tokenrl_cli.data.splits import Reader, drawn_by
    from tokenrl_cli.episodes.scoring import name_of
    from tokenrl_cli.run.evaluation import REFERENCE_METRICS

    trainer, found = config["trainer"], []
    whole = parts["reward"]
    rewards = [(f"reward.parts.{part.name}", part.reward) for part in getattr(whole, "parts", [])]
    rewards = rewards or [(f"reward={name_of(whole)}", whole)]
    other = "choose a reward that needs none: repetition, coverage, likelihood, a function of yours ..."
    remedies = {
        "warm_start": "trainer.warm_start_steps=0, perhaps with init_from=RUN",
        "algorithm": "an algorithm without demonstrations, e.g. algorithm=rloo",
    }
    stages = (("warm_start", "warm_start", "warm_start_steps"), ("train", "algorithm", "steps"))
    for stage, key, steps in stages:
        if trainer[steps]:
            split, member = drawn_by(dataset, stage)
            found.append(Reader(f"{key}={_kind(parts[key])}", parts[key], split, remedies[key], member))
            if parts[key].needs_rewards:
                found += [Reader(name, part, split, other, member) for name, part in rewards]
    for split in ("val", "test"):
        found += [Reader(name, part, split, other) for name, part in rewards]
        found += [Reader(k, part, split, f"~{k}") for k, part in parts.items() if k.startswith("metrics.")]
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
    """The (key, target) of every block at the root of a config and of every metric."""
    from tokenrl_cli.config.build import is_block

    filled = [(name, block["_target_"]) for name, block in config.items() if is_block(block)]
    metrics = [(f"metrics.{name}", block["_target_"]) for name, block in config["metrics"].items()]
    return filled + metrics
