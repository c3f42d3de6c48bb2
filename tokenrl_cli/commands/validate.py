"""`tokenrl validate`: composes and checks train's config, builds nothing, and says what would run."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def run(config: DictConfig) -> None:
    from tokenrl_cli.build import check
    from tokenrl_cli.commands.keys import Train
    from tokenrl_cli.recorder import Trainer

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(plain, plain["imports"], Train)
    trainer = Trainer(**plain["trainer"])  # its ranges
    print("\n".join(f"{name:<16} {target}" for name, target in targets(plain)))
    print(f"{'seed':<16} {plain['seed']}")
    print(f"{'data_root':<16} {plain['data_root']}")
    print(
        f"{'would run':<16} {trainer.warm_start_steps} steps of warm start x {trainer.warm_start_batch_size} sources, "
        f"then {trainer.steps} steps x {trainer.batch_size}; {trainer.monitor} chooses the best"
    )


def targets(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What every slot of the root is filled with."""
    filled = [(name, block["_target_"]) for name, block in config.items() if _is_block(block)]
    metrics = [(f"metrics.{name}", block["_target_"]) for name, block in config["metrics"].items()]
    return filled + metrics


def _is_block(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value
