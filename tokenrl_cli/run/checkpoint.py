"""Checkpoints: written atomically, verified when read, and free of anything that could run code.

RUN/checkpoints/000120/ holds model.safetensors, optimizer.safetensors, algorithm.safetensors, state.json, config.yaml,
tokenizer/ and manifest.json, which is written last and has the SHA-256 of each file. A checkpoint that is kept only for
evaluation is smaller: instead of the tensors of optimiser and algorithm it has policy.safetensors, the part of the
algorithm that its policy needs. `last`, `best` and `warm_start` are links beside the checkpoints. directory.py has
the rules for all changes, and their order.

Of a model that is built from pretrained checkpoints state.json has their paths and SHA-256, and model.safetensors what
its state_dict gives: under an adapter only what was trained.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tokenrl_cli.files import disk, writing
from tokenrl_cli.files.records import read_json, read_yaml, yaml_text
from tokenrl_cli.interfaces import Base, HasBase, ModelModule, SourceReader, UserError
from tokenrl_cli.run import directory
from tokenrl_cli.run.directory import ANOTHER, MANIFEST

FORMAT = 1
TO_GO_ON = ("optimizer.safetensors", "algorithm.safetensors")  # needed to resume, not to evaluate
REQUIRED = ("model.safetensors", "state.json", "config.yaml")

find = directory.find


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint whose files have been verified. All tensors are on the CPU. `path` is its directory,
    `model` the weights by name, `tokenizer_dir` the folder of its tokenizers."""

    path: Path
    step: int
    config: dict[str, Any]
    state: dict[str, Any]  # of the run, as Recorder.state gives it
    algorithm: dict[str, Any]  # its state_dict, flat; the optimiser's entries only in a checkpoint to resume from
    model: dict[str, Tensor]
    tokenizer_dir: Path
    bases: dict[str, Base] = field(default_factory=dict)  # of the model, by setting; see `interfaces.HasBase`


# ------------------------------------------------------------------------------------------------------------ writing


def save(
    run: Path,
    step: int,
    model: nn.Module,
    algorithm: dict[str, Any],
    state: dict[str, Any],
    config: dict[str, Any],
    tokenizers: Mapping[str, SourceReader],
) -> Path:
    """Writes a checkpoint to RUN/checkpoints/<step in six digits>, with -2, -3 ... if that exists, and returns its
    path. A crash leaves earlier checkpoints as they were, and nothing under the new name. Raises OSError if the system
    refuses.

    `algorithm` is the flat state_dict of the algorithm, `state` what the recorder's `state` returned; all but tensors
    must be values that JSON can hold. `tokenizers` has the keys "target" and perhaps "source", which may be
    Features; one object under both keys is written once. Sets no link.
    """
    part, path = directory.new_checkpoint(run, step)
    tensors = {key: value for key, value in algorithm.items() if isinstance(value, Tensor)}
    # three files, so that `slim` can remove those of the optimiser and the algorithm and keep the model
    split = {
        "model": _untied(model),
        "optimizer": {key: value for key, value in tensors.items() if key.startswith("optimizer.")},
        "algorithm": {key: value for key, value in tensors.items() if not key.startswith("optimizer.")},
    }
    for name, values in split.items():
        save_file(_unshared(values), part / f"{name}.safetensors")
    scalars = {key: value for key, value in algorithm.items() if key not in tensors}
    whole = {"format": FORMAT, "step": step, "run": state, "algorithm": scalars}
    if bases := bases_of(model):
        whole["bases"] = {key: asdict(base) for key, base in bases.items()}
    (part / "state.json").write_text(json.dumps(whole, indent=1), "utf-8")
    (part / "config.yaml").write_text(yaml_text(config), "utf-8")
    for name, tokenizer in tokenizers.items():
        # one that serves both sides is written once, as the target's
        if name == "target" or tokenizer is not tokenizers["target"]:
            (part / "tokenizer" / name).mkdir(parents=True)
            tokenizer.save(part / "tokenizer" / name)
    _seal(part)
    directory.publish(part, path)
    return path


def set_link(run: Path, name: str, path: Path) -> None:
    """Points the link RUN/checkpoints/NAME (`last`, `best` or `warm_start`) at the checkpoint of this run whose
    directory is called `path.name`, in place of an older link, in one atomic step. The checkpoint must exist: that is
    not checked. See `directory.set_link`."""
    directory.set_link(run, name, path.name)


