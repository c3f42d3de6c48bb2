"""Builds the objects of a run from its config: data set, tokenizers, rewards, model, algorithm, saved policy.

Used by train, validate, eval, generate and export alike, so that all build the same objects from the same config.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from tokenrl_cli import streams
from tokenrl_cli.algorithm.networks import differentiable
from tokenrl_cli.config.build import PACKAGE, build, hint, locate, within
from tokenrl_cli.config.types import Slot, parameters_of
from tokenrl_cli.data.batching import training_recordings, training_texts
from tokenrl_cli.episodes.sampling import Decoding
from tokenrl_cli.episodes.scoring import check_columns
from tokenrl_cli.interfaces import (
    Algorithm,
    Credit,
    Dataset,
    Features,
    Frozen,
    Model,
    ModelModule,
    PolicyLoader,
    Reward,
    SourceReader,
    Tokenizer,
    UserError,
)
from tokenrl_cli.model.pretrained import Pretrained
from tokenrl_cli.run import checkpoint
from tokenrl_cli.run.evaluation import acting_policy
from tokenrl_cli.run.task import GenerationTask, Task

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
POLICY = "policy."  # prefix of the entries of an algorithm's state that its policy needs besides the model
PREFIXES = 20  # of the modules of a model that an error lists
SPLITS = ("train", "val", "test")  # the splits that a training run reads
STAGES = {"warm_start": "warm_start", "train": "algorithm"}  # stage -> the block of its algorithm in the config

Config = dict[str, Any]


def device_of(name: str) -> torch.device:
    """Returns the torch device for "auto", "cpu" or "cuda"; "auto" is a GPU if there is one. Raises UserError for
    another name, or for "cuda" without a GPU.

    Also switches TF32 of cuDNN off, for the whole process. It is on by default and shortens the mantissa of float32:
    the log-probabilities of a sampled text and of the same text when it is scored would then differ.
    """
    torch.backends.cudnn.allow_tf32 = False
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise UserError("trainer.device", f"must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.device", "is cuda, and torch finds no GPU", "use trainer.device=auto")
    return torch.device(name)


def meta_device(*blocks: Config) -> AbstractContextManager[Any]:
    """Returns a context in which new tensors have a shape but no memory, so that a model of any size can be built and
    counted.

    `blocks` are the blocks of the config that will be built in it. The context does nothing if one of them, at any
    depth, names a class of the user's: its constructor might read the values of its tensors.
    """
    return torch.device("meta") if all(map(_only_own_targets, blocks)) else nullcontext()


def _only_own_targets(value: Any) -> bool:
    """Whether every target in a block, at any depth, belongs to this package, none to a module of the user."""
    if isinstance(value, list):
        return all(map(_only_own_targets, value))
    if not isinstance(value, dict):
        return True
    return within(str(value.get("_target_", PACKAGE)), PACKAGE) and all(map(_only_own_targets, value.values()))


def require_memory(values: Iterable[Any], device: torch.device) -> None:
    """Raises UserError if the tensors among `values` together need more memory than the GPU or the machine has in all,
    free or not. Other values are ignored."""
    sizes = (value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))
    needed, available = sum(sizes), _memory(device)
    if needed > available:
        problem = f"its parameters need {needed / 2**30:.0f} GiB, and {device} has {available / 2**30:.0f}"
        raise UserError("model", problem, "use smaller layers, fewer layers or a smaller vocabulary")


def _memory(device: torch.device) -> int:
    """All memory of a device, in bytes: of the GPU, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def use_threads(count: int) -> None:
    """Sets how many CPU threads torch uses in this process; 0 leaves torch's setting as it is."""
    if count:
        torch.set_num_threads(count)


def precision_of(name: str) -> torch.dtype:
    """Returns the torch dtype for "fp32" or "bf16", in which a model computes (see `task.numerics`). Raises UserError
    for another name."""
    if name not in PRECISIONS:
        raise UserError("trainer.precision", f"must be one of {', '.join(PRECISIONS)}, got {name!r}")
    return PRECISIONS[name]


