"""From a plain config to living objects: what train, eval and generate all need."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tokenrl_cli import streams
from tokenrl_cli.algorithm.networks import differentiable
from tokenrl_cli.config.build import PACKAGE, build
from tokenrl_cli.data.batching import training_texts
from tokenrl_cli.episodes.sampling import Decoding
from tokenrl_cli.episodes.scoring import check_columns
from tokenrl_cli.interfaces import (
    Algorithm,
    Credit,
    Dataset,
    Frozen,
    Model,
    PolicyLoader,
    Reward,
    Tokenizer,
    UserError,
)
from tokenrl_cli.run import checkpoint
from tokenrl_cli.run.loop import Task, acting_policy, numerics

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
POLICY = "policy."  # names in an algorithm's state of what its policy needs besides the model
SPLITS = ("train", "val", "test")  # that a run reads
STAGES = {"warm_start": "warm_start", "train": "algorithm"}  # stage -> the config's block of its algorithm

Config = dict[str, Any]


@dataclass(frozen=True)
class Speech:
    """As much of a Task as a saved policy needs to generate: no data, no reward, no metric."""

    source_tokenizer: Tokenizer
    tokenizer: Tokenizer
    decoding: Decoding
    device: torch.device
    precision: torch.dtype
    seed: int
    max_source_length: int  # tokens; longer sources are cut

    def numerics(self) -> AbstractContextManager[Any]:
        """As of a Task."""
        return numerics(self.device, self.precision)


def device_of(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one. There, too, float32 means float32: cuDNN's TF32, which is on unless it is
    turned off, would let what is sampled and what is scored, and a run and its evaluation, disagree."""
    torch.backends.cudnn.allow_tf32 = False
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise UserError("trainer.device", f"must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.device", "cuda was asked for, and torch finds no GPU", "use trainer.device=auto")
    return torch.device(name)


def without_memory(*blocks: Config) -> AbstractContextManager[Any]:
    """Where tensors have shapes alone, if all of the blocks is tokenrl's own: others may look at their numbers."""
    return torch.device("meta") if all(map(_ours, blocks)) else nullcontext()


def _ours(value: Any) -> bool:
    """Whether no target in a block is of a user's module."""
    if isinstance(value, list):
        return all(map(_ours, value))
    if not isinstance(value, dict):
        return True
    return str(value.get("_target_", PACKAGE)).startswith(PACKAGE) and all(map(_ours, value.values()))


def require_room(values: Iterable[Any], device: torch.device) -> None:
    """Raises UserError where tensors, of a model or of an algorithm, are larger than the memory of the machine."""
    sizes = (value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))
    needed, there = sum(sizes), _memory(device)
    if needed > there:
        problem = f"its parameters need {needed / 2**30:.0f} GiB, and {device} has {there / 2**30:.0f}"
        raise UserError("model", problem, "make its layers, their number or the vocabulary smaller")


def _memory(device: torch.device) -> int:
    """Bytes in all."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def use_threads(count: int) -> None:
    """Of the CPU; 0 leaves it to torch."""
    if count:
        torch.set_num_threads(count)


def precision_of(name: str) -> torch.dtype:
    if name not in PRECISIONS:
        raise UserError("trainer.precision", f"must be one of {', '.join(PRECISIONS)}, got {name!r}")
    return PRECISIONS[name]


def task_of(config: Config, trust: Sequence[str], device: torch.device, precision: torch.dtype, seed: int,
            tokenizers: Path | None, splits: Sequence[str] = (), learns: bool = True) -> Task:  # fmt: skip
    """Dataset, tokenizers, reward, credit (of what `learns` alone) and metrics. The `splits` are opened first.
    Tokenizers are trained on the training split, or loaded."""
    dataset = build(config["dataset"], Dataset, trust, seed=seed)
    sizes_of(dataset, splits)
    target, source = _tokenizers(config, trust, partial(training_texts, dataset), tokenizers)
    decoding = _decoding(config, trust, target.size)
    facts: dict[str, Any] = {"tokenizer": target, "seed": seed, "device": device, "frozen": frozen_by(trust, device)}
    reward = build(config["reward"], Reward, trust, **facts)
    metrics = {name: build(block, Reward, trust, **facts) for name, block in (config.get("metrics") or {}).items()}
    check_columns([reward, *metrics.values()], dataset)
    return Task(
        dataset=dataset,
        source_tokenizer=source,
        tokenizer=target,
        reward=reward,
        credit=build(config["credit"], Credit, trust, **facts) if learns else None,
        metrics=metrics,
        decoding=decoding,
        device=device,
        precision=precision,
        seed=seed,
    )


def speech_of(config: Config, trust: Sequence[str], device: torch.device, precision: torch.dtype, seed: int,
              tokenizers: Path) -> Speech:  # fmt: skip
    """What a saved policy generates with; its tokenizers are loaded."""
    target, source = _tokenizers(config, trust, lambda **_: (), tokenizers)
    decoding = _decoding(config, trust, target.size)
    return Speech(source, target, decoding, device, precision, seed, config["dataset"]["max_source_length"])


def _decoding(config: Config, trust: Sequence[str], size: int) -> Decoding:
    """For a vocabulary of `size` tokens. Raises UserError where no token is left to say."""
    decoding: Decoding = build(config["decode"], Decoding, trust)
    if beyond := [token for token in decoding.forbidden if token >= size]:
        raise UserError("decode.forbidden", f"holds {beyond[0]}, and the last token is {size - 1}")
    if len(set(decoding.forbidden)) == size:
        raise UserError("decode.forbidden", f"leaves none of the {size} tokens to choose from")
    return decoding


def speaking(config: Config, stage: str) -> list[str]:
    """The blocks of a checkpoint's config that its policy generates with."""
    blocks = ("model", "tokenizer", "source_tokenizer", "decode", STAGES[stage])
    return [name for name in blocks if config.get(name)]


