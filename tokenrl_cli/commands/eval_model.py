"""`tokenrl eval model=... model.path=DIR dataset=...`: scores a pretrained model as it is, without a run.

The config is composed as that of `train`, from conf/eval_model.yaml, and nothing is trained.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tokenrl_cli.commands.eval import (
    COUNTED,
    Examination,
    file_values,
    prepared,
    refuse_link,
    settings_from,
    show,
    unread_tokens,
    write,
)
from tokenrl_cli.interfaces import UserError

PATHS = ("path", "decoder_path")  # keys of a model's block that name a checkpoint
IDLE = ("algorithm", "warm_start", "credit", "trainer", "init_from", "resume", "fallback", "freeze")  # of training
USED = ("trainer.threads", "trainer.monitor")  # those that act here, too
STAGE = "pretrained"  # of these results, in place of a stage of training


def run(config: DictConfig) -> float | None:
    """Evaluates the model of a config on a split, shows every metric with its signature and a 95 % interval, and writes
    them to a folder in `out`, or else in a new directory below outputs/. Called by Hydra, on whose state (HydraConfig)
    it depends.

    Returns the value of `trainer.monitor`, None if this evaluation does not have it. Raises UserError for a mistake of
    the user's, OSError if the results cannot be written.
    """
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commands.eval_errors import error_reports, require_comparable, show_difference
    from tokenrl_cli.commands.keys import EvalModel, require_keys
    from tokenrl_cli.files.writing import require_room
    from tokenrl_cli.report.display import choose_display
    from tokenrl_cli.report.evaluation_folder import folder_for

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    line = list(HydraConfig.get().overrides.task)
    require_keys(plain, EvalModel, "eval")
    refuse_idle(line)
    path = plain["model"].get("path")
    if path is None:
        remedy = "model.path=DIR names the checkpoint of a pretrained model, ckpt=RUN a run"
        raise UserError("model", "has random weights: there is nothing to evaluate", remedy)
    out = Path(plain["out"]).expanduser() if plain["out"] else _unused(time.strftime("outputs/%Y-%m-%d/%H-%M-%S"))
    require_room(refuse_link(out))
    require_comparable(plain["against"], plain["split"])
    examination = prepare(plain, line)
    display = choose_display()
    try:
        evaluation = examination.evaluate(partial(display.evaluating, "eval", plain["split"], 0))
        settings = settings_from(plain, plain, evaluation, weights_of(plain["model"]), 0, STAGE)
        folder = refuse_link(folder_for(out, parts_of(settings, evaluation.decode), settings))
        errors = error_reports(examination.task, evaluation)
        results = write(folder, evaluation, str(path), settings, examination.findings, errors)
        show(display, evaluation, results)
        show_difference(display, folder, plain["against"], plain["split"])
        if sentence := unread_tokens(evaluation, examination.task):
            display.message(sentence)
        display.message(f"{path} as it is, written to {folder}")
    finally:
        display.close()
    monitored = evaluation.metrics.get(plain["trainer"]["monitor"])
    return None if monitored is None else float(monitored)


def refuse_idle(line: Iterable[str]) -> None:
    """Raises UserError if one of the overrides `line` sets a key in one of the blocks IDLE, those that only training
    reads, unless the key is in USED: it would have no effect here."""
    from tokenrl_cli.commands.idle import place_of

    for word in line:
        place = place_of(word)
        if place.partition(".")[0] in IDLE and place not in USED:
            raise UserError(word, "has no effect: eval trains nothing", "leave it out; tokenrl train takes it")


def _unused(name: str) -> Path:
    """The path `name`, or the first of `name`-2, -3 ... that does not exist."""
    number, place = 1, Path(name)
    while os.path.lexists(place):
        number += 1
        place = Path(f"{name}-{number}")
    return place


def prepare(plain: dict[str, Any], line: list[str]) -> Examination:
    """Builds the evaluation of the model that `plain`, a resolved and checked config, describes: the model as it is
    loaded. Sets torch's number of threads and seeds its global generator. Raises UserError for missing data or a
    missing split, for references that are needed and missing, for a setting in `line` (the overrides) that has no
    effect, and for components that do not fit each other."""
    from tokenrl_cli.run import assembly

    # without the blocks of the algorithms, whose settings nothing reads here
    whole = {key: value for key, value in plain.items() if key not in IDLE or key == "trainer"}
    task, findings = prepared(whole, plain, None, line)
    model = assembly.model_of(whole, plain["imports"], task)
    model.eval()
    return Examination(0, whole, plain, task, model, findings)


def weights_of(block: dict[str, Any]) -> list[str]:
    """Returns what identifies the weights of a model's block: the SHA-256 of each pretrained checkpoint that it names,
    all of whose files are read, then KEY=VALUE of the other keys. Raises SettingError where one cannot be read."""
    from tokenrl_cli import hub

    digests = [hub.digest(hub.directory(str(block[key]), key), key) for key in PATHS if block.get(key)]
    return [*digests, *(f"{key}={value}" for key, value in block.items() if key not in PATHS)]


def parts_of(settings: dict[str, Any], decode: str) -> list[str]:
    """Returns the parts of the folder's name: split, decoding, and KEY=VALUE of each setting of the evaluation that is
    not the default. `settings` is the result of `settings_from`, `decode` the name of the decoding."""
    from tokenrl_cli.report.evaluation_folder import changed_settings

    defaults = file_values("eval_model.yaml") | {"seed": file_values("train.yaml")["seed"]}
    usual = {key: defaults[key] for key in COUNTED}
    usual["decode"] = file_values(f"decode/{decode}.yaml") | {"max_length": settings["decode"]["max_length"]}
    return [settings["split"], decode, *changed_settings(usual, {key: settings[key] for key in usual})]
