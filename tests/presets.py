"""Presets as the command composes them, around a model of the test's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tokenrl_cli.config.build import build
from tokenrl_cli.interfaces import Algorithm, Tokenizer

CONF = Path(__file__).parents[1] / "conf"


def targets(name: str) -> str:
    """The class of a preset, wherever in its inheritance that is named."""
    block = yaml.safe_load((CONF / "algorithm" / f"{name}.yaml").read_text("utf-8"))
    parents = [each for each in block.get("defaults", []) if isinstance(each, str) and each != "_self_"]
    return str(block["_target_"]) if "_target_" in block else targets(parents[0])


PRESETS = sorted(path.stem for path in (CONF / "algorithm").glob("*.yaml"))
GRADIENTS = [name for name in PRESETS if targets(name).endswith("PolicyGradient")]


@cache
def composed(overrides: tuple[str, ...]) -> Any:
    """The config of `tokenrl train OVERRIDES`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def preset(name: str, model: Any, tokenizer: Tokenizer, max_length: int, *overrides: str) -> Any:
    """The algorithm that `algorithm=NAME OVERRIDES` builds."""
    config = composed((f"algorithm={name}", *overrides))
    block = OmegaConf.to_container(config.algorithm, resolve=True)
    known = {"model": model, "tokenizer": tokenizer, "source_tokenizer": tokenizer, "max_length": max_length}
    known |= {"device": "cpu", "seed": 0}
    return build(block, Algorithm, [], **known)