def restore_links(run: Path, saved: Checkpoint) -> None:
    """Points the links `last`, `best` and `warm_start` of a run to the checkpoints that `saved` and its state name, and
    removes all later checkpoints.

    A process that was killed may have saved the checkpoint without setting the links. Later checkpoints exist only if
    they are damaged and the run is resumed from an earlier one. `best` and `warm_start` stay as they are if the
    checkpoint that `saved` names for them is missing, but are removed if they point to a later one.
    """
    folder = run / directory.CHECKPOINTS
    directory.set_link(run, "last", saved.path.name)
    best, start = saved.state.get("best"), saved.state.get("warm_start")
    names = directory.checkpoint_names(folder)
    later = [name for name in names if directory.order(name) > directory.order(saved.path.name)]
    for link, step in (("best", best and best["step"]), ("warm_start", start)):
        found = [name for name in names if directory.order(name)[0] == step and name not in later]
        if found:
            directory.set_link(run, link, found[-1])
        elif directory.link_target(folder, link) in later:
            disk.discard(folder / link)
    for name in later:
        directory.remove_checkpoint(folder / name)


def prune(run: Path, keep_last: int, keep_best: int) -> None:
    """Removes the checkpoints of a run that are not needed any more.

    The newest `keep_last` (at least 1) stay whole. Others stay only with what evaluation needs (see `slim`), so that no
    run can be resumed from them, if a link (`last`, `best`, `warm_start`) points to them, if one of the newest needs
    them as its best checkpoint or the end of its warm start, or if they are among the `keep_best` with the highest
    scores of all, the newest included. The score is `trainer.monitor` on val, negated if lower is better. Folders
    without a manifest are left alone.
    """
    folder = run / directory.CHECKPOINTS
    complete = [name for name in directory.checkpoint_names(folder) if (folder / name / MANIFEST).is_file()]
    newest = complete[-keep_last:]
    states = {name: read_json(folder / name / "state.json", "checkpoint")["run"] for name in complete}
    named = {directory.link_target(folder, link) for link in directory.LINKS}
    steps = {(states[name].get("best") or {}).get("step") for name in newest}
    steps |= {states[name].get("warm_start") for name in newest}
    evaluated = {name: state.get("evaluated") for name, state in states.items()}
    scores = {name: found["score"] for name, found in evaluated.items() if found and not math.isnan(found["score"])}
    ranked = sorted(scores, key=lambda name: -scores[name])[:keep_best]
    for name in complete:
        if name in newest:
            continue
        if name in named or name in ranked or directory.order(name)[0] in steps:
            slim(folder / name)
        else:
            directory.remove_checkpoint(folder / name)


def slim(path: Path) -> None:
    """Reduces the checkpoint directory `path`, in place, to what evaluation needs: the model, and those saved tensors
    of the algorithm that its policy needs. It cannot be resumed from afterwards. One that is slim already stays as it
    is. Raises UserError if its manifest or its tensors cannot be read."""
    manifest = _manifest(path)
    if all(name in manifest for name in TO_GO_ON):
        tensors = _tensors(path / "algorithm.safetensors")
        policy = {key: value for key, value in tensors.items() if key.startswith("policy.")}
        part = path / ".policy.safetensors.part"
        save_file(policy, part)
        part.chmod((path / "state.json").stat().st_mode & 0o777)
        disk.sync(part)
        directory.publish(part, path / "policy.safetensors")
        entries = {name: entry for name, entry in manifest.items() if name not in TO_GO_ON}
        entries["policy.safetensors"] = _entry(path / "policy.safetensors")
        writing.write(path / MANIFEST, json.dumps({"format": FORMAT, "files": entries}, indent=1))
    for name in TO_GO_ON:  # the manifest does not list them any more
        disk.discard(path / name)


# ------------------------------------------------------------------------------------------------------------ reading


