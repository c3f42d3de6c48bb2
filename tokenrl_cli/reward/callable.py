"""A reward of the user's own: a function with the arguments it asks for by name."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import numbers
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenrl_cli.build import locate
from tokenrl_cli.interfaces import Texts, UserError

Call = Callable[[], Any]
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
GRACE = 1.0  # seconds that an event loop gets, past the timeout, to report its own timeouts


@dataclass(frozen=True)
class Failure:
    error: BaseException


class UserFunction:
    """What `function` (module.name) returns: a number, a list with a number a sampled token (EOS is one), or None.

    It is called once a sample with what its parameters name: hypothesis, reference (the first), references, source,
    step, tokens (ids), or any column of the dataset; `batched`, once for all, with hypotheses, references (a list a
    sample), sources, step, tokens and columns, to return a list of the above. None means "does not apply" (NaN).
    A sample that raises or runs longer than `timeout` seconds is NaN, too; `failures` counts them, the log shows the
    first. An async function runs for all samples at once. A plain one runs sample after sample in a thread of its own;
    one that hangs is left behind there, as Python cannot stop it.
    """

    def __init__(self, function: str, timeout: float, batched: bool, trust: Sequence[str]) -> None:
        if not timeout > 0 or math.isinf(timeout):
            raise UserError("reward.timeout", f"must be above 0 seconds and finite, got {timeout}")
        self.name, self.timeout, self.batched = function, timeout, batched
        try:
            self.function = locate(function, trust)
        except UserError as error:
            raise UserError(f"reward.function={function}", error.problem, error.remedy) from None
        self.parameters = _parameters(self.function, function)
        self.failures = 0
        self.first_error: BaseException | None = None
        self._run = _Loop(timeout) if inspect.iscoroutinefunction(self.function) else _InTurn(timeout)

    def __call__(self, texts: Texts) -> np.ndarray:
        """[B], or [B, T] with 0 at masked places where the function gives a number a token. Raises UserError."""
        count = len(texts.hypotheses)
        if self.batched:
            (outcome,) = self._run([self._call(_all(texts))])
            outcomes = [outcome] * count if isinstance(outcome, Failure) else self._split(outcome, count)
        else:
            outcomes = self._run([self._call(_one(texts, row)) for row in range(count)])
        self._report([each.error for each in outcomes if isinstance(each, Failure)], count)
        values = [None if isinstance(each, Failure) else self._value(each) for each in outcomes]
        return self._array(values, texts.mask)

    def _call(self, known: dict[str, Any]) -> Call:
        given = known if self.parameters is None else {name: known[name] for name in self.parameters if name in known}
        missing = [name for name, needed in (self.parameters or {}).items() if needed and name not in known]
        if missing:
            raise UserError(
                f"reward.function={self.name}",
                f"asks for {', '.join(map(repr, missing))}; there are {', '.join(known)}",
            )
        return lambda: self.function(**given)

    def _split(self, outcome: Any, count: int) -> list[Any]:
        outcome = outcome.tolist() if hasattr(outcome, "tolist") else outcome
        if not isinstance(outcome, list | tuple) or len(outcome) != count:
            raise self._wrong(outcome, f"a list with something for each of the {count} samples, as batched=true wants")
        return list(outcome)

    def _value(self, value: Any) -> float | list[float] | None:
        value = value.tolist() if hasattr(value, "tolist") else value  # numbers and arrays of numpy and torch
        several = isinstance(value, list | tuple)
        numbers_ = list(value) if several else [] if value is None else [value]
        if not all(isinstance(each, numbers.Real) and not math.isinf(each) for each in numbers_):
            raise self._wrong(value, "a finite number, a list with a finite number a token, or None")
        return None if value is None else [float(each) for each in value] if several else float(value)

    def _array(self, values: list[float | list[float] | None], mask: np.ndarray) -> np.ndarray:
        if not any(isinstance(value, list) for value in values):
            return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        result = np.zeros(mask.shape, dtype=np.float64)
        for row, value in enumerate(values):
            wanted = int(mask[row].sum())
            if isinstance(value, float):
                raise self._wrong(value, "a list, as for other samples")
            if value is not None and len(value) != wanted:
                raise self._wrong(value, f"{wanted} numbers, one for each sampled token")
            result[row, mask[row]] = math.nan if value is None else value
        return result

    def _report(self, errors: list[BaseException], count: int) -> None:
        if not errors:
            return
        self.failures += len(errors)
        self.first_error = self.first_error or errors[0]
        logging.getLogger(__name__).warning(
            "reward.function=%s failed on %d of %d samples, which do not count; the first: %s: %s",
            self.name, len(errors), count, type(errors[0]).__name__, errors[0], exc_info=errors[0],
        )  # fmt: skip

    def _wrong(self, value: Any, expected: str) -> UserError:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        return UserError(f"reward.function={self.name}", f"gave {shown} ({type(value).__name__}), must give {expected}")


def _parameters(function: Callable[..., Any], name: str) -> dict[str, bool] | None:
    """By name, whether it must be given; None: whatever there is."""
    where = f"reward.function={name}"
    if inspect.isclass(function):
        raise UserError(where, "is a class, must be a function")
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is each.POSITIONAL_ONLY for each in parameters):
        raise UserError(where, "has parameters without a name, must take all of them by name")
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return {each.name: each.default is each.empty for each in parameters if each.kind in NAMED}


def _all(texts: Texts) -> dict[str, Any]:
    return {
        **texts.columns,
        "hypotheses": texts.hypotheses,
        "references": texts.references,
        "sources": texts.sources,
        "step": texts.step,
        "tokens": [ids[real].tolist() for ids, real in zip(texts.actions, texts.mask, strict=True)],
    }


def _one(texts: Texts, row: int) -> dict[str, Any]:
    references = texts.references[row]
    return {
        **{name: values[row] for name, values in texts.columns.items()},
        "hypothesis": texts.hypotheses[row],
        "reference": references[0] if references else None,
        "references": references,
        "source": texts.sources[row],
        "step": texts.step,
        "tokens": texts.actions[row][texts.mask[row]].tolist(),
    }


class _InTurn:
    """Runs calls one after another in a daemon thread; one that hangs is left behind and the next gets a new thread."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def __call__(self, calls: list[Call]) -> list[Any]:
        outcomes: list[Any] = []
        while len(outcomes) < len(calls):
            done: queue.SimpleQueue[Any] = queue.SimpleQueue()
            abandoned = threading.Event()
            todo = calls[len(outcomes) :]
            threading.Thread(target=_work, args=(todo, done, abandoned), daemon=True).start()
            try:
                while len(outcomes) < len(calls):
                    outcomes.append(done.get(timeout=self.timeout))
            except queue.Empty:
                abandoned.set()
                outcomes.append(_late(self.timeout))
        return outcomes


