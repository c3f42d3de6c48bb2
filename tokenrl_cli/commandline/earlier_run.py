"""The directory of a new run, and what `resume=` and `ckpt=` take over from an earlier run.

The files of an earlier run may come from an untrusted source. They are read as plain data: a variable or a part of
Hydra's configuration in them is refused, because Hydra would evaluate it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenrl_cli.commandline.arguments import Arguments, command_line, key_of, override, quoted, unquoted
from tokenrl_cli.commandline.outside_data import ROOT, required_overrides
from tokenrl_cli.files.records import read_yaml
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.run.directory import CHECKPOINTS, CONFIG, MANIFEST, find

DATA_ROOT = "${data_root}"  # may begin a path in config.yaml of a run: the data may lie elsewhere on resume
TRACES = ("checkpoints", "metrics.jsonl", "results.json")  # a directory with any of these holds a run
FIXED_KEYS = (  # cannot be given with resume
    "experiment",
    "out",
    "hydra.run.dir",
    "hydra.output_subdir",
    "hydra.searchpath",
)


def require_unused(place: str, subdirectory: str) -> str:
    """Returns `subdirectory`, into which Hydra will write its record of the run. Raises UserError if the directory
    `place` holds a run already, finished or not, a config.yaml that a run did not make, or a .hydra that is a link or
    holds one.

    conf/train.yaml calls this as ${tokenrl.require_unused:...}.
    """
    run = Path(place)
    if (run / "results.json").exists():
        raise UserError(f"out={place}", "holds a finished run", "choose another directory")
    config = os.path.lexists(run / CONFIG)
    if any(os.path.lexists(run / name) for name in TRACES):
        if not config:
            problem = f"holds files of a run, but not the {CONFIG} that is needed to resume it"
            raise UserError(f"out={place}", problem, "choose another directory")
        raise UserError(f"out={place}", "holds an unfinished run", f"resume it: {_resume_command(run)}")
    record = run / ".hydra"
    if config and not record.is_dir():
        raise UserError(f"out={place}", f"holds a {CONFIG} that is not of a run", "choose another directory")
    if link := next((each for each in (record, *record.glob("*")) if each.is_symlink()), None):
        raise UserError(str(link), f"is a link to {os.readlink(link)}: no link of a run is followed", "remove it")
    return subdirectory


def _resume_command(run: Path) -> str:
    """The command that resumes a run, given only its directory."""
    try:
        _, saved = read_run_config(run)
        root = str(saved.get("data_root", ROOT))
        return resume_command(run, with_data_root(saved, root))
    except (UserError, OSError):
        return command_line("train", override("resume", str(run)))


def run_directory(out: str | None, otherwise: str) -> str:
    """Makes the directory of a run, with those above it, and returns its path: `out`, the value of `out=`, which may
    exist and in which "~" is expanded; if that is None or "", a new one, `otherwise`, or `otherwise`-2, -3 ... where
    that is taken. Raises UserError if it cannot be made."""
    if not out:
        return new_directory(otherwise)
    place = Path(out).expanduser()
    with _directory_errors(place, f"out={out}"):
        place.mkdir(parents=True, exist_ok=True)
    return str(place)


@contextmanager
def _directory_errors(place: Path, where: str) -> Iterator[None]:
    """Turns an OSError in the block, which makes the directory `place`, into a UserError at `where` that names the file
    or link in the way."""
    try:
        yield
    except OSError as error:
        for each in (place, *place.parents):
            if each.is_symlink() and not each.exists():
                problem = f"{each} is a link to {os.readlink(each)}, which is not there"
                raise UserError(where, problem, "make that folder, remove the link, or give out=DIR") from None
            if each.exists() and not each.is_dir():
                raise UserError(where, f"{each} is a file", "choose another directory with out=DIR") from None
        problem = f"cannot be made: {error.strerror or error}"
        raise UserError(where, problem, "choose another directory with out=DIR") from None


def refuse_two_directories(arguments: Arguments) -> None:
    """Raises UserError if the command line gives `out` together with `resume`, or with Hydra's own key for the
    directory (hydra.sweep.dir with -m, else hydra.run.dir)."""
    out = arguments.value("out")
    if out in (None, "", "null"):
        return
    if arguments.value("resume") not in (None, "", "null"):
        raise UserError(
            f"out={out}", "cannot be given with resume: a run is resumed in its own directory", "leave out one"
        )
    sweeps = "--multirun" in arguments.flags
    if arguments.value(other := "hydra.sweep.dir" if sweeps else "hydra.run.dir") is not None:
        raise UserError(f"out={out}", f"cannot be given with {other}: both name the directory", f"leave out {other}")


def new_directory(path: str) -> str:
    """Makes a directory that does not exist yet, with those above it, and returns its path: `path`, or `path`-2, -3 ...
    if that is taken. Raises UserError if it cannot be made."""
    number = 1
    while True:
        place = Path(path if number == 1 else f"{path}-{number}")
        if os.path.lexists(place):
            number += 1
            continue
        with _directory_errors(place.parent, path):
            place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.mkdir()  # fails if it exists: the test and the claim are one step
            return str(place)
        except FileExistsError:
            continue  # another run has just taken the name: try the next one
        except OSError as error:
            raise UserError(path, f"cannot be made: {error.strerror or error}", "give out=DIR") from None


def resume_command(run: Path | str, config: dict[str, Any]) -> str:
    """Returns the command that resumes a run, ready to paste into a shell: `tokenrl train resume=RUN` with the imports
    and paths of its resolved config that must be repeated; see `required_overrides`."""
    return command_line("train", override("resume", str(run)), *required_overrides(config))


# ----------------------------------------------------------------------------------------------------------- resume=


def resumed_run(arguments: Arguments) -> tuple[Arguments, dict[str, Any] | None]:
    """Prepares `resume=RUN`: returns the command line that writes into RUN again, and the config of RUN to start from
    instead of conf/train.yaml; without `resume` returns `arguments` and None.

    RUN is not put on Hydra's search path: its config is handed over with an empty `imports`, a list `defaults` for
    Hydra, and TOKENRL_DATA as data_root if that is set. Its paths may begin with ${data_root}, which Hydra fills in; it
    has no other variable. Raises UserError if RUN is no run or its config is not plain, or if the command line has -m,
    another config, another component (model=gru) or one of FIXED_KEYS. Which single values may change is checked later,
    by `refuse_changes`.
    """
    typed = arguments.value("resume")
    if typed in (None, "", "null"):
        return arguments, None
    if "--multirun" in arguments.flags:
        raise UserError(f"resume={typed}", "one run is resumed at a time", "leave out -m")
    for flag in ("--config-name", "--config-path"):
        if flag in arguments.flags:
            problem = "cannot be given with resume: a run is resumed with its own config"
            raise UserError(flag, problem, "leave it out")
    run = Path(str(typed))
    if "${" in str(typed) or not run.is_dir():
        remedy = "give the directory of a run, as train printed it"
        raise UserError(f"resume={typed}", "there is no such directory", remedy)
    if not os.path.lexists(run / CONFIG):
        began = any(os.path.lexists(run / name) for name in TRACES)
        remedy = "give the directory of a run, as train printed it"
        raise UserError(f"resume={typed}", f"is not a run: it has no {CONFIG}", "start a new run" if began else remedy)
    _, saved = read_run_config(run)
    _refuse_parts(arguments, saved)
    node = saved | {"data_root": os.environ.get("TOKENRL_DATA") or saved.get("data_root", ROOT)}
    node |= {"imports": [], "fallback": False}  # imports are never taken over: they would run code
    # overrides, not values of the config: so nothing in the file of the run decides where Hydra writes
    again = arguments.without("resume").with_overrides(
        f"resume={quoted(str(run))}",
        "hydra.job.chdir=false",
        f"hydra.run.dir={quoted(str(run))}",
        "hydra.output_subdir=null",
    )
    defaults = ["_self_", {"override hydra/job_logging": "run"}, {"override hydra/hydra_logging": "plain"}]
    return again, {"defaults": defaults, **node}


def read_run_config(run: Path) -> tuple[str | None, dict[str, Any]]:
    """Returns the folder that a run was started in (None if unknown), and its config.yaml as plain values, without the
    record `started_in`.

    Paths may begin with ${data_root}, which is not filled in; any other variable, and any part of Hydra's
    configuration, is a UserError. So is a file that is missing or damaged.
    """
    file = run / CONFIG
    saved = read_yaml(file)
    for key in ("defaults", "hydra"):
        if key in saved:
            raise UserError(str(file), f"must not set {key!r}: Hydra would run what it names")
    started_in = saved.pop("started_in", None)  # a record, not a setting
    require_plain(saved, str(file))
    return started_in if isinstance(started_in, str) else None, saved


def require_plain(config: dict[str, Any], where: str) -> None:
    """Raises UserError with this `where`, the file or the name of the config, if a key or a text anywhere in a config
    holds "${". Only ${data_root} is allowed, as a whole value or before "/" at the beginning of one, and not as the
    value of data_root itself."""
    for key, text in keys_and_texts(config):
        rest = text.removeprefix(DATA_ROOT) if text.startswith((f"{DATA_ROOT}/",)) or text == DATA_ROOT else text
        if "${" in rest or "${" in key or (key == "data_root" and rest != text):
            raise UserError(
                where, f"{key} holds '${{': the config of a run is plain values", f"give {key} another value"
            )


def recorded_values(raw: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Returns the values to write to config.yaml of a run: those of the resolved `config`, except texts that begin with
    ${data_root} in `raw`, the same config unresolved, and have no other variable there: these are taken from `raw`."""
    if isinstance(raw, dict) and isinstance(config, dict):
        return {key: recorded_values(raw.get(key), value) for key, value in config.items()}
    if isinstance(raw, list) and isinstance(config, list) and len(raw) == len(config):
        return [recorded_values(before, value) for before, value in zip(raw, config, strict=True)]
    begins = isinstance(raw, str) and isinstance(config, str) and raw.startswith(DATA_ROOT)
    return raw if begins and "${" not in raw.removeprefix(DATA_ROOT) else config


