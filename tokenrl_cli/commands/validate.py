"""`tokenrl validate`: composes and checks train's config, reads its data, runs nothing, and says what would run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf


@dataclass(frozen=True)
class Vocabulary:
    """Stands in for a trained tokenizer where only its size is looked at."""

    size: int = 8
    eos_id: int = 0
    unknown_id: int | None = 1


def run(config: DictConfig) -> None:
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    require_valid(plain)
    trainer = plain["trainer"]
    print("\n".join(f"{name:<24} {target}" for name, target in targets(plain)))
    for name in ("seed", "data_root"):
        print(f"{name:<24} {plain[name]}")
    print(
        f"{'would run':<24} {trainer['warm_start_steps']} steps of warm start x {trainer['warm_start_batch_size']} "
        f"sources, then {trainer['steps']} steps x {trainer['batch_size']}; {trainer['monitor']} chooses the best"
    )


def require_valid(config: dict[str, Any]) -> None:
    """Raises UserError where a run of train's config could not begin."""
    from tokenrl_cli.build import build
    from tokenrl_cli.commands.keys import Train, require_keys
    from tokenrl_cli.interfaces import Dataset

    require_keys(config, Train)
    build(config["dataset"], Dataset, config["imports"], seed=config["seed"])
    construct(config)


def construct(config: dict[str, Any]) -> None:
    """Every part but the data set once, around a tiny vocabulary, for constructors check what goes together. Networks
    of tokenrl's own have no memory here, so one of any size can be counted."""
    from tokenrl_cli.assemble import (
        device_of,
        frozen_by,
        precision_of,
        require_loadable_policy,
        require_room,
        without_memory,
    )
    from tokenrl_cli.build import build
    from tokenrl_cli.interfaces import Algorithm, Credit, Model, Reward, Tokenizer
    from tokenrl_cli.recorder import Trainer
    from tokenrl_cli.sampling import Decoding
    from tokenrl_cli.scoring import reported

    trust = config["imports"]
    trainer = Trainer(**config["trainer"])
    precision_of(trainer.precision)
    device = device_of(trainer.device)
    facts: dict[str, Any] = {"tokenizer": Vocabulary(), "seed": config["seed"], "device": device}
    facts["frozen"] = frozen_by(trust, device)  # asked by the rewards that need it, and not yet
    decoding: Decoding = build(config["decode"], Decoding, trust)
    decoding.require_effect()
    facts["max_length"] = decoding.max_length
    for name in ("tokenizer", "source_tokenizer"):
        if config.get(name):
            build(config[name], Tokenizer, trust)
    for block in config["metrics"].values():
        build(block, Reward, trust, **facts)
    reward, metrics = build(config["reward"], Reward, trust, **facts), config["metrics"]
    trainer.check_monitors(reported(reward, metrics, config["reward"] in metrics.values()))
    build(config["credit"], Credit, trust, **facts)
    with without_memory(*(config[name] for name in ("model", "warm_start", "algorithm"))):
        model = build(config["model"], Model, trust, source_tokenizer=facts["tokenizer"], **facts)
        require_room(model.parameters(), device)
        for name in ("warm_start", "algorithm"):
            algorithm = build(config[name], Algorithm, trust, model=model, source_tokenizer=facts["tokenizer"], **facts)
            require_room(algorithm.state_dict().values(), device)
            require_loadable_policy(algorithm, model)


def targets(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What every slot of the root is filled with."""
    from tokenrl_cli.build import is_block

    filled = [(name, block["_target_"]) for name, block in config.items() if is_block(block)]
    metrics = [(f"metrics.{name}", block["_target_"]) for name, block in config["metrics"].items()]
    return filled + metrics