def task_of(config: Config, trust: Sequence[str], device: torch.device, precision: torch.dtype, seed: int,
            tokenizers: Path | None, splits: Sequence[str] = (), learns: bool = True) -> Task:  # fmt: skip
    """Returns the Task that a config describes, with its data set, tokenizers, reward, metrics, credit and decoding.

    `trust` lists the user's modules whose classes and functions a `_target_` may name. `tokenizers` is the folder of
    saved tokenizers, or None to train new ones on the training split (to read a pretrained one). The first example of
    each of `splits` is read. With `learns` False the task has no credit. Raises UserError if a part cannot be built, if
    a split is missing, empty or cannot be read, or if a reward or metric needs a column that the data do not have.
    """
    dataset = build(config["dataset"], Dataset, trust, seed=seed)
    split_sizes(dataset, splits)
    target, source = _readers(config, trust, dataset, tokenizers)
    decoding = _decoding(config, trust, target.size)
    facts: dict[str, Any] = {"tokenizer": target, "seed": seed, "device": device}
    facts["frozen"] = frozen_loader(trust, device)
    reward = build(config["reward"], Reward, trust, **facts)
    metrics = {
        name: build(block, Reward, trust, f"metrics.{name}", **facts)
        for name, block in (config.get("metrics") or {}).items()
    }
    check_columns([reward, *metrics.values()], dataset)
    return Task(
        dataset=dataset,
        source_reader=source,
        tokenizer=target,
        reward=reward,
        credit=build(config["credit"], Credit, trust, **facts) if learns else None,
        metrics=metrics,
        decoding=decoding,
        device=device,
        precision=precision,
        seed=seed,
    )


def reward_of(config: Config, trust: Sequence[str], device: torch.device, seed: int) -> Reward:
    """Returns the reward of a config by itself, without data. A reward that has a parameter `tokenizer` gets the one of
    the config, which has not been trained. `trust` lists the user's modules whose classes and functions a `_target_`
    may name. Raises UserError if the reward or that tokenizer cannot be built."""
    facts = {"seed": seed, "device": device, "frozen": frozen_loader(trust, device)}
    tokenizer = build(config["tokenizer"], Tokenizer, trust)
    reward: Reward = build(config["reward"], Reward, trust, tokenizer=tokenizer, **facts)
    return reward


def generation_task_of(config: Config, trust: Sequence[str], device: torch.device, precision: torch.dtype, seed: int,
              tokenizers: Path) -> GenerationTask:  # fmt: skip
    """Returns the GenerationTask of a saved policy: its tokenizers, loaded from the folder `tokenizers`, and the
    decoding. `config` is that of the checkpoint with the overrides of the command line. `trust` lists the user's
    modules whose classes and functions a `_target_` may name. Raises UserError if a part cannot be built or loaded."""
    target, source = _readers(config, trust, None, tokenizers)
    decoding = _decoding(config, trust, target.size)
    return GenerationTask(source, target, decoding, device, precision, seed, config["dataset"]["max_source_length"])


def _decoding(config: Config, trust: Sequence[str], size: int) -> Decoding:
    """The decoding that a config describes. Raises UserError if it forbids a token beyond the `size` of the vocabulary,
    or every token."""
    decoding: Decoding = build(config["decode"], Decoding, trust, "decode")
    if beyond := [token for token in decoding.forbidden if token >= size]:
        raise UserError("decode.forbidden", f"holds {beyond[0]}, and the last token is {size - 1}")
    if len(set(decoding.forbidden)) == size:
        raise UserError("decode.forbidden", f"leaves none of the {size} tokens to choose from")
    return decoding


def blocks_to_generate(config: Config, stage: str) -> list[str]:
    """Returns the names of the blocks of a checkpoint's config that are needed to generate with the policy of its
    `stage` ("warm_start" or "train"). Blocks that are missing or null, such as source_tokenizer, are left out."""
    blocks = ("model", "tokenizer", "source_tokenizer", "features", "decode", STAGES[stage])
    return [name for name in blocks if config.get(name)]


def blocks_to_evaluate(config: Config, stage: str) -> list[str]:
    """Returns the names of the blocks of a checkpoint's config that are needed to evaluate the policy of its `stage`:
    those that `blocks_to_generate` returns, and dataset, reward and metrics, even if missing. No credit, and no
    algorithm of the other stage."""
    return [*blocks_to_generate(config, stage), "dataset", "reward", "metrics"]


def split_sizes(dataset: Dataset, splits: Sequence[str]) -> dict[str, int | None]:
    """Returns the number of examples of each of `splits`, None for an unlimited one. Reads the first example of each.

    Raises UserError if a split is missing or empty, or if that example cannot be read. A run does this before its first
    step: else a missing test split would show only at its end.
    """
    sizes = {split: dataset.size(split) for split in splits}
    for split, size in sizes.items():
        if size == 0:
            raise UserError("dataset", f"the split {split!r} is empty")
        dataset.example(split, 0)
    return sizes


