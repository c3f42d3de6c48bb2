"""A run's memory on disk: written atomically, verified when read, and nothing in it can run code.

RUN/checkpoints/000120/ holds model.safetensors, optimizer.safetensors, algorithm.safetensors, state.json, config.yaml,
tokenizer/ and manifest.json with the SHA-256 of each, written last. `last`, `best` and `warm_start` are relative links.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tokenrl_cli.interfaces import Tokenizer, UserError

FORMAT = 1
MANIFEST = "manifest.json"
TENSORS = ("model", "optimizer", "algorithm")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, verified."""

    path: Path
    step: int
    config: dict[str, Any]
    state: dict[str, Any]  # of the run
    algorithm: dict[str, Any]  # flat, with the optimiser's entries where they were kept
    model: dict[str, Tensor]
    tokenizer_dir: Path


def save(
    run: Path,
    step: int,
    model: nn.Module,
    algorithm: dict[str, Any],
    state: dict[str, Any],
    config: dict[str, Any],
    tokenizers: dict[str, Tokenizer],
) -> Path:
    """Writes RUN/checkpoints/<step>, replacing one of the same step. A crash leaves the earlier ones as they were."""
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".*.part"):
        shutil.rmtree(stale)
    part, path = folder / f".{step:06d}.part", folder / f"{step:06d}"
    part.mkdir()
    tensors = {key: value for key, value in algorithm.items() if isinstance(value, Tensor)}
    split = {
        "model": _untied(model),
        "optimizer": {key: value for key, value in tensors.items() if key.startswith("optimizer.")},
        "algorithm": {key: value for key, value in tensors.items() if not key.startswith("optimizer.")},
    }
    for name, values in split.items():
        save_file(_apart(values), part / f"{name}.safetensors")
    scalars = {key: value for key, value in algorithm.items() if key not in tensors}
    whole = {"format": FORMAT, "step": step, "run": state, "algorithm": scalars}
    (part / "state.json").write_text(json.dumps(whole, indent=1), "utf-8")
    (part / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "utf-8")
    for name, tokenizer in tokenizers.items():
        if name == "target" or tokenizer is not tokenizers["target"]:
            (part / "tokenizer" / name).mkdir(parents=True)
            tokenizer.save(part / "tokenizer" / name)
    _seal(part)
    if path.exists():
        path.rename(folder / f".{step:06d}.old.part")
    part.rename(path)
    _sync(folder)
    for stale in folder.glob(".*.part"):
        shutil.rmtree(stale)
    return path


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint directory and verifies every file; UserError names the one that is damaged or missing."""
    path = path.resolve()
    manifest = _json(path / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise UserError(str(path), f"has checkpoint format {manifest.get('format')}, this version reads {FORMAT}")
    for name, entry in manifest["files"].items():
        if not (path / name).is_file():
            raise UserError(str(path / name), "is missing from its checkpoint", "take another checkpoint of the run")
        if _digest(path / name) != entry["sha256"]:
            raise UserError(str(path / name), "is damaged: its SHA-256 differs", "take another checkpoint of the run")
    state = _json(path / "state.json")
    config = yaml.safe_load((path / "config.yaml").read_text("utf-8"))
    if "${" in json.dumps(config):
        raise UserError(
            str(path / "config.yaml"), "holds an unresolved ${...}", "a checkpoint's config is plain values"
        )
    tensors = {name: _tensors(path / f"{name}.safetensors") for name in TENSORS}
    algorithm = state["algorithm"] | tensors["algorithm"] | tensors["optimizer"]
    return Checkpoint(path, state["step"], config, state["run"], algorithm, tensors["model"], path / "tokenizer")


def restore(model: nn.Module, checkpoint: Checkpoint) -> None:
    """The saved weights into `model`, in place: tied parameters stay tied."""
    own = _untied(model)
    if missing := sorted(set(own) ^ set(checkpoint.model)):
        raise UserError(str(checkpoint.path), f"its weights are of another model: {missing[0]} is not in both")
    for name, value in checkpoint.model.items():
        if own[name].shape != value.shape:
            shapes = f"{list(value.shape)} there, {list(own[name].shape)} here"
            raise UserError(str(checkpoint.path), f"its weights are of another model: {name} is {shapes}")
        with torch.no_grad():
            own[name].copy_(value)


def find(place: Path, prefer: Sequence[str] = ("best", "last")) -> Path:
    """The checkpoint directory that a run, RUN/checkpoints/NAME or a checkpoint directory means."""
    if (place / MANIFEST).is_file():
        return place.resolve()
    folder = place / "checkpoints" if (place / "checkpoints").is_dir() else place
    for name in prefer:
        if (folder / name / MANIFEST).is_file():
            return (folder / name).resolve()
    complete = _complete(folder) if folder.is_dir() else []
    if not complete:
        raise UserError(str(place), "holds no complete checkpoint", "give a run directory or one of its checkpoints/")
    return complete[-1].resolve()


def point(run: Path, name: str, path: Path) -> None:
    """RUN/checkpoints/NAME -> path, a relative link replaced in one step."""
    link, new = run / "checkpoints" / name, run / "checkpoints" / f".{name}.link"
    new.unlink(missing_ok=True)
    new.symlink_to(path.name)
    new.replace(link)


def prune(run: Path, keep_last: int, keep_best: int) -> None:
    """Keeps what a link names, the newest `keep_last` and the `keep_best` with the highest scores; the latter slim."""
    folder = run / "checkpoints"
    complete = _complete(folder)
    newest = complete[-keep_last:]
    named = {path.name for path in complete for link in folder.iterdir() if link.is_symlink() and _same(link, path)}
    evaluated = {path: _json(path / "state.json")["run"].get("evaluated") for path in complete}
    scores = {path: found["score"] for path, found in evaluated.items() if found and not math.isnan(found["score"])}
    ranked = sorted(scores, key=lambda path: -scores[path])
    for path in complete:
        if path in newest:
            continue
        if path.name in named or path in ranked[:keep_best]:
            slim(path)
        else:
            shutil.rmtree(path)


def slim(path: Path) -> None:
    """Leaves the model and what policy() needs of the algorithm: enough to evaluate, not to go on."""
    kept = {key: value for key, value in _tensors(path / "algorithm.safetensors").items() if key.startswith("policy.")}
    if not _tensors(path / "optimizer.safetensors") and len(kept) == len(_tensors(path / "algorithm.safetensors")):
        return
    copy = path.parent / f".{path.name}.part"
    shutil.copytree(path, copy)
    (copy / MANIFEST).unlink()
    save_file(kept, copy / "algorithm.safetensors")
    save_file({}, copy / "optimizer.safetensors")
    _seal(copy)
    old = path.parent / f".{path.name}.old.part"
    path.rename(old)
    copy.rename(path)
    shutil.rmtree(old)


def _apart(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, no two in one piece of memory, which the format refuses: copies of tied weights are written twice."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in values.items():
        here = value.detach().cpu().contiguous()
        place = here.untyped_storage().data_ptr()
        found[key] = here.clone() if place in seen or here.untyped_storage().nbytes() > here.nbytes else here
        seen.add(place)
    return found


def _untied(model: nn.Module) -> dict[str, Tensor]:
    """Each tensor once, under its first name, however many modules share it."""
    seen: set[int] = set()
    return {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if not (id(value) in seen or seen.add(id(value)))  # type: ignore[func-returns-value]
    }


def _tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is not a dictionary)


def _json(path: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(str(path), "is missing: this is not a complete checkpoint") from None
    except ValueError as error:
        raise UserError(str(path), f"is damaged: {error}", "take another checkpoint of the run") from None
    return read


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(part: Path) -> None:
    """Makes every file readable by those who can read the others, and durable; writes the manifest last."""
    files = sorted(path for path in part.rglob("*") if path.is_file())
    mode = (part / "state.json").stat().st_mode & 0o777  # what the umask gives; tensors are written for the owner alone
    for path in files:
        path.chmod(mode)
        _sync(path)
    entries = {
        path.relative_to(part).as_posix(): {"sha256": _digest(path), "bytes": path.stat().st_size} for path in files
    }
    (part / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": entries}, indent=1), "utf-8")
    _sync(part / MANIFEST)
    _sync(part)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _complete(folder: Path) -> list[Path]:
    """Checkpoints by step, oldest first; unfinished ones have no manifest or a hidden name."""
    found = [path for path in folder.iterdir() if path.name.isdigit() and (path / MANIFEST).is_file()]
    return sorted(found, key=lambda path: int(path.name))


def _same(link: Path, path: Path) -> bool:
    return os.readlink(link) == path.name
