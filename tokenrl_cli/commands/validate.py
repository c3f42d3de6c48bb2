"""`tokenrl validate`: composes and checks train's config, reads its data, runs nothing, and says what would run."""

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
    """Stands in for a trained tokenizer where only its size is looked at."""

    size: int = 8
    eos_id: int = 0
    unknown_id: int | None = 1


@dataclass(frozen=True)
class Demonstrated:
    """Stands for a number of an evaluation that is of the references."""

    needs_references: bool = True


def run(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commands.idle import idle_findings
    from tokenrl_cli.config.build import build
    from tokenrl_cli.data.splits import require_references
    from tokenrl_cli.episodes.scoring import check_columns
    from tokenrl_cli.interfaces import Dataset
    from tokenrl_cli.run import checkpoint
    from tokenrl_cli.run.assembly import SPLITS, sizes_of

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    parts = require_valid(plain)
    for finding in idle_findings(plain, parts["decode"], HydraConfig.get().overrides.task):
        print(f"{finding.severity}: {finding.text}", file=sys.stderr)
    require_place(plain["out"])
    if plain["init_from"]:
        checkpoint.load(checkpoint.find(Path(plain["init_from"])))
    dataset = build(plain["dataset"], Dataset, plain["imports"], seed=plain["seed"])
    sizes = sizes_of(dataset, SPLITS)
    check_columns([part for key, part in parts.items() if key.startswith(("reward", "metrics."))], dataset)
    require_references(dataset, readers(plain, parts, dataset))
    trainer = plain["trainer"]
    print("\n".join(f"{name:<24} {target}" for name, target in targets(plain)))
    for name in ("seed", "data_root"):
        print(f"{name:<24} {plain[name]}")
    counts = [f"{split} {'unlimited' if size is None else f'{size:,}'}" for split, size in sizes.items()]
    print(f"{'examples':<24} {', '.join(counts)}")
    print(
        f"{'would run':<24} {trainer['warm_start_steps']} steps of warm start x {trainer['warm_start_batch_size']} "
        f"sources, then {trainer['steps']} steps x {trainer['batch_size']}; {trainer['monitor']} chooses the best"
    )


def require_place(out: str | None) -> None:
    """Raises UserError or OSError where the directory of a run could not be made, or not written to."""
    from tokenrl_cli.commandline.continuation import unused
    from tokenrl_cli.files.writing import require_room

    place = Path(out or "outputs").expanduser()
    if out:
        unused(str(place), "")
    require_room(place)


def require_valid(config: dict[str, Any]) -> dict[str, Any]:
    """Raises UserError where a run of train's config could not begin. -> as `construct`."""
    from tokenrl_cli.commands.keys import Train, require_keys
    from tokenrl_cli.config.build import build
    from tokenrl_cli.interfaces import Dataset

    require_keys(config, Train)
    build(config["dataset"], Dataset, config["imports"], seed=config["seed"])
    return construct(config)


def construct(config: dict[str, Any]) -> dict[str, Any]:
    """Every part but the data set once, around a tiny vocabulary, for constructors check what goes together. Networks
    of tokenrl's own have no memory here, so one of any size can be counted. -> the parts that may read references, by
    key: the reward, metrics.NAME, and the algorithms of both stages; and `decode`."""
    from tokenrl_cli.config.build import build
    from tokenrl_cli.episodes.sampling import Decoding
    from tokenrl_cli.episodes.scoring import reported
    from tokenrl_cli.interfaces import Algorithm, Credit, Model, Reward, Tokenizer
    from tokenrl_cli.run.assembly import (
        device_of,
        frozen_by,
        precision_of,
        require_loadable_policy,
        require_room,
        without_memory,
    )
    from tokenrl_cli.run.recorder import Trainer

    trust = config["imports"]
    trainer = Trainer(**config["trainer"])
    precision_of(trainer.precision)
    device = device_of(trainer.device)
    facts: dict[str, Any] = {"tokenizer": Vocabulary(), "seed": config["seed"], "device": device}
    facts["frozen"] = frozen_by(trust, device)  # asked by the rewards that need it, and not yet
    decoding: Decoding = build(config["decode"], Decoding, trust, "decode")
    facts["max_length"] = decoding.max_length
    for name in ("tokenizer", "source_tokenizer"):
        if config.get(name):
            build(config[name], Tokenizer, trust, name)
    parts: dict[str, Any] = {"decode": decoding, "reward": build(config["reward"], Reward, trust, **facts)}
    parts |= {
        f"metrics.{name}": build(block, Reward, trust, f"metrics.{name}", **facts)
        for name, block in config["metrics"].items()
    }
    trainer.check_monitors(reported(parts["reward"], config["metrics"], config["reward"] in config["metrics"].values()))
    build(config["credit"], Credit, trust, **facts)
    with without_memory(*(config[name] for name in ("model", "warm_start", "algorithm"))):
        model = build(config["model"], Model, trust, source_tokenizer=facts["tokenizer"], **facts)
        require_room(model.parameters(), device)
        for name in ("warm_start", "algorithm"):
            parts[name] = build(
                config[name], Algorithm, trust, name, model=model, source_tokenizer=facts["tokenizer"], **facts
            )
            require_room(parts[name].state_dict().values(), device)
            require_loadable_policy(parts[name], model)
    return parts


def readers(config: dict[str, Any], parts: dict[str, Any], dataset: Dataset) -> list[Reader]:
    """All of a run that may read references, with the splits that they are read of; `parts` as `construct` gives
    them."""
    from tokenrl_cli.data.splits import Reader, drawn_by
    from tokenrl_cli.episodes.scoring import keyed_parts, name_of
    from tokenrl_cli.run.loop import OF_REFERENCES

    trainer, found = config["trainer"], []
    rewards = [(key, part.reward) for key, part in keyed_parts(parts["reward"])]
    if rewards[0][0] == "reward":
        rewards = [(f"reward={name_of(parts['reward'])}", parts["reward"])]
    other = "a reward that needs none: repetition, coverage, likelihood, a function of yours ..."
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
        if acts and trainer[key] in OF_REFERENCES:
            name = f"trainer.{key}={trainer[key]}"
            found.append(Reader(name, Demonstrated(), "val", f"trainer.{key}={usual}"))
    return found


def _kind(part: Any) -> str:
    return type(part).__module__.rpartition(".")[2]


def targets(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What every slot of the root is filled with."""
    from tokenrl_cli.config.build import is_block

    filled = [(name, block["_target_"]) for name, block in config.items() if is_block(block)]
    metrics = [(f"metrics.{name}", block["_target_"]) for name, block in config["metrics"].items()]
    return filled + metrics
