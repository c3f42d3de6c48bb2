"""The keys at the root of each command's config, with their types. Values and meanings: conf/*.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokenrl_cli.interfaces import Algorithm, Credit, Dataset, Model, Reward, Tokenizer
from tokenrl_cli.recorder import Trainer
from tokenrl_cli.sampling import Decoding


@dataclass(frozen=True)
class Train:
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
    out: str | None
    data_root: str
    init_from: str | None
    resume: str | None
    imports: list[str]
    source_tokenizer: Tokenizer | None = None  # absent: the same as of the targets


@dataclass(frozen=True)
class Generate:
    algorithm: Algorithm
    decode: Decoding
    ckpt: str
    input: str | None
    split: str | None
    output: str | None
    batch_size: int
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    seed: int
    data_root: str
    imports: list[str]


@dataclass(frozen=True)
class Eval:
    dataset: Dataset
    reward: Reward
    algorithm: Algorithm
    decode: Decoding
    metrics: dict[str, Reward]
    ckpt: str
    split: str
    examples: int
    batch_size: int
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    seed: int
    data_root: str
    imports: list[str]
    out: str | None
