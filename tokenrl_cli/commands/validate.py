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
    from tokenrl_cli.build import build, check
    from tokenrl_cli.commands.keys import Train
    from tokenrl_cli.interfaces import Dataset

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(plain, plain["imports"], Train)
    construct(plain, build(plain["dataset"], Dataset, plain["imports"], seed=plain["seed"]))
    trainer = plain["trainer"]
    print("\n".join(f"{name:<24} {target}" for name, target in targets(plain)))
    for name in ("seed", "data_root"):
        print(f"{name:<24} {plain[name]}")
    print(
        f"{'would run':<24} {trainer['warm_start_steps']} steps of warm start x {trainer['warm_start_batch_size']} "
        f"sources, then {trainer['steps']} steps x {trainer['batch_size']}; {trainer['monitor']} chooses the best"
    )


def construct(config: dict[str, Any], dataset: Any = None) -> None:
    """Every part but the data set once, around a tiny vocabulary, for the constructors check ranges. With a data set,
    rewards are asked whether they find their columns in it."""
    from tokenrl_cli.assemble import device_of, frozen_by, precision_of, require_loadable_policy
    from tokenrl_cli.build import build
    from tokenrl_cli.interfaces import Algorithm, Credit, Model, Reward, Tokenizer
    from tokenrl_cli.recorder import Trainer
    from tokenrl_cli.sampling import Decoding
    from tokenrl_cli.scoring import check_columns, reported

    trust = config["imports"]
    trainer = Trainer(**config["trainer"])
    precision_of(trainer.precision)
    device = device_of(trainer.device)
    facts: dict[str, Any] = {"tokenizer": Vocabulary(), "seed": config["seed"], "device": device}
    facts["frozen"] = frozen_by(trust, device)  # asked by the rewards that need it, and not yet
    facts["max_length"] = build(config["decode"], Decoding, trust).max_length
    for name in ("tokenizer", "source_tokenizer"):
        if config.get(name):
            build(config[name], Tokenizer, trust)
    reward = build(config["reward"], Reward, trust, **facts)
    metrics = [build(block, Reward, trust, **facts) for block in config["metrics"].values()]
    if dataset is not None:
        check_columns([reward, *metrics], dataset)
    trainer.check_monitors(reported(reward, config["metrics"]))
    build(config["credit"], Credit, trust, **facts)
    model = build(config["model"], Model, trust, source_tokenizer=facts["tokenizer"], **facts)
    for name in ("warm_start", "algorithm"):
        algorithm = build(config[name], Algorithm, trust, model=model, source_tokenizer=facts["tokenizer"], **facts)
        require_loadable_policy(algorithm, model)


def targets(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What every slot of the root is filled with."""
    from tokenrl_cli.build import is_block

    filled = [(name, block["_target_"]) for name, block in config.items() if is_block(block)]
    metrics = [(f"metrics.{name}", block["_target_"]) for name, block in config["metrics"].items()]
    return filled + metrics
