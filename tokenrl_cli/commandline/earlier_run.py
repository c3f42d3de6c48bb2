"""Commands that build on an earlier run: its files found, and turned into what the new command starts from.

Files of a run may be somebody else's. They are read as plain data, and nothing in them may name a path, a variable or
a piece of Hydra: that would be evaluated.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenrl_cli.commandline.arguments import Arguments, key_of, override, quoted, typed, unquoted
from tokenrl_cli.commandline.outside_data import ROOT, carried
from tokenrl_cli.files.records import read_yaml
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.run.directory import CHECKPOINTS, CONFIG, MANIFEST, find

FILLED_IN = "${data_root}"  # at the beginning of a path in it: whoever goes on says where that is
TRACES = ("checkpoints", "metrics.jsonl", "results.json")  # any of them makes a directory a run
FIXED = ("experiment", "out", "hydra.run.dir", "hydra.output_subdir", "hydra.searchpath")


def unused(place: str, subdirectory: str) -> str:
    """`subdirectory`, unless `place` holds a run already, or what is no run's: then Hydra must not write there."""
    run = Path(place)
    if (run / "results.json").exists():
        raise UserError(f"out={place}", "holds a finished run", "choose another directory")
    config = os.path.lexists(run / CONFIG)
    if any(os.path.lexists(run / name) for name in TRACES):
        if not config:
            problem = f"holds what a run leaves, without the {CONFIG} that it could go on with"
            raise UserError(f"out={place}", problem, "choose another directory")
        raise UserError(f"out={place}", "holds an unfinished run", f"go on with it: {_going_on(run)}")
    record = run / ".hydra"
    if config and not record.is_dir():
        raise UserError(f"out={place}", f"holds a {CONFIG} that is no run's", "choose another directory")
    if link := next((each for each in (record, *record.glob("*")) if each.is_symlink()), None):
        raise UserError(str(link), f"is a link to {os.readlink(link)}: no link of a run is followed", "remove it")
    return subdirectory


def _going_on(run: Path) -> str:
    """The command for a run of which nothing but its place is known."""
    try:
        _, saved = config_of(run)
        root = str(saved.get("data_root", ROOT))
        return go_on(run, filled(saved, root))
    except (UserError, OSError):
        return typed("train", override("resume", str(run)))


def directory(out: str | None, otherwise: str) -> str:
    """The directory that `out=` names; without it a fresh one. Made now."""
    if not out:
        return fresh(otherwise)
    place = Path(out).expanduser()
    with _told(place, f"out={out}"):
        place.mkdir(parents=True, exist_ok=True)
    return str(place)


@contextmanager
def _told(place: Path, where: str) -> Iterator[None]:
    """Says what is in the way where a directory cannot be made."""
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


def one_directory(arguments: Arguments) -> None:
    """Refuses two names for the place of one run."""
    out = arguments.value("out")
    if out in (None, "", "null"):
        return
    if arguments.value("resume") not in (None, "", "null"):
        raise UserError(
            f"out={out}", "cannot be given with resume: a run goes on in its own directory", "leave out one of the two"
        )
    sweeps = "--multirun" in arguments.flags
    if arguments.value(other := "hydra.sweep.dir" if sweeps else "hydra.run.dir") is not None:
        raise UserError(f"out={out}", f"names the directory that {other} names, too", f"leave out {other}")


def fresh(path: str) -> str:
    """The directory, made now; with a number after its name where another run was faster."""
    number = 1
    while True:
        place = Path(path if number == 1 else f"{path}-{number}")
        if os.path.lexists(place):
            number += 1
            continue
        with _told(place.parent, path):
            place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.mkdir()
            return str(place)
        except FileExistsError:
            continue  # another run was faster, and the next name is tried
        except OSError as error:
            raise UserError(path, f"cannot be made: {error.strerror or error}", "give out=DIR") from None


def go_on(run: Path | str, config: dict[str, Any]) -> str:
    """The command that goes on with a run of this resolved config, to be pasted as it is."""
    return typed("train", override("resume", str(run)), *carried(config))


# ----------------------------------------------------------------------------------------------------------- resume=


