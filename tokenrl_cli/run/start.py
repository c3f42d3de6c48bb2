"""`init_from`: where the initial weights of a run come from, a checkpoint of another run or a pretrained directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenrl_cli import hub
from tokenrl_cli.interfaces import ModelModule, UserError
from tokenrl_cli.model.pretrained import Pretrained, kind_of
from tokenrl_cli.run import assembly, checkpoint
from tokenrl_cli.run.checkpoint import Checkpoint
from tokenrl_cli.run.directory import CHECKPOINTS, MANIFEST
from tokenrl_cli.run.task import Task


def pretrained_directory(path: str | None) -> bool:
    """Returns whether `path`, the value of `init_from`, names a pretrained directory or a GGUF file, and not a run or a
    checkpoint of one; False for None. A path that ends in .gguf need not exist."""
    if not path:
        return False
    place = Path(path).expanduser()
    ours = (place / MANIFEST).exists() or (place / CHECKPOINTS).exists()
    return place.suffix == ".gguf" or (not ours and ((place / hub.CONFIG).is_file() or any(place.glob("*.gguf"))))


def origin_of(path: str | None) -> Checkpoint | None:
    """Returns the checkpoint that `path`, the value of `init_from`, names, verified: of a run the best, else the last.
    None for None and for a pretrained directory. Raises UserError where there is no such directory, or no whole
    checkpoint in it."""
    if not path or pretrained_directory(path):
        return None
    place = Path(path).expanduser()
    if not os.path.lexists(place) and not path.startswith((os.sep, ".", "~")):
        remedy = f"give the directory of a run; a model of the Hugging Face hub is model=hf_causal model.path={path}"
        raise UserError(f"init_from={path}", "there is no such directory", f"{remedy}, or model=hf_seq2seq")
    return checkpoint.load(checkpoint.find(place, ("best", "last")))


def take_pretrained(model: ModelModule, config: dict[str, Any], trust: Sequence[str], task: Task) -> None:
    """Copies the weights of the pretrained directory that `init_from` of `config`, the resolved config of `train`,
    names, which must be one (see `pretrained_directory`), into `model`, in place. `trust` lists the user's modules
    whose classes and functions a `_target_` may name. For this it builds a second model, and so seeds the global
    generator of torch. Raises UserError that says what does not fit: the kind of the model, its names or its shapes."""
    path = config["init_from"]
    where = f"init_from={path}"
    kind = kind_of(hub.config(hub.directory(path, "init_from"), "init_from"))
    right = f"model={kind} model.path={path}, without init_from, starts from it" if kind else ""
    if not isinstance(model, Pretrained):
        name = str(config["model"]["_target_"]).split(".")[-2]
        raise UserError(where, f"is a pretrained checkpoint, whose weights do not fit model={name}", right)
    if model.elsewhere:
        raise UserError(where, "is a pretrained checkpoint, and an adapter leaves the weights as they are", right)
    block = config["model"] | {"path": path}
    if "decoder_path" in block:
        block["decoder_path"] = None
    try:
        other = assembly.model_of(config | {"model": block}, trust, task)
    except UserError as error:
        raise UserError(where, error.problem, error.remedy or right) from None
    try:
        checkpoint.copy_model(model, other, path)
    except UserError as error:
        raise UserError(where, error.problem, right) from None