def load(path: Path, go_on: bool = False) -> Checkpoint:
    """Reads a checkpoint, given its own directory (`find` gives that of a run), and verifies the SHA-256 of every file.
    Raises UserError, which names the file, if one is missing or damaged, if tokenizer/ holds one that the manifest does
    not list, if the format is another, or if the config is not plain values.

    With `go_on` the checkpoint must hold all that resuming needs; without it one that `slim` has reduced is accepted,
    too.
    """
    path = path.resolve()
    manifest = _manifest(path)
    for name, entry in manifest.items():
        _verify(path, name, entry)
    for each in (path / "tokenizer").rglob("*"):
        if each.is_symlink() or not (each.is_dir() or each.relative_to(path).as_posix() in manifest):
            raise UserError(str(each), "does not belong to the checkpoint: its manifest does not list it", ANOTHER)
    whole = all(name in manifest for name in TO_GO_ON)
    parts = TO_GO_ON if whole else ("policy.safetensors",)
    if missing := [name for name in (*REQUIRED, *parts) if name not in manifest]:
        raise UserError(str(path / MANIFEST), f"does not list {missing[0]}: this is no checkpoint", ANOTHER)
    if go_on and not whole:
        problem = "was kept for evaluation only, without its optimiser: no run can be resumed from it"
        raise UserError(str(path), problem, ANOTHER)
    state = read_json(path / "state.json", "complete checkpoint", ANOTHER)
    for key, kind in (("step", int), ("run", dict), ("algorithm", dict)):
        if not isinstance(state.get(key), kind):
            raise UserError(str(path / "state.json"), f"is damaged: {key} must be {kind.__name__}", ANOTHER)
    config = read_yaml(path / "config.yaml")
    if "${" in json.dumps(config):
        raise UserError(
            str(path / "config.yaml"), "holds an unresolved ${...}", "a checkpoint's config is plain values"
        )
    algorithm = dict(state["algorithm"])
    for name in parts:
        algorithm |= _tensors(path / name)
    model = _tensors(path / "model.safetensors")
    bases = _bases(state.get("bases", {}), path / "state.json")
    return Checkpoint(path, state["step"], config, state["run"], algorithm, model, path / "tokenizer", bases)


def _bases(value: Any, where: Path) -> dict[str, Base]:
    """The pretrained checkpoints that state.json names."""
    try:
        bases = {str(key): Base(**each) for key, each in value.items()}
        if all(isinstance(text, str) for base in bases.values() for text in (base.path, base.sha256)):
            return bases
    except (AttributeError, TypeError):  # it, or one of its entries, is no dictionary of these two keys
        pass
    raise UserError(str(where), "is damaged: each of bases must have a path and a sha256", ANOTHER)


def bases_of(model: ModelModule) -> dict[str, Base]:
    """Returns the pretrained checkpoints that a Model was built from, by the setting that names each: the model's own
    dictionary, not a copy; {} for a model that was built from none."""
    return model.bases if isinstance(model, HasBase) else {}


def newest(run: Path, fallback: bool) -> Checkpoint | None:
    """Loads the checkpoint to resume a run from, the newest one; None if the run has none yet.

    Raises UserError if the newest is damaged or was reduced by `slim`; with `fallback` the newest one that can be
    resumed from is returned instead, and UserError is raised if there is none. Also if a folder of the run is a link.
    """
    directory.require_own(run)
    folder = run / directory.CHECKPOINTS
    found = directory.checkpoint_names(folder)
    last = directory.link_target(folder, "last")
    if last is not None and last not in found:
        found.append(last)
    found.sort(key=directory.order, reverse=True)
    first: UserError | None = None
    for name in found:
        try:
            return load(folder / name, go_on=True)
        except UserError as error:
            first = first or error
            if not fallback:
                break
    if first is None:
        return None
    another = "fallback=true resumes from the newest checkpoint that is whole"
    remedy = "no other is whole: start a new run" if fallback else f"an older one is used only on request: {another}"
    raise UserError(first.where, first.problem, remedy) from None


def restore_state(load: Callable[[dict[str, Any]], Any], saved: Checkpoint, state: dict[str, Any]) -> None:
    """Calls `load(state)`, a method of an algorithm that restores `state`. An AttributeError, IndexError, KeyError,
    RuntimeError, TypeError or ValueError, which means that the state is of another algorithm, becomes a UserError that
    names the checkpoint `saved`; the algorithm may be half changed by then."""
    try:
        load(state)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        cause = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise UserError(str(saved.path), f"its state is of another algorithm: {cause}", ANOTHER) from error


