"""Commands that build on an earlier run: its files found, and turned into what the new command starts from.

Files of a run may be somebody else's. They are read as plain data, and nothing in them may name a path, a variable or
a piece of Hydra: that would be evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenrl_cli.arguments import Arguments, key_of, override, quoted, typed
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.outside import carried
from tokenrl_cli.recipes import conf_dir

TRACES = ("checkpoints", "metrics.jsonl", "results.json")  # any of them makes a directory a run
FIXED = ("experiment", "out", "hydra.run.dir", "hydra.output_subdir", "hydra.searchpath")


def unused(directory: str, subdirectory: str) -> str:
    """`subdirectory`, unless `directory` holds a run already: then Hydra must not write there."""
    run = Path(directory)
    if (run / "results.json").exists():
        raise UserError(f"out={directory}", "holds a finished run", "choose another directory")
    if any((run / name).exists() for name in TRACES):
        raise UserError(
            f"out={directory}", "holds an unfinished run", f"go on with it: tokenrl train resume={directory}"
        )
    return subdirectory


def directory(out: str | None, otherwise: str) -> str:
    """The directory that `out=` names; without it a fresh one, made now."""
    if not out:
        return fresh(otherwise)
    place = Path(out).expanduser()
    if taken := next((each for each in (place, *place.parents) if each.exists() and not each.is_dir()), None):
        raise UserError(f"out={out}", f"{taken} is a file", "choose another directory")
    return str(place)


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
        candidate = Path(path if number == 1 else f"{path}-{number}")
        try:
            candidate.mkdir(parents=True)
            return str(candidate)
        except FileExistsError:
            number += 1


def go_on(run: Path | str, config: dict[str, Any]) -> str:
    """The command that goes on with a run of this resolved config, to be pasted as it is."""
    return typed("train", override("resume", str(run)), *carried(config))


# ----------------------------------------------------------------------------------------------------------- resume=


def resumed(arguments: Arguments) -> Arguments:
    """`resume=RUN`: the run's own config as the primary one, and the output back into RUN."""
    asked = arguments.value("resume")
    if asked in (None, "", "null"):
        return arguments
    if "--multirun" in arguments.flags:
        raise UserError(f"resume={asked}", "one run is resumed at a time", "leave out -m")
    run = Path(str(asked))
    if not run.is_dir():
        raise UserError(f"resume={asked}", "there is no such directory", "give a run's directory, as train printed it")
    before = resumptions(run)
    config = (before[-1] if before else run / ".hydra") / "config.yaml"  # with what the last resume changed
    if not config.is_file():
        raise UserError(f"resume={asked}", "is not a run: it has no .hydra/config.yaml")
    if not (run / "checkpoints" / "last").exists():
        raise UserError(f"resume={asked}", "has no checkpoint to go on from", "start a new run")
    saved = _plain(config)
    for key in ("defaults", "hydra"):
        if key in saved:
            raise UserError(str(config), f"must not set {key!r}: it would run what it names")
    _refuse_parts(arguments, saved)
    number = 1 + (_number(before[-1]) if before else 0)
    again = arguments.without("resume").with_flags(config_path=str(config.parent.resolve()), config_name="config")
    if arguments.value("imports") is None:  # the run's own are not trusted: they may be another's
        again = again.with_overrides("imports=[]")
    return again.with_overrides(
        f"resume={quoted(str(run))}",
        f"hydra.searchpath=[{quoted('file://' + str(conf_dir()))}]",
        "hydra/job_logging=run",
        "hydra/hydra_logging=plain",
        "hydra.job.chdir=false",
        f"hydra.run.dir={quoted(str(run))}",
        f"hydra.output_subdir=.hydra/resume-{number}",
    )


def resumptions(run: Path) -> list[Path]:
    """Where Hydra wrote the config of each earlier resume, the oldest first."""
    return sorted((run / ".hydra").glob("resume-*"), key=_number)


def _number(folder: Path) -> int:
    text = folder.name.rpartition("-")[2]
    return int(text) if text.isdigit() else 0


def forget(arguments: Arguments) -> None:
    """Of a resume that was a mistake: it must not be where the next one starts from."""
    import shutil

    run, subdirectory = arguments.value("resume"), arguments.value("hydra.output_subdir")
    if run and subdirectory:
        shutil.rmtree(Path(run) / subdirectory, ignore_errors=True)


def _refuse_parts(arguments: Arguments, saved: dict[str, Any]) -> None:
    """On resume values may change, but not the parts: their state would fit no longer."""
    for override in arguments.rest:
        key = key_of(override)
        part = ("/" in key or "@" in key) and not key.startswith("hydra/")
        if part or key in FIXED or isinstance(saved.get(key), dict):
            raise UserError(
                override,
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
    given = Path(str(asked))
    if not given.exists():
        raise UserError(f"ckpt={asked}", "there is no such directory", "give a run's directory, or a checkpoint in it")
    for candidate in (given, given / "checkpoints" / "best", given / "checkpoints" / "last"):
        if (candidate / "config.yaml").is_file() and (candidate / "manifest.json").is_file():
            return candidate
    raise UserError(f"ckpt={asked}", "is neither a checkpoint nor a run with one")


def checkpoint_nodes(directory: Path) -> dict[str, dict[str, Any]]:
    """Option `checkpoint` of each group, and of the root (""): what a saved policy's config says."""
    file = directory / "config.yaml"
    saved = _plain(file)
    if broken := [where for where, value in _texts(saved, "") if "${" in value]:
        raise UserError(str(file), f"{broken[0]} holds '${{': a checkpoint's config is plain values")
    if missing := [key for key in ("dataset", "reward", "algorithm", "decode", "seed") if key not in saved]:
        raise UserError(str(file), f"is not the config of a checkpoint: it has no {', '.join(missing)}")
    root = str(saved.get("data_root", "data"))
    return {
        "dataset": {"dataset": _rerooted(saved["dataset"], root), "metrics": saved.get("metrics") or {}},
        "reward": {"reward": saved["reward"]},
        "algorithm": {"algorithm": saved["algorithm"]},
        "": {
            "seed": saved["seed"],
            "data_root": f"${{oc.env:TOKENRL_DATA,{quoted(root)}}}",
            "decode": {"max_length": saved["decode"]["max_length"]},
        },
    }


def _rerooted(value: Any, root: str) -> Any:
    """Paths under the old data_root follow the new one: a checkpoint may come from another machine."""
    if isinstance(value, dict):
        return {key: _rerooted(item, root) for key, item in value.items()}
    if isinstance(value, str) and value.startswith(f"{root}/"):
        return "${data_root}" + value[len(root) :]
    return value


def _plain(file: Path) -> dict[str, Any]:
    """A YAML file as plain values, interpolations left as text."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(str(file), f"cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(str(file), "must hold keys and values")
    return {str(key): value for key, value in content.items()}


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(str(key), where)
            yield from _texts(item, f"{where}.{key}" if where else str(key))