def with_data_root(value: Any, root: str) -> Any:
    """Returns a copy of a config, or of any value of it, with `root` in place of ${data_root} at the beginning of
    texts."""
    if isinstance(value, dict):
        return {key: with_data_root(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [with_data_root(item, root) for item in value]
    begins = isinstance(value, str) and value.startswith(DATA_ROOT)
    return root + value.removeprefix(DATA_ROOT) if begins else value


def typed_values(overrides: Iterable[str]) -> dict[str, str]:
    """Returns the values that overrides set, as text without quotes, by key; the last one of a key counts. Overrides
    without "=" are left out."""
    return {key_of(each): unquoted(each.partition("=")[2]) for each in overrides if "=" in each}


def _refuse_parts(arguments: Arguments, saved: dict[str, Any]) -> None:
    """Raises UserError if the command line of a resume chooses another component (a model, a reward, ...), whose saved
    state would not fit, or gives a key that is fixed. Single values may change."""
    for word in arguments.rest:
        key = key_of(word)
        group = ("/" in key or "@" in key) and not key.startswith("hydra/")
        if group or key in FIXED_KEYS or isinstance(saved.get(key), dict):
            raise UserError(
                word,
                "cannot be changed on resume: only single values can",
                f"for another {key}, start a new run with init_from=RUN",
            )


UNCHANGEABLE = "cannot be changed on resume"
NEW_RUN = "start a new run; init_from=RUN starts it from these weights"
COMPARABLE = "earlier evaluations, by which the best checkpoint is chosen, could not be compared with later ones"
FIXED_VALUES = {  # beginning of a key -> why no resumed run may change it
    "init_from": "the run has started from its weights",
    "seed": "all random draws of the run depend on it",
    "tokenizer.": "the vocabulary was built when the run started",
    "features.": "they were set when the run started, and the model learned from them",
    "source_tokenizer.": "the vocabulary was built when the run started",
    "model.": "the weights belong to it",
    "freeze": "the optimiser has kept nothing of what was frozen",
    "algorithm.data.capacity": "the replay buffer has its size",
    "dataset.": COMPARABLE,
    "reward.": COMPARABLE,
    "metrics.": COMPARABLE,
    "decode.": COMPARABLE,
    "trainer.monitor": COMPARABLE,
    "trainer.warm_start_monitor": COMPARABLE,
    "trainer.eval_examples": COMPARABLE,
}
WARM_START_KEYS = ("warm_start.", "trainer.warm_start_", "trainer.gate")  # used only in the warm start and at its end
MOVED = ("model.path", "model.decoder_path", "model.adapter.path")  # may lie elsewhere: its SHA-256 is compared
# last parts of keys
ALWAYS_ALLOWED = ("dropout", "workers", "timeout", "on_error", "max_failed_fraction", "memory", "disk")


def refuse_changes(saved: dict[str, Any], stage: str, config: dict[str, Any]) -> None:
    """Raises UserError if the `config` of a resumed run changes a value of `saved`, the config of its checkpoint, that
    the run depends on since its start (seed, tokenizers, model ...), that has no effect any more in this `stage`
    ("warm_start" or "train"), or that would make earlier results incomparable: those of FIXED_VALUES and
    WARM_START_KEYS. Keys whose last part is in ALWAYS_ALLOWED, such as dropout, may change anywhere, and those of
    MOVED.

    The next checkpoint would otherwise record a config with which the run was never trained. Moved data are no change:
    paths below data_root are compared relative to it.
    """
    before, now = (dict(_leaves(_rerooted(each, str(each.get("data_root", ""))))) for each in (saved, config))
    for key in before | now:
        value = now.get(key, "nothing")
        if before.get(key, "nothing") == value or key.rpartition(".")[2] in ALWAYS_ALLOWED or key in MOVED:
            continue
        reasons = [reason for start, reason in FIXED_VALUES.items() if key == start or key.startswith(start)]
        if stage != "warm_start" and key.startswith(WARM_START_KEYS):
            reasons = ["the warm start is over"]
        if reasons:
            problem = f"{UNCHANGEABLE} (it was {before.get(key, 'nothing')}): {reasons[0]}"
            raise UserError(f"{key}={value}", problem, NEW_RUN)


def refuse_another_model(saved: dict[str, Any], block: dict[str, Any]) -> None:
    """Raises UserError if `block`, the block model of a command that reads a checkpoint, differs from that of `saved`,
    the config of the checkpoint, in more than where the pretrained models lie (MOVED)."""
    before, now = (dict(_leaves(each, "model")) for each in (saved["model"], block))
    for key in before | now:
        if before.get(key, "nothing") != (value := now.get(key, "nothing")) and key not in MOVED:
            problem = f"cannot be changed (it was {before.get(key, 'nothing')}): the weights belong to it"
            raise UserError(f"{key}={value}", problem, "leave it out")


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (key, value) for every value of a config that is not a dictionary, with its full key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{where}.{key}" if where else str(key))
    else:
        yield where, value


# ------------------------------------------------------------------------------------------------------------- ckpt=


def needs_checkpoint(arguments: Arguments) -> bool:
    """Returns False for an `eval` that names a model and no checkpoint, and so needs no `ckpt=`; True for every other
    command line, also for that of a command that never reads `ckpt=`."""
    named = any(key_of(word).partition(".")[0] == "model" for word in arguments.rest)
    return not (arguments.command == "eval" and named and arguments.value("ckpt") is None)


def checkpoint_dir(arguments: Arguments) -> Path:
    """Returns the directory of the checkpoint that `ckpt=` names, absolute; a run stands for its best checkpoint, else
    its last one, else its newest. Raises UserError if the key is missing, or if there is no checkpoint there. Its files
    are not verified."""
    typed = arguments.value("ckpt")
    if typed in (None, "", "null", "???"):
        other = "; model=hf_seq2seq model.path=DIR evaluates a pretrained model" * (arguments.command == "eval")
        raise UserError("ckpt", "is missing", f"tokenrl {arguments.command} ckpt=RUN_OR_CHECKPOINT{other}")
    place = Path(str(typed))
    if not os.path.lexists(place):
        raise UserError(f"ckpt={typed}", "there is no such directory", "give the directory of a run or of a checkpoint")
    inside = CHECKPOINTS in (place.absolute().name, place.absolute().parent.name)
    if not (inside or (place / MANIFEST).is_file() or (place / CHECKPOINTS).is_dir()):
        raise UserError(f"ckpt={typed}", "is neither a checkpoint nor a run with one")
    return find(place)


def checkpoint_options(directory: Path) -> dict[str, dict[str, Any]]:
    """Returns what the option `checkpoint` of eval, generate and export sets, from the config.yaml in `directory`, that
    of a checkpoint: for each config group the blocks that it sets, to be resolved by Hydra. "dataset" has {"dataset",
    "metrics"}, "reward" {"reward"}, "algorithm" {"algorithm"}, and "", the root, {"seed", "data_root", "decode",
    "model"}, of which export uses "data_root" and "model" alone. Of decode it has only `max_length`. `data_root` is a
    text that Hydra resolves to TOKENRL_DATA or else the saved one, and paths of dataset and model below the saved one
    begin with ${data_root}. Raises UserError where the file is missing or unreadable, holds a variable (${...}), or
    lacks model, dataset, reward, algorithm, decode or seed."""
    file = directory / "config.yaml"
    saved = read_yaml(file)
    if broken := [key for key, text in keys_and_texts(saved) if "${" in f"{key}{text}"]:
        raise UserError(str(file), f"{broken[0]} holds '${{': a checkpoint's config is plain values")
    blocks = ("model", "dataset", "reward", "algorithm", "decode")
    if missing := [key for key in (*blocks, "seed") if key not in saved]:
        raise UserError(str(file), f"is not the config of a checkpoint: it has no {', '.join(missing)}")
    if wrong := [key for key in blocks if not isinstance(saved[key], dict)]:
        raise UserError(str(file), f"is not the config of a checkpoint: {wrong[0]} must be a block")
    root = str(saved.get("data_root", "data"))
    return {
        "dataset": {"dataset": _rerooted(saved["dataset"], root), "metrics": saved.get("metrics") or {}},
        "reward": {"reward": saved["reward"]},
        "algorithm": {"algorithm": saved["algorithm"]},
        "": {
            "seed": saved["seed"],
            "data_root": f"${{oc.env:TOKENRL_DATA,{quoted(root)}}}",
            "decode": {"max_length": saved["decode"].get("max_length")},
            "model": _rerooted(saved["model"], root),
        },
    }


def _rerooted(value: Any, root: str) -> Any:
    """A config, or any value of it, with ${data_root} in place of `root`, the data_root of the saved run, at the
    beginning of paths: on another machine the data lie elsewhere."""
    if isinstance(value, dict):
        return {key: _rerooted(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_rerooted(item, root) for item in value]
    if isinstance(value, str) and root and value.startswith(f"{root}/"):
        return "${data_root}" + value[len(root) :]
    return value


def keys_and_texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yields (key, text) for every text in a config, at any depth, and (key, "") for every key and every index of a
    list. Keys are full, with dots; `where` is put before them."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            inner = f"{where}.{key}" if where else str(key)
            yield inner, ""
            yield from keys_and_texts(item, inner)