def resumed(arguments: Arguments) -> tuple[Arguments, dict[str, Any] | None]:
    """`resume=RUN`: the command line that puts out into RUN again, and the run's own config as the primary one.

    Nothing of RUN is where Hydra looks for files: its config is one node among ours, of plain values.
    """
    asked = arguments.value("resume")
    if asked in (None, "", "null"):
        return arguments, None
    if "--multirun" in arguments.flags:
        raise UserError(f"resume={asked}", "one run is resumed at a time", "leave out -m")
    for flag in ("--config-name", "--config-path"):
        if flag in arguments.flags:
            raise UserError(flag, "cannot be given with resume: a run goes on with its own config", "leave it out")
    run = Path(str(asked))
    if "${" in str(asked) or not run.is_dir():
        raise UserError(f"resume={asked}", "there is no such directory", "give a run's directory, as train printed it")
    if not os.path.lexists(run / CONFIG):
        began = any(os.path.lexists(run / name) for name in TRACES)
        remedy = "give a run's directory, as train printed it"
        raise UserError(f"resume={asked}", f"is not a run: it has no {CONFIG}", "start a new run" if began else remedy)
    _, saved = config_of(run)
    _refuse_parts(arguments, saved)
    node = saved | {"data_root": os.environ.get("TOKENRL_DATA") or saved.get("data_root", ROOT)}
    node |= {"imports": [], "fallback": False}  # its imports are not trusted: they may be another's
    again = arguments.without("resume").with_overrides(
        f"resume={quoted(str(run))}",
        "hydra.job.chdir=false",
        f"hydra.run.dir={quoted(str(run))}",
        "hydra.output_subdir=null",
    )
    defaults = ["_self_", {"override hydra/job_logging": "run"}, {"override hydra/hydra_logging": "plain"}]
    return again, {"defaults": defaults, **node}


def config_of(run: Path) -> tuple[str | None, dict[str, Any]]:
    """The folder that a run was started in, and its config.yaml as plain values: a path may begin with ${data_root},
    and nothing else in it may name a variable. Raises UserError."""
    file = run / CONFIG
    saved = read_yaml(file)
    for key in ("defaults", "hydra"):
        if key in saved:
            raise UserError(str(file), f"must not set {key!r}: it would run what it names")
    started_in = saved.pop("started_in", None)  # a note, no setting
    require_plain(saved, str(file))
    return started_in if isinstance(started_in, str) else None, saved


def require_plain(config: dict[str, Any], where: str) -> None:
    """Refuses a config with '${' in a key or in a value, but for ${data_root} at the beginning of a path."""
    for key, text in keys_and_texts(config):
        rest = text.removeprefix(FILLED_IN) if text.startswith((f"{FILLED_IN}/",)) or text == FILLED_IN else text
        if "${" in rest or "${" in key or (key == "data_root" and rest != text):
            raise UserError(
                where, f"{key} holds '${{': the config of a run is plain values", f"give {key} another value"
            )


def kept(raw: Any, config: dict[str, Any]) -> dict[str, Any]:
    """What a run's config.yaml says of the resolved `config`, whose `raw` values may name ${data_root}."""
    if isinstance(raw, dict) and isinstance(config, dict):
        return {key: kept(raw.get(key), value) for key, value in config.items()}
    if isinstance(raw, list) and isinstance(config, list) and len(raw) == len(config):
        return [kept(before, value) for before, value in zip(raw, config, strict=True)]
    begins = isinstance(raw, str) and isinstance(config, str) and raw.startswith(FILLED_IN)
    return raw if begins and "${" not in raw.removeprefix(FILLED_IN) else config


def filled(value: Any, root: str) -> Any:
    """A run's config with ${data_root} filled in."""
    if isinstance(value, dict):
        return {key: filled(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, root) for item in value]
    begins = isinstance(value, str) and value.startswith(FILLED_IN)
    return root + value.removeprefix(FILLED_IN) if begins else value


def given(overrides: Iterable[str]) -> dict[str, str]:
    """What a command line says of single values: key -> value, without quotes."""
    return {key_of(each): unquoted(each.partition("=")[2]) for each in overrides if "=" in each}


def _refuse_parts(arguments: Arguments, saved: dict[str, Any]) -> None:
    """On resume values may change, but not the parts: their state would fit no longer."""
    for word in arguments.rest:
        key = key_of(word)
        part = ("/" in key or "@" in key) and not key.startswith("hydra/")
        if part or key in FIXED or isinstance(saved.get(key), dict):
            raise UserError(
                word,
                "cannot be changed on resume: a run's parts are fixed, only single values may be given",
                f"for another {key}, start a new run with init_from=RUN",
            )