def _readers(
    config: Config, trust: Sequence[str], dataset: Dataset | None, saved: Path | None
) -> tuple[Tokenizer, SourceReader]:
    """The tokenizer of targets, and what reads sources: the features that the config names, else the source tokenizer,
    else the tokenizer of targets once more.

    They are loaded from the folder `saved`, or, if that is None, trained on the split train of `dataset`.
    """
    side = next((name for name in ("features", "source_tokenizer") if config.get(name)), None)
    names = {"tokenizer": "target"} | ({side: "source"} if side else {})
    made: dict[str, Any] = {}
    for name in names:
        with _typed_path(config, name):
            made[name] = build(config[name], Features if name == "features" else Tokenizer, trust, name)
    for name, folder in names.items():
        with _typed_path(config, name):
            if saved is not None:
                made[name].load(saved / folder)
            elif dataset is not None and name == "features":
                made[name].train(training_recordings(dataset))
            elif dataset is not None:
                texts = training_texts(dataset, sources=side is None or folder == "source", targets=folder == "target")
                made[name].train(texts)
    return made["tokenizer"], made[side or "tokenizer"]


def _require_model_for(block: Config, kind: str, trust: Sequence[str]) -> None:
    """Raises UserError for a model that reads token ids where the sources are frames (`kind` is "features"), or the
    other way round ("source_tokenizer")."""
    parameters, _ = parameters_of(locate(block.get("_target_"), trust, Slot(Model)))
    if kind == "source_tokenizer" and "features" in parameters and kind not in parameters:
        remedy = "a data set of recordings, such as dataset=tones, brings features=logmel; for texts use model=lstm"
        raise UserError("model", "reads frames, and features is null: the sources are texts", remedy)
    if kind == "features" and "source_tokenizer" in parameters and kind not in parameters:
        problem = "reads token ids, and the sources of this data set are recordings"
        raise UserError("model", problem, "use model=speech_lstm or model=speech_transformer")


@contextmanager
def _typed_path(config: Config, name: str) -> Iterator[None]:
    """A context in which an error at the path of a tokenizer that is the path of the model names that one: it is the
    key that was typed, and the other follows it."""
    try:
        yield
    except UserError as error:
        key, path = f"{name}.path", config[name].get("path")
        if error.where != key or path is None or path != config["model"].get("path"):
            raise
        raise UserError("model.path", error.problem, error.remedy.replace(key, "model.path")) from None


def model_of(config: Config, trust: Sequence[str], task: Task | GenerationTask) -> Any:
    """Returns a new Model (a torch.nn.Module) on the device of the task, in the mode that its constructor leaves it in:
    training mode, but evaluation mode for one from a pretrained checkpoint. Its initial weights depend only on the
    config, the files that it names and the seed. Seeds the global generator of torch.

    `trust` lists the user's modules whose classes and functions a `_target_` may name. The parameters that the config's
    `freeze` names require no gradient: see `freeze`. Raises UserError if the model cannot be built, if its `forward`
    does not take `source_row`, if there is nothing to freeze under a name, or if it needs more memory than the device
    has in all; memory is checked only if every class in its block is of this package.
    """
    # first without memory: a model that is too large is an error, not a process that the system kills
    if _only_own_targets(config["model"]):
        with meta_device(config["model"]):
            require_memory(_built_model(config, trust, task).parameters(), task.device)
    torch.manual_seed(streams.derive(task.seed, "init"))
    model = _built_model(config, trust, task)
    require_source_row(model)
    return differentiable(model).to(task.device)


def require_source_row(model: ModelModule) -> None:
    """Raises UserError unless `model.forward` can be called with four positional arguments: source, source_mask,
    actions and source_row, the source that each row of actions belongs to."""
    try:
        inspect.signature(model.forward).bind(None, None, None, None)
    except TypeError:
        problem = f"{type(model).__name__}.forward(source, source_mask, actions, source_row) cannot be called so"
        remedy = "add the parameter source_row=None, the source of each row: tokenrl_cli/interfaces.py, Model"
        raise UserError("model", problem, remedy) from None


