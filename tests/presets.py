"""Presets as the command composes them, around a model of the test's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tokenrl_cli.config.build import build
from tokenrl_cli.interfaces import Algorithm, Tokenizer

CONF = Path(__file__).parents[1] / "conf"


@cache
def targets(name: str) -> str:
    """The class of a preset, wherever in its inheritance that is named."""
    block = yaml.safe_load((CONF / "algorithm" / f"{name}.yaml").read_text("utf-8"))
    parents = [each for each in block.get("defaults", []) if isinstance(each, str) and each != "_self_"]
    return str(block["_target_"]) if "_target_" in block else targets(parents[0])


PRESETS = sorted(path.stem for path in (CONF / "algorithm").glob("*.yaml"))
GRADIENTS = [name for name in PRESETS if targets(name).endswith("PolicyGradient")]


@cache
def composed(choices: tuple[str, ...]) -> Any:
    """The config of `tokenrl train CHOICES`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(choices))


def block_of(name: str, overrides: Sequence[str]) -> Any:
    """The resolved block of the algorithm of `tokenrl train algorithm=NAME OVERRIDES`.

    Composing takes a third of a second. So what chooses an option (algorithm/head=two) is composed once, and what sets
    a value (algorithm.epochs=1) is set in a copy, where Hydra would set it, too: after all that was chosen.
    """
    values = [word for word in overrides if re.match(r"algorithm\.[\w.]+=", word)]
    config = deepcopy(composed((f"algorithm={name}", *(word for word in overrides if word not in values))))
    for override in OverridesParser.create().parse_overrides(values):
        OmegaConf.update(config, override.key_or_group, override.value())
    return OmegaConf.to_container(config.algorithm, resolve=True)


def preset(name: str, model: Any, tokenizer: Tokenizer, max_length: int, *overrides: str) -> Any:
    """The algorithm that `algorithm=NAME OVERRIDES` builds."""
    block = block_of(name, overrides)
    known = {"model": model, "tokenizer": tokenizer, "source_tokenizer": tokenizer, "max_length": max_length}
    known |= {"device": "cpu", "seed": 0}
    return build(block, Algorithm, [], **known)