BEGUN = "cannot be changed on resume"
ANEW = "start a new run, from these weights with init_from=RUN"
MEANING = "the best checkpoint and the objective so far were measured otherwise, and could not be compared"
FIXED_VALUES = {  # beginning of a key -> why no resumed run may change it
    "init_from": "the run began from its weights long ago",
    "seed": "every draw of the run follows from it",
    "tokenizer.": "the vocabulary was made when the run began",
    "source_tokenizer.": "the vocabulary was made when the run began",
    "model.": "the weights were learned with it",
    "algorithm.data.capacity": "the replay has its size",
    "dataset.": MEANING,
    "reward.": MEANING,
    "metrics.": MEANING,
    "decode.": MEANING,
    "trainer.monitor": MEANING,
    "trainer.warm_start_monitor": MEANING,
    "trainer.eval_examples": MEANING,
}
OVER = ("warm_start.", "trainer.warm_start_", "trainer.gate")  # act in the warm start or at its end alone
FREE = ("dropout", "workers", "timeout", "on_error", "max_failed_fraction")  # last names of values that may change


def refuse_changes(saved: dict[str, Any], stage: str, config: dict[str, Any]) -> None:
    """Refuses values of a resumed run's `config` that can act no more, or that would give another meaning to what the
    run has kept: the checkpoint's config would tell of something that never happened. Raises UserError."""
    before, now = (dict(_leaves(_rerooted(each, str(each.get("data_root", ""))))) for each in (saved, config))
    for key in before | now:
        value = now.get(key, "nothing")
        if before.get(key, "nothing") == value or key.rpartition(".")[2] in FREE:
            continue
        reasons = [reason for start, reason in FIXED_VALUES.items() if key == start or key.startswith(start)]
        if stage != "warm_start" and key.startswith(OVER):
            reasons = ["the warm start is over"]
        if reasons:
            raise UserError(f"{key}={value}", f"{BEGUN} (it was {before.get(key, 'nothing')}): {reasons[0]}", ANEW)


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a config that is no dictionary, under its whole key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{where}.{key}" if where else str(key))
    else:
        yield where, value


# ------------------------------------------------------------------------------------------------------------- ckpt=


def checkpoint_dir(arguments: Arguments) -> Path:
    """What `ckpt=` names: a run means its best checkpoint, else its last."""
    asked = arguments.value("ckpt")
    if asked in (None, "", "null", "???"):
        raise UserError("ckpt", "is missing", f"tokenrl {arguments.command} ckpt=RUN_OR_CHECKPOINT")
    place = Path(str(asked))
    if not os.path.lexists(place):
        raise UserError(f"ckpt={asked}", "there is no such directory", "give a run's directory, or a checkpoint in it")
    inside = CHECKPOINTS in (place.absolute().name, place.absolute().parent.name)
    if not (inside or (place / MANIFEST).is_file() or (place / CHECKPOINTS).is_dir()):
        raise UserError(f"ckpt={asked}", "is neither a checkpoint nor a run with one")
    return find(place)


def checkpoint_nodes(directory: Path) -> dict[str, dict[str, Any]]:
    """Option `checkpoint` of each group, and of the root (""): what a saved policy's config says."""
    file = directory / "config.yaml"
    saved = read_yaml(file)
    if broken := [key for key, text in keys_and_texts(saved) if "${" in f"{key}{text}"]:
        raise UserError(str(file), f"{broken[0]} holds '${{': a checkpoint's config is plain values")
    if missing := [key for key in ("dataset", "reward", "algorithm", "decode", "seed") if key not in saved]:
        raise UserError(str(file), f"is not the config of a checkpoint: it has no {', '.join(missing)}")
    if wrong := [key for key in ("dataset", "reward", "algorithm", "decode") if not isinstance(saved[key], dict)]:
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
        },
    }


def _rerooted(value: Any, root: str) -> Any:
    """Paths under the old data_root follow the new one: a checkpoint may come from another machine."""
    if isinstance(value, dict):
        return {key: _rerooted(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_rerooted(item, root) for item in value]
    if isinstance(value, str) and root and value.startswith(f"{root}/"):
        return "${data_root}" + value[len(root) :]
    return value


def keys_and_texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a config under its whole key, and every key as a text of its own."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            inner = f"{where}.{key}" if where else str(key)
            yield inner, ""
            yield from keys_and_texts(item, inner)
