"""Calls of rewards, metrics and credits, which may be the user's own classes, and checks of what they return.

What they return is converted to float64 arrays and plain values; a wrong result, or an exception in the user's code,
becomes a UserError that names the class.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tokenrl_cli.interfaces import CorpusScore, Scored, UserError
from tokenrl_cli.usercode.copies import copied
from tokenrl_cli.usercode.isolation import process_restored, same_numerics
from tokenrl_cli.usercode.modules import PACKAGE, error_line, place_of_error
from tokenrl_cli.usercode.values import LARGEST, number, plain, shown, shown_with_type, writable


def call_user_code(owner: Any, where: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls `function(*arguments)`, a method of `owner`, and returns its result. Arguments and result are neither
    copied nor checked.

    If the class of `owner` is of this package, nothing else is done. If it is not, the state of the process is restored
    afterwards (`process_restored`, `same_numerics`), and whatever it raises, SystemExit included, becomes a UserError
    with this `where`, and with the file and line of the user's code in the message; a UserError is raised as it is. A
    signal that really came, such as Ctrl-C, is raised as it is, too.
    """
    if type(owner).__module__.partition(".")[0] == PACKAGE.name:
        return function(*arguments)
    with process_restored() as interrupted, same_numerics():
        try:
            return function(*arguments)
        except UserError:
            raise
        except BaseException as error:
            if interrupted():
                raise
            problem = f"{type(owner).__name__} failed: {error_line(error)} ({place_of_error(error)})"
            raise UserError(where, problem) from error


def scores_of(given: Any, name: str, shapes: list[tuple[int, ...]]) -> np.ndarray:
    """Returns the scores that a reward called `name` gave, an array, list or tensor, copied to a new float64 array. It
    has one of `shapes`, such as [B] or [B, T]; NaN where there is no score, also for None in a list; bools count as 0
    and 1. Raises UserError if they are no numbers, have another shape, are infinite, or are above LARGEST (1e18) or
    below -LARGEST."""
    scores = _floats(given)
    if scores is None:
        raise UserError("reward", f"{name} gave {shown_with_type(given)}, must be an array of numbers")
    if scores.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise UserError("reward", f"{name} gave scores of shape {scores.shape}, must be {expected}")
    if np.isinf(scores).any():
        raise UserError("reward", f"{name} gave an infinite score", "NaN says that a text has none")
    if (np.abs(np.nan_to_num(scores)) > LARGEST).any():
        raise UserError(
            "reward", f"{name} gave a score above {LARGEST:g}, which no policy can be trained on", "scale it"
        )
    return scores


def scored_of(given: Any, name: str, count: int, shapes: list[tuple[int, ...]]) -> Scored:
    """Returns what a reward called `name` gave for `count` texts, a Scored or its scores alone (an array, list or
    tensor), as a new, checked Scored: scores as float64 of one of `shapes`, metrics as floats, columns as lists of
    `count` plain values, in which an object that JSON cannot hold becomes a short text. Scores given alone get no
    metrics and no columns. NaN is allowed in scores (the text has none) and metrics. Raises UserError for a wrong type,
    shape or length, for infinity in either, and for a score above 1e18 or below -1e18."""
    given = given if isinstance(given, Scored) else Scored(given, {}, {})
    scores = scores_of(given.scores, name, shapes)
    metrics = {str(key): number(value) for key, value in _items(given.metrics, name, "metrics")}
    if wrong := [key for key, value in metrics.items() if value is None]:
        raise UserError(
            "reward", f"{name} gave {shown_with_type(given.metrics[wrong[0]])} as {wrong[0]!r}, must be a number"
        )
    columns = {}
    for key, values in _items(given.columns, name, "columns"):
        values = plain(values)
        if not isinstance(values, list | tuple) or len(values) != count:
            raise UserError(
                "reward", f"{name} gave {shown_with_type(values)} as column {key!r}, must be a list of {count}"
            )
        columns[str(key)] = [_cell(value) for value in values]
    return Scored(scores, {key: value for key, value in metrics.items() if value is not None}, columns)


def corpus_of(given: Any, name: str, count: int) -> CorpusScore:
    """Returns the corpus score that a metric called `name` gave for `count` texts, as a new CorpusScore: its value as a
    float, which may be NaN but not infinite, and its sentence scores [count] a new float64 array, NaN where there is
    none. Its statistics and `aggregate` are neither checked nor copied. Raises UserError for anything else, as for an
    infinite score of a sentence or one beyond +-1e18."""
    if not isinstance(given, CorpusScore):
        raise UserError("metrics", f"corpus of {name} gave {shown_with_type(given)}, must be a CorpusScore")
    value = number(given.value)
    if value is None:
        raise UserError(
            "metrics",
            f"corpus of {name} gave the value {shown_with_type(given.value)}, must be a finite number, or NaN where "
            "there is no score",
        )
    return replace(given, value=value, sentences=scores_of(given.sentences, f"corpus of {name}", [(count,)]))


def _items(given: Any, name: str, kind: str) -> list[tuple[Any, Any]]:
    if not isinstance(given, dict):
        raise UserError("reward", f"{name} gave {shown_with_type(given)} as its {kind}, must be a dictionary")
    return list(given.items())


def _floats(given: Any) -> np.ndarray | None:
    """A new float64 array of the same shape; None where some element is not a number. None in a list becomes NaN."""
    if isinstance(given, torch.Tensor):
        if given.is_complex() or given.is_meta:
            return None
        return given.detach().to("cpu", torch.float64, copy=True).numpy()
    if isinstance(given, list | tuple):
        given = [plain(each) for each in given]
    try:
        with warnings.catch_warnings(action="ignore"):
            array = np.array(given)
    except Exception:  # rows of several lengths, an object that lies about itself
        return None
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    if array.dtype.kind != "O":
        return None
    found = [math.nan if each is None else number(each) for each in array.ravel().tolist()]
    known = [each for each in found if each is not None]
    return np.array(known, dtype=np.float64).reshape(array.shape) if len(known) == len(found) else None


def _cell(value: Any) -> Any:
    """A value of a column as plain values that JSON can hold; other objects as a short text."""
    value = plain(value)
    if isinstance(value, str):
        return writable(value)
    try:
        json.dumps(value)
    except Exception:
        return shown(value)
    return copied(value)