def _work(calls: list[Call], done: queue.SimpleQueue[Any], abandoned: threading.Event) -> None:
    for call in calls:
        try:
            outcome = call()
        except BaseException as error:  # SystemExit, too, would end the thread and look like a timeout
            outcome = Failure(error)
        done.put(outcome)
        if abandoned.is_set():
            return


class _Loop:
    """Runs all calls at once in an event loop of its own, which lives on: clients that belong to a loop stay usable."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, calls: list[Call]) -> list[Any]:
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            threading.Thread(target=self.loop.run_forever, daemon=True).start()
        outcomes: list[Any] = [_late(self.timeout)] * len(calls)
        waiting = asyncio.run_coroutine_threadsafe(self._gather(calls, outcomes), self.loop)
        try:
            waiting.result(self.timeout + GRACE)
        except FutureTimeoutError:  # something blocks the loop itself
            waiting.cancel()
            self.loop = None
        return list(outcomes)

    async def _gather(self, calls: list[Call], outcomes: list[Any]) -> None:
        async def one(place: int, call: Callable[[], Awaitable[Any]]) -> None:
            try:
                async with asyncio.timeout(self.timeout) as limit:
                    outcomes[place] = await call()
            except BaseException as error:  # SystemExit, too, would end the loop
                outcomes[place] = _late(self.timeout) if limit.expired() else Failure(error)

        await asyncio.gather(*(one(place, call) for place, call in enumerate(calls)))


def _late(seconds: float) -> Failure:
    return Failure(TimeoutError(f"no answer within {seconds:g} s"))
