"""A reward of the user's own: a function with the arguments it asks for by name."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
import math
import numbers
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tokenrl_cli.build import hint, locate, trusted
from tokenrl_cli.copies import copied
from tokenrl_cli.interfaces import Scored, Texts, UserError
from tokenrl_cli.reward.workers import Arguments, Failure, InTurn, Processes, Together, failure

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
TAKEN = ("mean", "std", "failed")  # what every reward, or this one, logs itself


class UserFunction:
    """What `function` (module.name, or file.py:name) returns: a number; a list with a number a sampled token, EOS too;
    None, where it does not apply; or {"reward": one of these, ...}, whose other entries, numbers or strings, become
    columns beside the samples, the numbers also metrics (their mean).

    It is called once a sample with what its parameters name: hypothesis, reference (the first), references, source,
    tokens (ids), ended (EOS was chosen), step, or any column of the dataset; `batched`, with many samples at once and
    everything but step a list (hypotheses, references (a list a sample), sources ...), to return a list of the above.

    A sample that raises, runs longer than `timeout` or gives NaN is invalid: its score is NaN, as for None, but it is
    counted (`failed`) and shown, or stops the run. Any other answer is a mistake, and always does.

    With `workers` = 0 an async function runs for all samples at once, a plain one for one after another, in a thread;
    one that hangs is left behind there, and os._exit ends the program. In worker processes it is killed, or replaced.
    """

    measures = ("function",)

    def __init__(
        self,
        function: str,
        timeout: float,
        batched: bool,
        workers: int,
        on_error: str,
        max_failed_fraction: float,
        trust: Sequence[str],
    ) -> None:
        if not 0 < timeout < math.inf:
            raise UserError("reward.timeout", f"must be above 0 seconds and finite, got {timeout}")
        if workers < 0:
            raise UserError("reward.workers", f"must be 0 or more processes, got {workers}")
        if on_error not in ("mask", "raise"):
            raise UserError("reward.on_error", f"must be mask or raise, got {on_error!r}")
        if not 0 < max_failed_fraction <= 1:
            raise UserError("reward.max_failed_fraction", f"must be above 0 and at most 1, got {max_failed_fraction}")
        self.where = f"reward.function={function}"
        self.batched, self.workers, self.on_error = batched, workers, on_error
        self.max_failed_fraction = max_failed_fraction
        found = located(function, trust)
        self.parameters = _parameters(found, self.where)
        self._shown: set[str] = set()
        self._run: Callable[[list[Arguments]], list[Any]]
        if workers:
            known = function, tuple(trust)
            self._run = Processes(partial(_answer, *known, batched), _prepare, known, timeout, workers)
        else:
            self._run = (Together if inspect.iscoroutinefunction(found) else InTurn)(found, timeout)

    @property
    def needs_references(self) -> bool:
        """Whether it has a parameter for them without a default."""
        return any((self.parameters or {}).get(name) for name in ("reference", "references"))

    def __call__(self, texts: Texts) -> Scored:
        """[B], or [B, T] with 0 at masked places where the function gives a number a token. Raises UserError."""
        answers = self._batches(texts) if self.batched else self._samples(texts)
        failed = {row: each for row, each in enumerate(answers) if isinstance(each, Failure)}
        if failed:
            self._report(failed, texts)
        dicts = [each if isinstance(each, dict) else {"reward": each} for each in answers]
        scores = self._array([None if row in failed else each["reward"] for row, each in enumerate(dicts)], texts.mask)
        names = dict.fromkeys(name for each in dicts for name in each if name != "reward")
        columns = {name: [each.get(name) for each in dicts] for name in names}
        metrics = {name: float(np.mean(known)) for name, column in columns.items() if (known := _finite(column))}
        return Scored(scores, {"failed": float(len(failed))} | metrics, columns)

    def advice(self, texts: Texts, scores: np.ndarray) -> str:
        """On a function that gives no number at all."""
        if not np.isnan(scores).all():
            return ""
        return f"{self.where} gave None, or failed, each time: a function that does not `return` its number gives None"

    def _samples(self, texts: Texts) -> list[Any]:
        calls = [self._given(_one(texts, row)) for row in range(len(texts.hypotheses))]
        return [self._right(each, False) for each in self._run(calls)]

    def _batches(self, texts: Texts) -> list[Any]:
        """One call, or one for each of the workers."""
        known, count = _all(texts), len(texts.hypotheses)
        shares = max(1, min(self.workers, count))
        cuts = list(pairwise(count * i // shares for i in range(shares + 1)))
        parts = [{name: v if name == "step" else v[start:end] for name, v in known.items()} for start, end in cuts]
        answers: list[Any] = []
        for answer, (start, end) in zip(self._run([self._given(part) for part in parts]), cuts, strict=True):
            several = self._right(answer, True)
            several = [several] * (end - start) if isinstance(several, Failure) else several
            if len(several) != end - start:
                raise UserError(self.where, f"gave {len(several)} answers for {end - start} samples")
            answers += several
        return answers

    def _given(self, known: Arguments) -> Arguments:
        if self.parameters is None:
            return known
        if missing := [repr(name) for name, needed in self.parameters.items() if needed and name not in known]:
            raise UserError(self.where, f"asks for {', '.join(missing)}; there are {', '.join(known)}")
        return {name: known[name] for name in self.parameters if name in known}

    def _right(self, answer: Any, batched: bool) -> Any:
        try:
            return _plain(answer, batched)
        except Wrong as wrong:
            raise UserError(self.where, str(wrong)) from None

    def _array(self, values: list[float | list[float] | None], mask: np.ndarray) -> np.ndarray:
        if not any(isinstance(value, list) for value in values):
            return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        result = np.zeros(mask.shape, dtype=np.float64)
        for row, value in enumerate(values):
            if isinstance(value, float):
                raise UserError(self.where, f"gave {value} (float), must give a list, as for other samples")
            if value is not None and len(value) != mask[row].sum():
                wanted = f"must give one for each of the {mask[row].sum()} sampled tokens, EOS included"
                raise UserError(self.where, f"gave {len(value)} numbers, {wanted}")
            result[row, mask[row]] = math.nan if value is None else value
        return result

    def _report(self, failed: dict[int, Failure], texts: Texts) -> None:
        row, first = next(iter(failed.items()))
        told = f"failed on {_shown(texts.hypotheses[row], 200)}: {first.error}"
        count = len(texts.hypotheses)
        if self.on_error == "raise":
            raise UserError(self.where, told, "reward.on_error=mask leaves such samples out")
        if len(failed) > self.max_failed_fraction * count:
            share = f"of {count} samples {len(failed)} failed, more than reward.max_failed_fraction"
            raise UserError(self.where, f"{share}={self.max_failed_fraction:g}; the first {told}")
        if first.error not in self._shown:
            self._shown.add(first.error)
            log = logging.getLogger(__name__)
            log.warning("%s %s; %d of %d samples do not count\n%s", self.where, told, len(failed), count, first.trace)


# ------------------------------------------------------------------------------------------------- finding it


def located(function: str, trust: Sequence[str]) -> Callable[..., Any]:
    """The function of a module, or of a file (relative to the current directory), that `trust` names; else UserError.

    That a config names a file is not enough: the config may be of somebody else's checkpoint.
    """
    where = f"reward.function={function}"
    try:
        found = _in_file(function, trust) if ":" in function else locate(function, trust)
    except UserError as error:
        raise UserError(where, error.problem, error.remedy) from error.__cause__
    if inspect.isclass(found):
        raise UserError(where, "is a class, must be a function")
    return found


def _in_file(function: str, trust: Sequence[str]) -> Callable[..., Any]:
    file, _, name = function.rpartition(":")
    path = Path(file).resolve()
    if path not in [Path(each).resolve() for each in trust if each.endswith(".py")]:
        raise UserError(file, f"{file} is not in imports", f"if you trust that file, add 'imports=[{file}]'")
    if not path.is_file():
        raise UserError(file, f"there is no file {path}")
    module = sys.modules.get(str(path)) or _loaded(path)  # named by its path: random.py must not hide a library
    found = getattr(module, name, None)
    if not inspect.isfunction(found):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(file, f"{file} has no function {name!r}{hint(name, functions)}")
    if found.__module__ != str(path) and not trusted(found.__module__, trust):
        raise UserError(file, f"is defined in {found.__module__}, which is not in imports")
    return found


def _loaded(path: Path) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # what the file imports may lie there, too
    spec = importlib.util.spec_from_file_location(str(path), path)
    assert spec and spec.loader, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[str(path)] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's file may do anything
        del sys.modules[str(path)]
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        problem = f"running {path.name} failed: {type(error).__name__}: {error} (line {line})"
        raise UserError(str(path), problem) from error
    return module


def _parameters(function: Callable[..., Any], where: str) -> dict[str, bool] | None:
    """By name, whether it must be given; None: whatever there is."""
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is each.POSITIONAL_ONLY for each in parameters):
        raise UserError(where, "has parameters without a name, must take all of them by name")
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return {each.name: each.default is each.empty for each in parameters if each.kind in NAMED}


# ----------------------------------------------------------------------------------------------- what it is given


def _all(texts: Texts) -> Arguments:
    return {
        **copied(texts.columns),
        "hypotheses": list(texts.hypotheses),
        "references": copied(texts.references),
        "sources": list(texts.sources),
        "tokens": [ids[real].tolist() for ids, real in zip(texts.actions, texts.mask, strict=True)],
        "ended": texts.ended.tolist(),
        "step": texts.step,
    }


def _one(texts: Texts, row: int) -> Arguments:
    references = copied(texts.references[row])
    return {
        **{name: copied(values[row]) for name, values in texts.columns.items()},
        "hypothesis": texts.hypotheses[row],
        "reference": references[0] if references else None,
        "references": references,
        "source": texts.sources[row],
        "tokens": texts.actions[row][texts.mask[row]].tolist(),
        "ended": bool(texts.ended[row]),
        "step": texts.step,
    }


# ------------------------------------------------------------------------------------------------- what it may give


class Wrong(Exception):
    """An answer of a wrong type: a mistake in the function, where a Failure is of one sample."""


def _plain(answer: Any, batched: bool) -> Any:
    """A float, list of floats, None, dict or Failure (NaN is one); a list of them where batched. Raises Wrong."""
    if isinstance(answer, Failure):
        return answer
    if isinstance(answer, Wrong):  # from another process, whose pool keeps it: raised, it would keep this frame, too
        raise Wrong(*answer.args)
    if batched:
        answer = answer.tolist() if hasattr(answer, "tolist") else answer  # arrays of numpy and torch
        if not isinstance(answer, list | tuple):
            raise Wrong(
                f"gave {_named(answer)}, must give a list with an answer for each sample, as batched=true wants"
            )
        return [_plain(each, False) for each in answer]
    if not isinstance(answer, dict):
        return _score(answer)
    if "reward" not in answer:
        raise Wrong(f"gave {_named(answer)}, must have the key 'reward'")
    score = _score(answer["reward"])
    extra = {str(key): _extra(key, value) for key, value in answer.items() if key != "reward"}
    return score if isinstance(score, Failure) else {"reward": score} | extra


def _score(answer: Any) -> float | list[float] | None | Failure:
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    several = isinstance(answer, list | tuple)
    given = list(answer) if several else [] if answer is None else [answer]
    if not all(isinstance(each, numbers.Real) and not math.isinf(each) for each in given):
        expected = "a finite number, a list with a finite number a token, None, or a dict with one of these as 'reward'"
        raise Wrong(f"gave {_named(answer)}, must give {expected}")
    if any(map(math.isnan, given)):
        return Failure("gave NaN")
    return None if answer is None else [float(each) for each in given] if several else float(answer)


def _extra(key: Any, value: Any) -> float | str:
    if key in TAKEN:
        raise Wrong(f"gave a {key!r}, which is logged already, must give it another name")
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, numbers.Real | str):
        raise Wrong(f"gave {_named(value)} as {key!r}, must give a number or a string")
    return value if isinstance(value, str) else float(value)


def _finite(column: list[Any]) -> list[float]:
    return [value for value in column if isinstance(value, float) and math.isfinite(value)]


def _named(value: Any) -> str:
    return f"{_shown(value, 80)} ({type(value).__name__})"


def _shown(value: Any, width: int) -> str:
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."


# -------------------------------------------------------------------------------------------- in a worker process


def _prepare(function: str, trust: tuple[str, ...]) -> None:
    """Imports the function before the clock of the first call runs; what goes wrong is told by that call."""
    with suppress(BaseException):
        _there(function, trust)


def _answer(function: str, trust: tuple[str, ...], batched: bool, arguments: Arguments) -> Any:
    try:
        found = _there(function, trust)
        answer = found(**arguments)
        return _plain(_loop().run_until_complete(answer) if inspect.iscoroutinefunction(found) else answer, batched)
    except Wrong as wrong:
        return wrong
    except BaseException as error:
        return failure(error)


@cache
def _there(function: str, trust: tuple[str, ...]) -> Callable[..., Any]:
    return located(function, trust)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()