def _built_model(config: Config, trust: Sequence[str], task: Task | GenerationTask) -> ModelModule:
    kind = "features" if isinstance(task.source_reader, Features) else "source_tokenizer"
    facts: dict[str, Any] = {"tokenizer": task.tokenizer, kind: task.source_reader}
    _require_model_for(config["model"], kind, trust)
    model = build(config["model"], Model, trust, max_length=task.decoding.max_length, **facts)
    freeze(model, config.get("freeze") or [])
    return model


def freeze(model: ModelModule, patterns: Sequence[str]) -> None:
    """Makes the parameters of a model that a pattern names require no gradient: an optimiser leaves them out.

    A pattern is the name of a parameter or of a module, which means all parameters in it; * stands for any text, dots
    included, as in fnmatch. A parameter that has several names, as tied weights do, is frozen by any of them. Raises
    UserError for a pattern that names no parameter, with the modules of the model.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        found = [each for name, each in named.items() if any(fnmatchcase(part, pattern) for part in _ancestry(name))]
        if not found:
            begin = list(dict.fromkeys(map(_beginning, named)))
            more = f" and {len(begin) - PREFIXES} more" if len(begin) > PREFIXES else ""
            every = dict.fromkeys(part for name in named for part in _ancestry(name))
            problem = f"{pattern!r} names no parameter of the model{hint(pattern.rstrip('.*'), [*begin, *every])}"
            remedy = f"its parameters are in {', '.join(begin[:PREFIXES])}{more}; NAME means all of a module"
            raise UserError("freeze", problem, remedy)
        for parameter in found:
            parameter.requires_grad_(False)


def _ancestry(name: str) -> list[str]:
    """A dotted name and the modules that it is in: "a.b.c" -> ["a", "a.b", "a.b.c"]."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _beginning(name: str) -> str:
    """The module that a parameter is in, of at most three levels, with * for numbers: "blocks.3.norm.weight" ->
    "blocks.*.norm". A parameter of the model itself has no other than its own name."""
    parts = name.split(".")
    return ".".join("*" if part.isdecimal() else part for part in parts[: min(3, max(1, len(parts) - 1))])


def require_stages(config: Config, trust: Sequence[str], task: Task) -> dict[str, Algorithm]:
    """Builds the algorithms of both stages, so that a mistake in the second one is an error before the first begins.

    Returns them by the key of their blocks ("warm_start", "algorithm"), only to read their attributes, not to train
    them. Their networks have no memory (torch's meta device), so that those of any size can be counted, unless one of
    the blocks names a class of the user's. `trust` lists the user's modules whose classes and functions a `_target_`
    may name. Raises UserError if one cannot be built or needs more memory than the device has in all. Seeds the global
    generator of torch.
    """
    with meta_device(*(config[name] for name in ("model", *STAGES.values()))):
        model = _built_model(config, trust, task)
        require_memory(model.parameters(), task.device)
        stages = {key: algorithm_of(config, trust, task, model, stage) for stage, key in STAGES.items()}
        for algorithm in stages.values():
            require_memory(algorithm.state_dict().values(), task.device)
    return stages


def acts_by_its_model(config: Config, trust: Sequence[str], task: Task | GenerationTask, stage: str) -> bool:
    """Returns whether the policy of a stage ("warm_start" or "train") is its model, and not one that wraps it, such as
    one that acts by Q-values. Builds both without memory, unless a block names a class of the user's. `trust` lists the
    user's modules whose classes and functions a `_target_` may name. Seeds the global generator of torch. Raises
    UserError if the policy or the model cannot be built."""
    with meta_device(config["model"], config[STAGES[stage]]):
        model = _built_model(config, trust, task)
        return acting_policy(algorithm_of(config, trust, task, model, stage)) is model


def is_pretrained(config: Config, trust: Sequence[str], task: Task | GenerationTask) -> bool:
    """Returns whether the model of a config holds a network of transformers. Builds the model without memory, unless
    its block names a class of the user's. `trust` lists the user's modules whose classes and functions a `_target_` may
    name. Raises UserError if the model cannot be built."""
    with meta_device(config["model"]):
        return isinstance(_built_model(config, trust, task), Pretrained)