def restore(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copies the saved weights into `model`, in place. Raises UserError if names or shapes differ or a weight is not
    finite (`copy_weights`), and if the model was built from a pretrained checkpoint that is not the one that the saved
    model was built from, by its SHA-256."""
    _require_bases(bases_of(model), checkpoint)
    copy_weights(model, checkpoint.model, str(checkpoint.path))


def copy_model(model: nn.Module, other: nn.Module, where: str) -> None:
    """Copies the weights of `other`, a model of the same architecture, which stays as it is, into `model`, in place.
    Raises UserError with this `where` if names or shapes differ or a weight is not finite."""
    copy_weights(model, _untied(other), where)


def copy_weights(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Copies `weights`, which have the shapes [...] of the model's, by name into `model`, in place, so that tied
    parameters stay tied. Raises UserError with this `where` if the names or shapes differ, or if a weight is no
    floating-point tensor or not finite; other weights may be copied by then. Another floating-point type is
    converted."""
    own = _untied(model)
    if missing := sorted(set(own) ^ set(weights)):
        raise UserError(where, f"its weights are of another model: {missing[0]} is not in both")
    for name, value in weights.items():
        if own[name].shape != value.shape:
            shapes = f"{list(value.shape)} there, {list(own[name].shape)} here"
            raise UserError(where, f"its weights are of another model: {name} is {shapes}")
        if not value.is_floating_point():
            raise UserError(where, f"its weights are of another model: {name} is {value.dtype}")
        with torch.no_grad():
            own[name].copy_(value)
            if not own[name].isfinite().all():
                raise UserError(where, f"its weights are damaged: {name} holds NaN or infinity")


def _require_bases(own: dict[str, Base], checkpoint: Checkpoint) -> None:
    """Raises UserError unless the pretrained checkpoints below a model are those of a saved one, wherever they lie. A
    model without any is compared by its weights alone."""
    for key, base in own.items():
        before = checkpoint.bases.get(key)
        if before is None or before.sha256 != base.sha256:
            was = f"{before.path} with {before.sha256[:12]}" if before else "another model"
            problem = f"{base.path} has the SHA-256 {base.sha256[:12]}, and {checkpoint.path} was trained from {was}"
            raise UserError(f"model.{key}", problem, f"give model.{key}=DIR, where the unchanged one lies")


def _unshared(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each in memory of its own: safetensors refuses tensors that share memory. A weight that
    two entries share is copied."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in values.items():
        here = value.detach().cpu().contiguous()
        place = here.untyped_storage().data_ptr()
        found[key] = here.clone() if place in seen or here.untyped_storage().nbytes() > here.nbytes else here
        seen.add(place)
    return found


def _untied(model: nn.Module) -> dict[str, Tensor]:
    """The state_dict of a model with each tensor once, under the first of its names."""
    seen: set[int] = set()
    return {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if not (id(value) in seen or seen.add(id(value)))  # type: ignore[func-returns-value]
    }


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises UserError if it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is not a dictionary)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(str(path), f"cannot be read as tensors: {error}", ANOTHER) from None


def _manifest(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a checkpoint's manifest by file name, each with its SHA-256. Raises UserError."""
    manifest = read_json(path / MANIFEST, "complete checkpoint", ANOTHER)
    if manifest.get("format") != FORMAT:
        raise UserError(str(path), f"has checkpoint format {manifest.get('format')}, this version reads {FORMAT}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(each, dict) and "sha256" in each for each in files.values()):
        raise UserError(str(path / MANIFEST), "is damaged: each entry of files must have a sha256", ANOTHER)
    return files


def _verify(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Raises UserError unless a file lies inside its checkpoint, not through a link, and has the SHA-256 of its
    entry."""
    file = path / name
    if "\0" in name or ".." in file.parts or path not in file.parents or file.resolve() != file:
        raise UserError(str(path / MANIFEST), f"lists {name!r}, which lies outside its checkpoint", ANOTHER)
    if not file.is_file():
        raise UserError(str(file), "is missing from its checkpoint", ANOTHER)
    if _digest(file) != entry["sha256"]:
        raise UserError(str(file), "is damaged: its SHA-256 differs", ANOTHER)


def _digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(path: Path) -> dict[str, Any]:
    """The entry of the manifest for a file."""
    return {"sha256": _digest(path), "bytes": path.stat().st_size}


def _seal(part: Path) -> None:
    """Completes a checkpoint: gives all files the same permissions, syncs them to disk, and writes the manifest
    last."""
    files = sorted(path for path in part.rglob("*") if path.is_file())
    # as the umask sets it: without this safetensors files would be readable by their owner only
    mode = (part / "state.json").stat().st_mode & 0o777
    for path in files:
        path.chmod(mode)
        disk.sync(path)
    entries = {path.relative_to(part).as_posix(): _entry(path) for path in files}
    writing.write(part / MANIFEST, json.dumps({"format": FORMAT, "files": entries}, indent=1))
