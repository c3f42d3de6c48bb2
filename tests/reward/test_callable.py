"""A user's function: what it is given, what it may give, and what happens when it fails."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.reward.said import texts
from tokenrl_cli.build import build, check
from tokenrl_cli.interfaces import Reward, UserError
from tokenrl_cli.reward.callable import UserFunction

HERE = __name__
ROWS = [("a", ["A", "B"]), ("bb", ["C"]), ("ccc", ["D"])]
SEEN: list[dict[str, Any]] = []


def reward(function: Callable[..., Any], timeout: float = 5.0, batched: bool = False) -> UserFunction:
    return UserFunction(f"{HERE}.{function.__name__}", timeout, batched, [HERE])


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    SEEN.clear()


def length(hypothesis: str) -> int:
    return len(hypothesis)


async def slow_length(hypothesis: str) -> int:
    await asyncio.sleep(0.2)
    return len(hypothesis)


def looks(hypothesis: str, reference: str, references: list[str], source: str, step: int, tokens: list[int]) -> float:
    SEEN.append(dict(locals()))
    return 0.5


def column(level: int, hypothesis: str, bonus: float = 0.25) -> float:
    return level + bonus


def everything(**known: Any) -> bool:
    SEEN.append(known)
    return True


def lengths(hypotheses: list[str], references: list[list[str]], sources: list[str], step: int, level: list[int]) -> Any:
    SEEN.append(dict(locals()))
    return np.array([len(text) for text in hypotheses])


async def alengths(hypotheses: list[str]) -> list[int | None]:
    return [len(text) if text != "bb" else None for text in hypotheses]


def per_token(tokens: list[int]) -> list[int] | None:
    return [10 * token for token in tokens] if len(tokens) != 2 else None


def picky(hypothesis: str) -> float:
    if hypothesis == "bb":
        raise KeyError("no such word")
    return 1.0


def quits(hypothesis: str) -> float:
    raise SystemExit(3)


async def aquits(hypothesis: str) -> float:
    raise SystemExit(3)


def sleepy(hypothesis: str) -> float:
    if hypothesis == "bb":
        time.sleep(3)
    return 1.0


async def asleepy(hypothesis: str) -> float:
    if hypothesis == "bb":
        await asyncio.sleep(30)
    return 1.0


def dozes(hypothesis: str) -> float:
    SEEN.append({"hypothesis": hypothesis})
    time.sleep(0.3 if hypothesis == "bb" else 0)
    return 1.0


async def in_loop(hypothesis: str) -> float:
    SEEN.append({"loop": asyncio.get_running_loop()})
    return await asleepy(hypothesis)


async def blocking(hypothesis: str) -> float:
    if hypothesis == "ccc":
        time.sleep(3)
    return 1.0


async def apicky(hypothesis: str) -> float:
    return picky(hypothesis)


def sleepy_batch(hypotheses: list[str]) -> list[float]:
    time.sleep(3)
    return []


def gives(hypothesis: str) -> Any:
    return GIVEN.get()


def gives_all(hypotheses: list[str]) -> Any:
    return GIVEN.get()


class Given:
    value: Any = None

    def get(self) -> Any:
        return self.value


GIVEN = Given()


def unnamed(hypothesis: str, /) -> float:
    return 0.0


def test_it_gets_what_its_parameters_name() -> None:
    assert reward(looks)(texts(ROWS, [1, 2, 1])).tolist() == [0.5] * 3
    assert SEEN[0] == dict(hypothesis="a", reference="A", references=["A", "B"], source="source 0", step=7, tokens=[1])
    assert SEEN[1]["tokens"] == [1, 2] and SEEN[2]["source"] == "source 2"


def test_it_gets_columns_and_keeps_its_own_defaults() -> None:
    assert reward(column)(texts(ROWS, level=[1, 2, 3])).tolist() == [1.25, 2.25, 3.25]
    assert reward(column)(texts(ROWS, level=[1, 2, 3], bonus=[0, 1, 0])).tolist() == [1, 3, 3]


def test_keywords_take_all_there_is() -> None:
    assert reward(everything)(texts(ROWS, level=[1, 2, 3])).tolist() == [1.0] * 3
    assert set(SEEN[0]) == {"level", "hypothesis", "reference", "references", "source", "step", "tokens"}


def test_a_batched_function_gets_everything_at_once() -> None:
    assert reward(lengths, batched=True)(texts(ROWS, level=[1, 2, 3])).tolist() == [1, 2, 3]
    assert len(SEEN) == 1 and SEEN[0]["level"] == [1, 2, 3] and SEEN[0]["references"] == [["A", "B"], ["C"], ["D"]]


def test_integers_become_real_numbers() -> None:
    scores = reward(length)(texts(ROWS))
    assert scores.dtype == np.float64 and scores.tolist() == [1, 2, 3]


def test_async_functions_run_together() -> None:
    function, start = reward(slow_length), time.monotonic()
    assert function(texts(ROWS * 20)).tolist() == [1, 2, 3] * 20
    assert time.monotonic() - start < 2  # one after another: 12 s
    assert function(texts(ROWS)).tolist() == [1, 2, 3]


def test_an_async_batched_function_may_leave_out_samples() -> None:
    scores = reward(alengths, batched=True)(texts(ROWS))
    assert scores[[0, 2]].tolist() == [1, 3] and math.isnan(scores[1])


def test_a_list_is_one_number_a_token_and_padding_is_zero() -> None:
    scores = reward(per_token)(texts(ROWS, [3, 2, 1]))
    assert scores.dtype == np.float64 and scores.shape == (3, 3)
    assert scores[0].tolist() == [10, 20, 30] and scores[2].tolist() == [10, 0, 0]
    assert np.isnan(scores[1, :2]).all() and scores[1, 2] == 0


@pytest.mark.parametrize(
    ("value", "score"),
    [(1, 1.0), (True, 1.0), (0.5, 0.5), (np.float32(0.5), 0.5), (np.bool_(True), 1.0), (torch.tensor(2), 2.0)],
)
def test_numbers_of_any_library_are_taken(value: Any, score: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GIVEN, "value", value)
    assert reward(gives)(texts(ROWS)).tolist() == [score] * 3


def test_none_and_nan_are_no_failures(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for value in (None, math.nan):
        monkeypatch.setattr(GIVEN, "value", value)
        assert np.isnan(reward(gives)(texts(ROWS))).all()
    assert not caplog.records


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.5", "must give a finite number"),
        ([0.5, None], "must give a finite number"),
        ({"score": 1}, "must give a finite number"),
        (math.inf, "must give a finite number"),
        ([-math.inf], "must give a finite number"),
        (1j, "must give a finite number"),
        ([0.5, 0.5], "1 numbers, one for each sampled token"),
        ("x" * 500, "x..."),
    ],
)
def test_a_wrong_value_is_named(value: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GIVEN, "value", value)
    with pytest.raises(UserError) as error:
        reward(gives)(texts(ROWS))
    assert f"reward.function={HERE}.gives" in str(error.value) and expected in str(error.value)
    assert type(value).__name__ in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("value", [0.5, [0.5], None, [0.5, [0.5], 0.5], [1, [0.5], 1]])
def test_a_wrong_batch_is_named(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GIVEN, "value", value)
    with pytest.raises(UserError, match="gives_all: gave .* must give"):
        reward(gives_all, batched=True)(texts(ROWS))


@pytest.mark.parametrize("function", [picky, apicky])
def test_a_failing_sample_does_not_count_and_is_told(
    function: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    judge = reward(function)
    for times in (1, 2):
        scores = judge(texts([*ROWS, ("bb", [])]))
        assert scores[[0, 2]].tolist() == [1, 1] and np.isnan(scores[[1, 3]]).all()
        assert judge.failures == 2 * times and len(caplog.records) == times  # one line a call, not one a sample
    assert isinstance(judge.first_error, KeyError)
    record = caplog.records[0]
    assert record.levelno == logging.WARNING and "2 of 4" in record.getMessage()
    assert "no such word" in record.getMessage() and record.exc_info


@pytest.mark.parametrize("function", [quits, aquits])
def test_leaving_the_program_is_a_failure_like_any_other(function: Callable[..., Any]) -> None:
    judge, start = reward(function), time.monotonic()
    assert np.isnan(judge(texts(ROWS))).all() and isinstance(judge.first_error, SystemExit)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("function", [sleepy, asleepy])
def test_a_sleeping_sample_runs_out_of_time_alone(function: Callable[..., Any]) -> None:
    judge, start = reward(function, timeout=0.2), time.monotonic()
    scores = judge(texts(ROWS))
    assert time.monotonic() - start < 2
    assert scores[[0, 2]].tolist() == [1, 1] and math.isnan(scores[1])
    assert judge.failures == 1 and "0.2 s" in str(judge.first_error)


def test_what_was_left_behind_does_not_go_on_with_the_next_samples() -> None:
    reward(dozes, timeout=0.1)(texts(ROWS))
    time.sleep(0.4)
    assert [seen["hypothesis"] for seen in SEEN] == ["a", "bb", "ccc"]


def test_an_async_function_keeps_its_loop_even_past_a_timeout() -> None:
    judge = reward(in_loop, timeout=0.2)
    for _ in range(2):
        judge(texts(ROWS))
    assert len({id(seen["loop"]) for seen in SEEN}) == 1 and len(SEEN) == 6


def test_an_async_function_that_blocks_its_loop_is_left_behind() -> None:
    judge, start = reward(blocking, timeout=0.2), time.monotonic()
    scores = judge(texts(ROWS))
    assert scores[:2].tolist() == [1, 1] and math.isnan(scores[2])
    assert judge(texts(ROWS[:2])).tolist() == [1, 1]  # in a loop of its own
    assert time.monotonic() - start < 2.5


def test_a_sleeping_batch_loses_all_its_samples() -> None:
    judge, start = reward(sleepy_batch, timeout=0.2, batched=True), time.monotonic()
    assert np.isnan(judge(texts(ROWS))).all() and judge.failures == 3
    assert time.monotonic() - start < 2


def test_no_thread_keeps_the_program_alive() -> None:
    reward(sleepy, timeout=0.1)(texts(ROWS))
    reward(slow_length)(texts(ROWS))
    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())


def test_an_unknown_argument_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError, match="asks for 'level'; there are hypothesis, reference"):
        reward(column)(texts(ROWS))


def test_mistakes_are_told_before_anything_is_called() -> None:
    with pytest.raises(UserError, match="reward.timeout"):
        reward(length, timeout=0)
    with pytest.raises(UserError, match="is a class"):
        UserFunction(f"{HERE}.Given", 1.0, False, [HERE])
    with pytest.raises(UserError, match="by name"):
        reward(unnamed)
    with pytest.raises(UserError, match=r"reward.function=os.system.*imports"):
        UserFunction("os.system", 1.0, False, [HERE])


def test_it_is_built_from_its_block() -> None:
    block = dict(
        _target_="tokenrl_cli.reward.callable.UserFunction", function=f"{HERE}.length", timeout=1, batched=False
    )
    check(dict(reward=block), [HERE])
    assert build(block, Reward, [HERE])(texts(ROWS)).tolist() == [1, 2, 3]
    with pytest.raises(UserError, match="reward.function: is missing"):
        check(dict(reward=block | dict(function="???")), [])