def algorithm_of(
    config: Config, trust: Sequence[str], task: Task | GenerationTask, model: Model, stage: str
) -> Algorithm:
    """Returns a new algorithm for a stage ("warm_start" or "train"), which trains `model`.

    Reference and target networks are copied from `model` as it is now. A critic that is a model of its own gets the
    tokenizer of the targets as its source tokenizer, too, for what it reads is the reference and not the source.
    `trust` lists the user's modules whose classes and functions a `_target_` may name. Seeds the global generator of
    torch. Switches the policy to evaluation mode, and so `model`, which is the policy or a part of it. Raises UserError
    if the algorithm cannot be built, or if its policy could not be loaded again: see `require_loadable_policy`.
    """
    torch.manual_seed(streams.derive(task.seed, "algorithm"))
    algorithm: Algorithm = build(
        config[STAGES[stage]],
        Algorithm,
        trust,
        STAGES[stage],
        model=model,
        tokenizer=task.tokenizer,
        source_tokenizer=task.tokenizer,
        max_length=task.decoding.max_length,
        device=task.device,
        seed=task.seed,
    )
    require_loadable_policy(algorithm, model)
    return algorithm


def require_loadable_policy(algorithm: Algorithm, model: ModelModule) -> None:
    """Raises UserError if the policy of an algorithm has weights besides those of `model` that a checkpoint would not
    hold, or could not restore: an evaluation would then silently run without what they had learned. Switches the policy
    to evaluation mode."""
    name = type(algorithm).__name__
    state = {key: value for key, value in algorithm.state_dict().items() if key.startswith(POLICY)}
    if state and not isinstance(algorithm, PolicyLoader):
        problem = f"{name} saves {next(iter(state))!r} for its policy, and has no load_policy(state) to take it back"
        raise UserError("algorithm", problem, "add that method: tokenrl_cli/interfaces.py, PolicyLoader")
    # a policy may be the model itself or a wrapper around it; any other weights have to be in the state
    shared = {id(each) for each in model.parameters()}
    policy: Any = acting_policy(algorithm)
    if not state and any(id(each) not in shared for each in policy.parameters()):
        problem = f"the policy of {name} has weights that are not the model's, and its state_dict() does not save them"
        raise UserError("algorithm", problem, 'give them names that start with "policy.", and add load_policy(state)')


def policy_of(saved: checkpoint.Checkpoint, config: Config, trust: Sequence[str], task: Task | GenerationTask) -> Model:
    """Returns the policy of a checkpoint, with its saved weights, on the device of the task and in evaluation mode;
    gradients are not switched off. `config` is that of the checkpoint with the overrides of the command line. `trust`
    lists the user's modules whose classes and functions a `_target_` may name. Seeds the global generator of torch.
    Raises UserError if the policy cannot be built or the saved weights do not fit it."""
    return policy_in(model_of(config, trust, task), saved, config, trust, task)


def policy_in(
    model: ModelModule, saved: checkpoint.Checkpoint, config: Config, trust: Sequence[str], task: Task | GenerationTask
) -> Model:
    """Returns the policy of a checkpoint as `policy_of` does, in a model that is there already and gets the saved
    weights. What trained this model must not go on."""
    checkpoint.restore(model, saved)
    algorithm = algorithm_of(config, trust, task, model, saved.state["stage"])
    if isinstance(algorithm, PolicyLoader):
        state = {key: value for key, value in saved.algorithm.items() if key.startswith(POLICY)}
        checkpoint.restore_state(algorithm.load_policy, saved, state)
    return acting_policy(algorithm)


def frozen_loader(trust: Sequence[str], device: torch.device) -> Callable[[str], Frozen]:
    """Returns the function that rewards get to load the policy of another run, given its directory or that of a
    checkpoint.

    That function takes the best checkpoint of a run, or the last one if there is no best, and returns a Frozen: the
    policy, in float32 on `device`, in evaluation mode and without gradients, and its tokenizers. Each call loads it
    anew, and seeds the global generator of torch. It raises UserError if there is no such checkpoint, or if its policy
    cannot be built. `trust` lists the user's modules whose classes and functions a `_target_` in the config of the
    other run may name.
    """

    def frozen(place: str) -> Frozen:
        saved = checkpoint.load(checkpoint.find(Path(place), ("best", "last")))
        config = saved.config
        task = generation_task_of(config, trust, device, torch.float32, config["seed"], saved.tokenizer_dir)
        policy = policy_of(saved, config, trust, task)
        for each in policy.parameters():  # type: ignore[attr-defined]
            each.requires_grad_(False)
        if isinstance(task.source_reader, Features):
            raise UserError(place, "is a run whose sources are recordings: it cannot score texts", "name another run")
        return Frozen(policy, task.source_reader, task.tokenizer, task.max_source_length, device)

    return frozen
