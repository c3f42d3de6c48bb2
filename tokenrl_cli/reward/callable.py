"""A reward of the user's own: anything that can be called, with the arguments that its parameters name."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from functools import cache, partial
from typing import Annotated, Any, Literal

import numpy as np

from tokenrl_cli.config.ranges import Gt, Le, Positive, SizeOrZero, Text
from tokenrl_cli.interfaces import Scored, Texts, UserError, placed
from tokenrl_cli.reward.calls import Parameters, answer, call, is_async, located, of_all, of_one, parameters_of, shares
from tokenrl_cli.reward.workers import Arguments, Failure, InTurn, Processes, Together, failure
from tokenrl_cli.usercode.isolation import process_restored, same_numerics
from tokenrl_cli.usercode.values import LARGEST, number, plain, shown, shown_with_type, writable

TAKEN = ("mean", "std", "failed")  # what every reward, or this one, logs itself


class UserFunction:
    """What `function` (module.name, or file.py:name) returns: a number, or else for every sample a list with a number a
    sampled token, EOS too; None, where it does not apply; or {"reward": one of these, ...}, whose other entries,
    numbers or strings, become columns beside the samples, the numbers also metrics (their mean). It may be anything
    that can be called: a function, a partial, an object with `__call__`, a method of one; async or not.

    It is called once a sample with what its parameters name: hypothesis, reference (the first), references, source,
    tokens (ids), ended (EOS was chosen), step, or any column of the dataset; `batched`, with many samples at once and
    everything but step a list (hypotheses, references (a list a sample), sources ...), to return a list of the above.
    One that names any of `prompts`, `completions` (plain texts, no lists of messages), `completion_ids` and
    `trainer_state` (global_step alone), but neither `hypothesis` nor `hypotheses`, is called as TRL calls its rewards:
    batched, with these, the names above and the columns.

    A sample that raises, runs longer than `timeout` seconds or gives NaN is invalid: its score is NaN, as for None, but
    it is counted (`failed`) and shown, or stops the run (`on_error`, `max_failed_fraction`). A `batched` call that
    raises or is late makes all its samples invalid. Any other answer, infinity included, is a mistake and always stops
    the run.

    With `workers` = 0 an async function runs for all samples at once, a plain one for one after another, in a thread;
    one that hangs is left behind there. In worker processes it is killed and replaced. What it changes of this process
    (the directory, standard streams, seeds and switches of numpy and torch) is put back.

    Constructing it imports the function's module, which must be among `trust` (see `located`). Raises UserError where
    the function is not accepted, or its parameters cannot be read.
    """

    measures = ("function",)

    def __init__(
        self,
        function: Text,
        timeout: Positive,
        batched: bool,
        workers: SizeOrZero,
        on_error: Literal["mask", "raise"],
        max_failed_fraction: Annotated[float, Gt(0), Le(1)],
        trust: Sequence[str],
        here: str,
    ) -> None:
        self.here, self.where = here, f"{here}.function={function}"
        self.workers, self.on_error = workers, on_error
        self.max_failed_fraction = max_failed_fraction
        found = located(function, trust, self.where)
        self.asked: Parameters = parameters_of(found, batched, self.where)
        self._shown: set[str] = set()
        self._run: Callable[[list[Arguments]], list[Any]]
        if workers:
            known = function, tuple(trust), self.where
            facts = self.asked.places, self.asked.batched
            self._run = Processes(partial(_answer, *known, *facts), _prepare, known, timeout, workers)
        elif is_async(found):
            self._run = Together(partial(call, found, self.asked.places), timeout)
        else:
            self._run = InTurn(partial(answer, found, self.asked.places, asyncio.run), timeout)

    def check_columns(self, columns: Collection[str]) -> None:
        """Raises UserError where a parameter without a default is neither the name of an argument that tokenrl has for
        such a function (hypothesis, reference, source, step ...) nor among `columns`, the names of the dataset's
        columns. Does not call the function."""
        if lacking := self.asked.lacks(columns):
            raise UserError(self.where, placed(lacking, self.here))

    @property
    def needs_references(self) -> bool:
        """Whether it has a parameter `reference` or `references` without a default."""
        return bool({"reference", "references"} & {*self.asked.needed})

    def __call__(self, texts: Texts) -> Scored:
        """Returns a Scored: scores [B], or [B, T] with 0 at masked places where the function gives a number a token,
        NaN where it gives None or fails; as metrics "failed", the number of texts that failed, and by name the mean of
        each of its other entries that are numbers; as columns all its other entries by name, None for a text without.

        Raises UserError where a column that it needs is missing, an answer is of a wrong type or too large, and where
        samples fail: any with `on_error=raise`, else more than `max_failed_fraction`; fewer are logged, each error
        once.
        """
        self.check_columns(texts.columns)
        with process_restored(), same_numerics():
            answers = self._batches(texts) if self.asked.batched else self._samples(texts)
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
        """Returns a sentence on a function that gives no number at all, if every one of `scores` [N] is NaN (or there
        are none); else an empty string. `texts` are not read."""
        if not np.isnan(scores).all():
            return ""
        return f"{self.where} gave None, or failed, each time: a function that does not `return` its number gives None"

    def _samples(self, texts: Texts) -> list[Any]:
        calls = [self.asked.of(of_one(texts, row)) for row in range(len(texts.hypotheses))]
        return [self._right(each, False) for each in self._run(calls)]

    def _batches(self, texts: Texts) -> list[Any]:
        """One call, or one for each of the workers."""
        count = len(texts.hypotheses)
        parts = shares(self.asked.of(of_all(texts)), count, max(1, min(self.workers, count)))
        answers: list[Any] = []
        for given, (size, _) in zip(self._run([part for _, part in parts]), parts, strict=True):
            several = self._right(given, True)
            several = [several] * size if isinstance(several, Failure) else several
            if len(several) != size:
                raise UserError(self.where, f"gave {len(several)} answers for {size} samples")
            answers += several
        return answers

    def _right(self, given: Any, batched: bool) -> Any:
        try:
            return _plain(given, batched)
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
        told = f"failed on {shown(texts.hypotheses[row], 200)}: {_brief(first.error)}{self._why(first.error)}"
        count = len(texts.hypotheses)
        if self.on_error == "raise":
            raise UserError(self.where, told, f"{self.here}.on_error=mask leaves such samples out")
        if len(failed) > self.max_failed_fraction * count:
            share = f"of {count} samples {len(failed)} failed, more than {self.here}.max_failed_fraction"
            raise UserError(self.where, f"{share}={self.max_failed_fraction:g}; the first {told}")
        if first.error not in self._shown:
            self._shown.add(first.error)
            log = logging.getLogger(__name__)
            log.warning("%s %s; %d of %d samples do not count\n%s", self.where, told, len(failed), count, first.trace)

    def _why(self, error: str) -> str:
        """What may be behind a failure of every sample."""
        if self.asked.trl and error.startswith(("TypeError", "AttributeError")):
            return " (prompts and completions are texts here, never lists of messages)"
        if self.asked.everything and "unexpected keyword argument" in error:
            return " (it takes any name: a decorator without functools.wraps?)"
        return ""


def _brief(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."


# ------------------------------------------------------------------------------------------------- what it may give


class Wrong(Exception):
    """An answer of a wrong type: a mistake in the function, which stops the run, where a Failure is of one sample."""


def _plain(given: Any, batched: bool) -> Any:
    """A float, list of floats, None, dict or Failure (NaN is one); a list of them where batched. Raises Wrong."""
    if isinstance(given, Failure):
        return given
    if isinstance(given, Wrong):  # from another process, whose pool keeps it: raised, it would keep this frame, too
        raise Wrong(*given.args)
    if batched:
        several = plain(given)
        if not isinstance(several, list | tuple):
            wanted = "must give a list with an answer for each sample, as it is called with all of them"
            raise Wrong(f"gave {shown_with_type(given)}, {wanted}")
        return [_plain(each, False) for each in several]
    if not isinstance(given, dict):
        return _score(given)
    if "reward" not in given:
        raise Wrong(f"gave {shown_with_type(given)}, must have the key 'reward'")
    score = _score(given["reward"])
    extra = {_key(key): _extra(key, value) for key, value in given.items() if key != "reward"}
    return score if isinstance(score, Failure) else {"reward": score} | extra


def _score(given: Any) -> float | list[float] | Failure | None:
    value = plain(given)
    if value is None:
        return None
    several = isinstance(value, list | tuple)
    found = [number(each) for each in value] if several else [number(value)]
    scores = [each for each in found if each is not None]
    if len(scores) < len(found):
        expected = "a finite number, a list with a finite number a token, None, or a dict with one of these as 'reward'"
        raise Wrong(f"gave {shown_with_type(given)}, must give {expected}{_hint(given, value)}")
    if any(abs(score) > LARGEST for score in scores):
        raise Wrong(f"gave {shown_with_type(given)}, which no policy can be trained on: at most {LARGEST:g}")
    if any(map(math.isnan, scores)):
        return Failure("gave NaN")
    return scores if several else scores[0]


def _hint(given: Any, value: Any) -> str:
    if isinstance(given, Iterator | AsyncIterator):
        return ": it yields, and must return"
    if isinstance(value, int):
        return ": no float is so large"
    return ""


def _key(key: Any) -> str:
    if not isinstance(key, str) or not key.strip() or not key.isprintable():
        raise Wrong(f"gave the key {shown_with_type(key)}, must be a string that can be printed")
    if key in TAKEN:
        raise Wrong(f"gave a {key!r}, which is logged already, must give it another name")
    return key


def _extra(key: str, given: Any) -> float | str:
    value = plain(given)
    if isinstance(value, str):
        return writable(value)
    found = number(value)
    if found is None:
        raise Wrong(f"gave {shown_with_type(given)} as {key!r}, must give a finite number or a string")
    return found


def _finite(column: list[Any]) -> list[float]:
    return [value for value in column if isinstance(value, float) and math.isfinite(value)]


# -------------------------------------------------------------------------------------------- in a worker process


def _prepare(function: str, trust: tuple[str, ...], where: str) -> None:
    """Imports the function before the time of the first call is counted. An error is not raised here: that call returns
    it."""
    _there(function, trust, where)


def _answer(
    function: str, trust: tuple[str, ...], where: str, places: tuple[str, ...], batched: bool, arguments: Arguments
) -> Any:
    try:
        found = _there(function, trust, where)
        if isinstance(found, Failure):
            return found
        return _plain(answer(found, places, _loop().run_until_complete, arguments), batched)
    except Wrong as wrong:
        return wrong
    except BaseException as error:
        return failure(error)


@cache
def _there(function: str, trust: tuple[str, ...], where: str) -> Callable[..., Any] | Failure:
    try:
        return located(function, trust, where)
    except BaseException as error:
        return failure(error)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()