def evaluated(config: Config, stage: str) -> list[str]:
    """The blocks that an evaluation of it needs besides: no credit, and no algorithm of another stage."""
    return [*speaking(config, stage), "dataset", "reward", "metrics"]


def sizes_of(dataset: Dataset, splits: Sequence[str]) -> dict[str, int | None]:
    """How many examples each split has (None: unlimited), after a look at its first. Raises UserError where one is
    missing, empty or damaged: what the end of a run needs is known before its first step."""
    sizes = {split: dataset.size(split) for split in splits}
    for split, size in sizes.items():
        if size == 0:
            raise UserError("dataset", f"the split {split!r} is empty")
        dataset.example(split, 0)
    return sizes


def _tokenizers(
    config: Config, trust: Sequence[str], texts: Callable[..., Iterable[str]], saved: Path | None
) -> tuple[Tokenizer, Tokenizer]:
    """(target, source): one object where the config names no source tokenizer. Loaded, or trained on `texts`."""
    target = build(config["tokenizer"], Tokenizer, trust)
    shared = not config.get("source_tokenizer")
    source = target if shared else build(config["source_tokenizer"], Tokenizer, trust)
    if saved is not None:
        target.load(saved / "target")
        if not shared:
            source.load(saved / "source")
        return target, source
    target.train(texts(sources=shared, targets=True))
    if not shared:
        source.train(texts(sources=True, targets=False))
    return target, source


def model_of(config: Config, trust: Sequence[str], task: Task | Speech) -> Any:
    """A new Model, a torch.nn.Module; its first weights depend on the seed alone."""
    facts: dict[str, Any] = {"tokenizer": task.tokenizer, "source_tokenizer": task.source_tokenizer}
    facts["max_length"] = task.decoding.max_length
    if _ours(config["model"]):
        with without_memory(config["model"]):
            require_room(build(config["model"], Model, trust, **facts).parameters(), task.device)
    torch.manual_seed(streams.derive(task.seed, "init"))
    model = build(config["model"], Model, trust, **facts)
    require_source_row(model)
    return differentiable(model).to(task.device)


def require_source_row(model: Any) -> None:
    """Raises UserError where the call of a model cannot be given which source each row of actions goes with."""
    try:
        inspect.signature(model.forward).bind(None, None, None, None)
    except TypeError:
        problem = f"{type(model).__name__}.forward(source, source_mask, actions, source_row) cannot be called so"
        remedy = "add the parameter source_row=None, the source of each row: tokenrl_cli/interfaces.py, Model"
        raise UserError("model", problem, remedy) from None


def algorithm_of(config: Config, trust: Sequence[str], task: Task | Speech, model: Model, stage: str) -> Algorithm:
    """The algorithm of a stage, around `model`; reference and target networks are copied from it here.

    A model of the algorithm's own, a critic, reads references where the policy reads sources.
    """
    torch.manual_seed(streams.derive(task.seed, "algorithm"))
    algorithm: Algorithm = build(
        config[STAGES[stage]],
        Algorithm,
        trust,
        model=model,
        tokenizer=task.tokenizer,
        source_tokenizer=task.tokenizer,
        max_length=task.decoding.max_length,
        device=task.device,
        seed=task.seed,
    )
    require_loadable_policy(algorithm, model)
    return algorithm


def require_loadable_policy(algorithm: Algorithm, model: Any) -> None:
    """Raises UserError where a policy has more than the weights of `model` and that could be saved, but never be loaded
    again: evaluation would then silently show the model without what was learned on top of it."""
    name = type(algorithm).__name__
    state = {key: value for key, value in algorithm.state_dict().items() if key.startswith(POLICY)}
    if state and not isinstance(algorithm, PolicyLoader):
        problem = f"{name} saves {next(iter(state))!r} for its policy, and has no load_policy(state) to take it back"
        raise UserError("algorithm", problem, "add that method: tokenrl_cli/interfaces.py, PolicyLoader")
    shared = {id(each) for each in model.parameters()}
    policy: Any = acting_policy(algorithm)
    if not state and any(id(each) not in shared for each in policy.parameters()):
        problem = f"the policy of {name} has weights that are not the model's, and its state_dict() does not save them"
        raise UserError("algorithm", problem, 'give them names that start with "policy.", and add load_policy(state)')


def policy_of(saved: checkpoint.Checkpoint, config: Config, trust: Sequence[str], task: Task | Speech) -> Model:
    """The policy that a checkpoint's algorithm acts by; `config` is the checkpoint's, with the user's overrides."""
    model = model_of(config, trust, task)
    checkpoint.restore(model, saved)
    algorithm = algorithm_of(config, trust, task, model, saved.state["stage"])
    if isinstance(algorithm, PolicyLoader):
        state = {key: value for key, value in saved.algorithm.items() if key.startswith(POLICY)}
        checkpoint.restore_state(algorithm.load_policy, saved, state)
    return acting_policy(algorithm)


def frozen_by(trust: Sequence[str], device: torch.device) -> Callable[[str], Frozen]:
    """What a reward gets to load a saved run with: of its best checkpoint, or its last."""

    def frozen(place: str) -> Frozen:
        saved = checkpoint.load(checkpoint.find(Path(place), ("best", "last")))
        config = saved.config
        speech = speech_of(config, trust, device, torch.float32, config["seed"], saved.tokenizer_dir)
        policy = policy_of(saved, config, trust, speech)
        for each in policy.parameters():  # type: ignore[attr-defined]
            each.requires_grad_(False)
        return Frozen(policy, speech.source_tokenizer, speech.tokenizer, speech.max_source_length, device)

    return frozen
