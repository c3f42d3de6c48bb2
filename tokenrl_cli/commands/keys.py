"""The root keys of each command's config and their types. The files in conf/ have the values and explain them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from tokenrl_cli.config.build import check
from tokenrl_cli.config.ranges import Count, CountOrZero, Size, Text
from tokenrl_cli.episodes.sampling import Decoding
from tokenrl_cli.interfaces import Algorithm, Credit, Dataset, Features, Model, Reward, Tokenizer
from tokenrl_cli.run.recorder import Trainer


@dataclass(frozen=True)
class Train:
    """The root keys of `train` and `validate`."""

    model: Model
    dataset: Dataset
    tokenizer: Tokenizer
    reward: Reward
    credit: Credit
    algorithm: Algorithm
    warm_start: Algorithm
    decode: Decoding
    trainer: Trainer
    metrics: dict[str, Reward]
    seed: int
    out: Text | None
    data_root: Text
    init_from: Text | None
    resume: Text | None
    imports: list[Text]
    source_tokenizer: Tokenizer | None = None  # None: that of the targets
    features: Features | None = None  # None: sources are texts
    fallback: bool = False
    freeze: list[Text] = field(default_factory=list)  # patterns of parameter names


@dataclass(frozen=True)
class Generate:
    """The root keys of `generate`."""

    model: Model
    algorithm: Algorithm
    decode: Decoding
    ckpt: Text
    input: Text | None
    split: Text | None
    samples: Count | None
    output: Text | None
    batch_size: Size
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    seed: int
    data_root: Text
    imports: list[Text]


@dataclass(frozen=True)
class Eval:
    """The root keys of `eval`."""

    model: Model
    dataset: Dataset
    reward: Reward
    algorithm: Algorithm
    decode: Decoding
    metrics: dict[str, Reward]
    ckpt: Text
    split: Text
    examples: CountOrZero
    batch_size: Size
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    seed: int
    data_root: Text
    imports: list[Text]
    out: Text | None
    against: Text | None
    features: Features | None = None  # what a data set brings; those of the checkpoint are used


@dataclass(frozen=True, kw_only=True)
class EvalModel(Train):
    """The root keys of `eval` without a run: those of `train`, and how to evaluate."""

    split: str
    examples: CountOrZero
    batch_size: Size
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    against: Text | None


@dataclass(frozen=True)
class Export:
    """The root keys of `export`."""

    model: Model
    ckpt: Text
    to: Text
    adapter: bool
    data_root: Text
    imports: list[Text]


def require_keys(config: dict[str, Any], schema: type[Train | Eval | Generate | Export], command: str = "") -> None:
    """Raises UserError if a config has an unknown or missing key, or a value or block of a wrong type or range. Imports
    the modules that its `imports` names. `config` is resolved, plain values; `command` is the name of the command, for
    the message, by default that of the schema in lower case."""
    known = {each.name for each in fields(schema)}
    if (unknown := next((key for key in config if key not in known), None)) is not None:  # Hydra lets +KEY=VALUE pass
        from tokenrl_cli.commandline.explanations import unknown_key
        from tokenrl_cli.config.options import conf_dir

        rest = {key: value for key, value in config.items() if key in known}
        raise unknown_key(str(unknown), rest, [conf_dir()], command or schema.__name__.lower())
    check(config, config.get("imports", []), schema)
