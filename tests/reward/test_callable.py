"""A user's function: what it is given, what it may give, and what happens when it fails."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.reward.said import texts
from tokenrl_cli.config.build import build, check
from tokenrl_cli.episodes.scoring import name_of
from tokenrl_cli.interfaces import Reward, UserError
from tokenrl_cli.reward.callable import UserFunction
from tokenrl_cli.reward.calls import of_all

HERE = __name__
ROWS = [("a", ["A", "B"]), ("bb", ["C"]), ("ccc", ["D"])]
SEEN: list[dict[str, Any]] = []


def reward(function: Callable[..., Any], timeout: float = 60.0, batched: bool = False) -> UserFunction:
    return UserFunction(f"{HERE}.{function.__name__}", timeout, batched, 0, "mask", 1.0, [HERE], "reward")


def of(function: str, *trust: str) -> UserFunction:
    return UserFunction(function, 5.0, False, 0, "mask", 1.0, trust, "reward")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    SEEN.clear()


def length(hypothesis: str) -> int:
    return len(hypothesis)


def looks(
    hypothesis: str, reference: str, references: list[str], source: str, step: int, tokens: list[int], ended: bool
) -> float:
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


AWAKE = threading.Event()
HANGS = 300.0  # seconds: whoever waited for it would be noticed


def sleepy(hypothesis: str) -> float:
    if hypothesis == "bb":
        AWAKE.wait(HANGS)
    return 1.0


async def asleepy(hypothesis: str) -> float:
    if hypothesis == "bb":
        await asyncio.sleep(HANGS)
    return 1.0


def dozes(hypothesis: str) -> float:
    SEEN.append({"hypothesis": hypothesis})
    if hypothesis == "bb":
        AWAKE.wait(HANGS)
    return 1.0


async def in_loop(hypothesis: str) -> float:
    SEEN.append({"loop": asyncio.get_running_loop()})
    return await asleepy(hypothesis)


async def blocking(hypothesis: str) -> float:
    if hypothesis == "ccc":
        AWAKE.wait(HANGS)
    return 1.0


def explains(hypothesis: str) -> dict[str, Any]:
    said = {"a": {"why": "short"}, "bb": {"half": 0.5}, "ccc": {"why": "long"}}[hypothesis]
    return {"reward": len(hypothesis) / 2, "length": len(hypothesis), **said}


def gives(hypothesis: str) -> Any:
    return GIVEN.get()


def gives_all(hypotheses: list[str]) -> Any:
    return GIVEN.get()


class Unshown:
    def __repr__(self) -> str:
        raise ValueError("no")


class Given:
    value: Any = None

    def get(self) -> Any:
        return self.value


GIVEN = Given()


def test_it_gets_what_its_parameters_name() -> None:
    assert reward(looks)(texts(ROWS, [1, 2, 1])).scores.tolist() == [0.5] * 3
    assert SEEN[0] == {
        "hypothesis": "a",
        "reference": "A",
        "references": ["A", "B"],
        "source": "source 0",
        "step": 7,
        "tokens": [1],
        "ended": True,
    }
    assert SEEN[1]["tokens"] == [1, 2]
    assert SEEN[2]["source"] == "source 2"


def test_it_gets_columns_and_keeps_its_own_defaults() -> None:
    assert reward(column)(texts(ROWS, level=[1, 2, 3])).scores.tolist() == [1.25, 2.25, 3.25]
    assert reward(column)(texts(ROWS, level=[1, 2, 3], bonus=[0, 1, 0])).scores.tolist() == [1, 3, 3]


def test_keywords_take_all_there_is() -> None:
    assert reward(everything)(texts(ROWS, level=[1, 2, 3])).scores.tolist() == [1.0] * 3
    assert set(SEEN[0]) == {"level", "hypothesis", "reference", "references", "source", "step", "tokens", "ended"}


def test_a_batched_function_gets_everything_at_once() -> None:
    assert reward(lengths, batched=True)(texts(ROWS, level=[1, 2, 3])).scores.tolist() == [1, 2, 3]
    assert len(SEEN) == 1
    assert SEEN[0]["level"] == [1, 2, 3]
    assert SEEN[0]["references"] == [["A", "B"], ["C"], ["D"]]


def test_integers_become_real_numbers() -> None:
    scores = reward(length)(texts(ROWS)).scores
    assert scores.dtype == np.float64
    assert scores.tolist() == [1, 2, 3]


def test_an_async_batched_function_may_leave_out_samples() -> None:
    scores = reward(alengths, batched=True)(texts(ROWS)).scores
    assert scores[[0, 2]].tolist() == [1, 3]
    assert math.isnan(scores[1])


def test_a_list_is_one_number_a_token_and_padding_is_zero() -> None:
    scores = reward(per_token)(texts(ROWS, [3, 2, 1])).scores
    assert scores.dtype == np.float64
    assert scores.shape == (3, 3)
    assert scores[0].tolist() == [10, 20, 30]
    assert scores[2].tolist() == [10, 0, 0]
    assert np.isnan(scores[1, :2]).all()
    assert scores[1, 2] == 0


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (1, 1.0), (True, 1.0), (0.5, 0.5), (np.float32(0.5), 0.5), (np.bool_(True), 1.0), (torch.tensor(2), 2.0),
        (Decimal("0.5"), 0.5), (Fraction(1, 2), 0.5), (np.array(0.5), 0.5), (np.longdouble(0.5), 0.5),
        (torch.tensor(0.5, requires_grad=True), 0.5), (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        ([torch.tensor(0.5)], 0.5),
    ],
)  # fmt: skip
def test_numbers_of_any_library_are_taken(value: Any, score: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GIVEN, "value", value)
    assert reward(gives)(texts(ROWS)).scores.ravel().tolist() == [score] * 3


def test_none_does_not_apply_and_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    scored = reward(gives)(texts(ROWS))
    assert np.isnan(scored.scores).all()
    assert scored.metrics == {"failed": 0}
    assert not caplog.records


@pytest.mark.parametrize("value", [math.nan, np.float32("nan"), [0.5, math.nan], {"reward": math.nan, "level": 3}])
def test_nan_is_a_failure(value: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(GIVEN, "value", value)
    scored = reward(gives)(texts(ROWS, [2, 2, 2]))
    assert np.isnan(scored.scores).all()
    assert scored.metrics == {"failed": 3}
    assert scored.columns == {}
    assert "failed on 'a': gave NaN; 3 of 3" in caplog.text


def test_a_dictionary_says_more() -> None:
    scored = reward(explains)(texts(ROWS))
    assert scored.scores.tolist() == [0.5, 1.0, 1.5]
    assert scored.columns == {"length": [1, 2, 3], "why": ["short", None, "long"], "half": [None, 0.5, None]}
    assert scored.metrics == {"failed": 0, "length": 2, "half": 0.5}  # the mean of those that have one
    assert all(type(value) is float for value in scored.metrics.values())


@pytest.mark.parametrize("score", [[1, 0.5], None, 2])
def test_a_dictionary_holds_whatever_a_reward_may_be(score: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GIVEN, "value", score)
    plain = reward(gives)(texts(ROWS, [2, 2, 2]))
    monkeypatch.setattr(GIVEN, "value", {"reward": score, "level": torch.tensor(3)})
    scored = reward(gives)(texts(ROWS, [2, 2, 2]))
    np.testing.assert_array_equal(scored.scores, plain.scores)
    assert scored.columns == {"level": [3, 3, 3]}
    assert scored.metrics == {"failed": 0, "level": 3}
    monkeypatch.setattr(GIVEN, "value", [{"reward": score, "level": 1}, None, {"reward": score}])
    assert reward(gives_all, batched=True)(texts(ROWS, [2, 2, 2])).columns == {"level": [1, None, None]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.5", "must give a finite number"),
        ([0.5, None], "must give a finite number"),
        ({"score": 1}, "must have the key 'reward'"),
        ({"reward": "0.5"}, "must give a finite number"),
        ({"reward": {"reward": 0.5}}, "must give a finite number"),
        ({"reward": 0.5, "level": [1]}, "as 'level', must give a finite number or a string"),
        ({"reward": 0.5, "mean": 1}, "'mean', which is logged already"),
        (math.inf, "must give a finite number"),
        ([-math.inf], "must give a finite number"),
        (1j, "must give a finite number"),
        (10**400, "no float is so large"),
        (10**30, "(int), which no policy can be trained on: at most 1e+18"),
        ([-1e19], "which no policy can be trained on: at most 1e+18"),
        ({"reward": 1e19}, "which no policy can be trained on: at most 1e+18"),
        pytest.param(10**5000, "cannot be shown", id="more digits than Python prints"),
        (Decimal("Infinity"), "must give a finite number"),
        (Decimal("sNaN"), "must give a finite number"),
        (Fraction(10**400), "must give a finite number"),
        (torch.empty(2, device="meta"), "must give a finite number"),
        (torch.tensor(1j), "must give a finite number"),
        (np.datetime64("2026-01-01"), "must give a finite number"),
        ((each for each in [1.0]), "it yields, and must return"),
        (Unshown(), "(Unshown), must give a finite number"),
        ([[0.5]], "must give a finite number"),
        ({"reward": 1, 2: 3}, "the key 2 (int), must be a string"),
        ({"reward": 1, "a\n": 3}, "must be a string that can be printed"),
        ({"reward": 1, "level": 10**400}, "as 'level', must give a finite number"),
        ({"reward": 1, "level": math.inf}, "as 'level', must give a finite number"),
        ([0.5, 0.5], "gave 2 numbers, must give one for each of the 1 sampled tokens, EOS included"),
        ("x" * 500, "x..."),
    ],
)
def test_a_wrong_value_is_named(value: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GIVEN, "value", value)
    with pytest.raises(UserError) as error:
        reward(gives)(texts(ROWS))
    assert f"reward.function={HERE}.gives" in str(error.value)
    assert expected in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", [0.5, [0.5], None, [0.5, [0.5], 0.5], [1, [0.5], 1]])
def test_a_wrong_batch_is_named(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GIVEN, "value", value)
    with pytest.raises(UserError, match="gives_all: gave "):
        reward(gives_all, batched=True)(texts(ROWS))


@pytest.fixture
def asleep() -> Iterator[None]:
    """What waits for AWAKE hangs until the test is over."""
    AWAKE.clear()
    yield
    AWAKE.set()


def test_what_was_left_behind_does_not_go_on_with_the_next_samples(asleep: None) -> None:
    before = set(threading.enumerate())
    reward(dozes, timeout=0.5)(texts(ROWS))
    left = set(threading.enumerate()) - before
    AWAKE.set()
    for thread in left:
        thread.join(HANGS)
    assert [seen["hypothesis"] for seen in SEEN] == ["a", "bb", "ccc"]


def test_an_async_function_keeps_its_loop_even_past_a_timeout() -> None:
    judge = reward(in_loop, timeout=0.5)
    for _ in range(2):
        judge(texts(ROWS))
    assert len({id(seen["loop"]) for seen in SEEN}) == 1
    assert len(SEEN) == 6


def test_an_async_function_that_blocks_its_loop_is_left_behind(asleep: None) -> None:
    judge = reward(blocking, timeout=0.5)
    scores = judge(texts(ROWS)).scores
    assert scores[:2].tolist() == [1, 1]
    assert math.isnan(scores[2])
    assert judge(texts(ROWS[:2])).scores.tolist() == [1, 1]  # in a loop of its own
    assert not AWAKE.is_set()  # the first one still hangs


def test_no_thread_keeps_the_program_alive(asleep: None) -> None:
    reward(sleepy, timeout=0.1)(texts(ROWS))
    reward(asleepy, timeout=0.1)(texts(ROWS))
    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())


def test_an_unknown_argument_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError, match="needs 'level', which it will never get; there are hypothesis, reference"):
        reward(column)(texts(ROWS))


def test_mistakes_are_told_before_anything_is_called() -> None:
    with pytest.raises(UserError, match="is a class"):
        of(f"{HERE}.Given", HERE)
    with pytest.raises(UserError, match=r"reward.function=os.system.*imports"):
        of("os.system")


@pytest.mark.parametrize(
    ("key", "value"),
    [("timeout", 0.0), ("timeout", math.inf), ("timeout", math.nan), ("workers", -1), ("on_error", "skip"),
     ("max_failed_fraction", 0.0), ("max_failed_fraction", 1.1)],
)  # fmt: skip
def test_ranges_are_checked(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"reward.{key}.*: must be "):
        check({"reward": BLOCK | {key: value}}, [HERE])


# ------------------------------------------------------------------------------------------------------- from a file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "of_the_user_too.py").write_text("OFFSET = 10\n")
    source = """
from __future__ import annotations
from dataclasses import dataclass
from of_the_user_too import OFFSET
from os.path import join as borrowed

@dataclass
class Result:
    value: float

def length(hypothesis):
    return Result(len(hypothesis) + OFFSET).value
"""
    (tmp_path / "deep" / "random.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize("trust", ["deep/random.py", "./deep/random.py", "deep/../deep/random.py"])
def test_a_file_that_imports_names_is_taken(folder: Path, trust: str) -> None:
    before = sys.modules.get("random")
    assert of("deep/random.py:length", trust)(texts(ROWS)).scores.tolist() == [11, 12, 13]
    assert of(f"{folder}/deep/random.py:length", trust)(texts(ROWS)).scores.tolist() == [11, 12, 13]
    assert sys.modules.get("random") is before  # a file hides no library


def test_a_file_is_run_once(folder: Path) -> None:
    once = "import os\nos.mkdir('ran')\ndef length(hypothesis): return 1\n"
    (folder / "deep" / "counts.py").write_text(once)
    assert of("deep/counts.py:length", "deep/counts.py")
    assert of("./deep/counts.py:length", "deep/counts.py")


@pytest.mark.parametrize("trust", [[], ["deep"], ["deep.random"], ["random.py"], ["deep/other.py"], ["deep/random"]])
def test_a_file_that_imports_does_not_name_is_not_run(folder: Path, trust: list[str]) -> None:
    (folder / "deep" / "random.py").write_text("open('it ran', 'w')\ndef length(hypothesis): return 1\n")
    with pytest.raises(UserError, match=r"reward.function=deep/random.py:length: .*not in imports\n.*imports=\[deep"):
        of("deep/random.py:length", *trust)
    assert not (folder / "it ran").exists()


def test_a_checkpoints_config_runs_no_file(folder: Path) -> None:
    with pytest.raises(UserError, match="not in imports"):
        build(BLOCK | {"function": f"{folder}/deep/random.py:length"}, Reward, [])


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("deep/absent.py:length", "there is no file"),
        ("deep/random.py:lenght", r"random.py has no 'lenght' \(did you mean 'length'\?\)"),
        ("deep/random.py:Result", "is a class, must be something that gives a number"),
        ("deep/random.py:OFFSET", "is int, which cannot be called"),
        ("deep/random.py:borrowed", "is defined in posixpath, which is not in imports"),
        ("deep/random.py:", "'' is private, or no name"),
        ("deep/wrong.py:length", r"wrong.py failed: ZeroDivisionError: division by zero \(deep/wrong.py, line 2\)"),
        ("deep/syntax.py:length", r"syntax.py failed: SyntaxError: '\(' was never closed \(deep/syntax.py, line 1\)"),
        (":length", "not in imports"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(folder: Path, function: str, told: str) -> None:
    (folder / "deep" / "wrong.py").write_text("def length(hypothesis): return 1\n1 / 0\n")
    (folder / "deep" / "syntax.py").write_text("def length(\n")
    with pytest.raises(UserError, match=f"reward.function={function}: .*{told}"):
        of(function, function.partition(":")[0])


# ------------------------------------------------------------------------------------------- whatever can be called

WAYS = """
import functools
import math
import os
from os import system
import numpy as np
import torch
from tokenrl_cli.reward.length import *
from tokenrl_cli.config.types import describe

def share(hypothesis, letter):
    return float(hypothesis.count(letter))

partial = functools.partial(share, letter="b")
named = lambda hypothesis: 2.0

class Judge:
    def __call__(self, hypothesis):
        return 3.0
    def method(self, hypothesis):
        return 4.0
    @staticmethod
    def static(hypothesis):
        return 5.0
    @classmethod
    def of_class(cls, hypothesis):
        return 6.0

judge = Judge()
bound = Judge().method

@functools.lru_cache
def cached(hypothesis):
    return 7.0

async def later(hypothesis):
    return 8.0

later_partial = functools.partial(later)
disguised = lambda hypothesis: later(hypothesis)

class Later:
    async def __call__(self, hypothesis):
        return 9.0

later_judge = Later()
length = len
ufunc = np.frompyfunc(len, 1, 1)
by_place = lambda hypothesis, /, reference=None: 10.0

def decorated(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner

@decorated
def wrapped(hypothesis):
    return 11.0

def trl(prompts, completions, completion_ids=None, trainer_state=None, log_extra=None, **kwargs):
    assert [type(each) for each in (prompts, completions, completion_ids, kwargs["level"])] == [list] * 4
    assert log_extra is None
    return [None if text == "bb" else len(text) + trainer_state.global_step for text in completions]

def messages(completions, **kwargs):
    return [completion[0]["content"] for completion in completions]

sqrt, run, count = math.sqrt, os.system, "b".count
unread = functools.partial("b".count)
ours = Length()

def typo(hypothesis, refrence, **others):
    return 1.0

def of_many(hypotheses):
    return 1.0

def logs(completions, log_metric):
    return 1.0

def ids_alone(completion_ids, **others):
    return [float(len(ids)) for ids in completion_ids]

def nothing(*args):
    return len(args[0])

class Network(torch.nn.Module):
    def forward(self, hypothesis):
        return torch.tensor(12.0)

network = Network()

class Odd:
    @property
    def score(self):
        return {}["weights"]

odd = Odd()

from pathlib import Path
from sys import argv

class Mine(type(Path())):
    pass

precious, mine, log = Path("precious"), Mine("precious"), open("log", "a")
log.close()
"""


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "ways.py").write_text(WAYS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return "ways.py"


def test_anything_that_can_be_called_is_a_reward(ways: str) -> None:
    found = {"partial": [0, 2, 0], "length": [1, 2, 3], "ufunc": [1, 2, 3]} | {
        name: [value] * 3
        for name, value in [
            ("named", 2), ("judge", 3), ("judge.method", 4), ("bound", 4), ("Judge.static", 5), ("Judge.of_class", 6),
            ("cached", 7), ("later", 8), ("later_partial", 8), ("disguised", 8), ("later_judge", 9), ("by_place", 10),
            ("wrapped", 11), ("network", 12),
        ]
    }  # fmt: skip
    for name, values in found.items():
        for function in (f"ways.py:{name}", f"ways.{name}"):
            assert of(function, ways)(texts(ROWS)).scores.tolist() == values, function


def test_a_reward_written_for_trl_works_as_it_is(ways: str, caplog: pytest.LogCaptureFixture) -> None:
    scores = of("ways.py:trl", ways)(texts(ROWS, level=[1, 2, 3])).scores
    assert scores[[0, 2]].tolist() == [8, 10]
    assert math.isnan(scores[1])
    assert of("ways.py:ids_alone", ways)(texts(ROWS, [3, 2, 1])).scores.tolist() == [3, 2, 1]
    of("ways.py:messages", ways)(texts(ROWS))
    assert "are texts here, never lists of messages" in caplog.text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ways.system", "is defined in posix, which is not in imports"),
        ("ways.run", "is defined in posix, which is not in imports"),
        ("ways.sqrt", "is defined in math, which is not in imports"),
        ("ways.os.system", "leads into the module os"),
        ("ways.argv.append", "is a method that builtins defines, which is not in imports"),
        ("ways.log.truncate", "is a method that _io defines, which is not in imports"),
        ("ways.precious.unlink", "is a method that pathlib defines, which is not in imports"),
        ("ways.mine.unlink", "is a method that pathlib defines, which is not in imports"),
        ("ways.Mine.cwd", "is a method that pathlib defines, which is not in imports"),
        ("ways.describe", "comes from tokenrl_cli, must be your own"),
        ("ways.ours", "comes from tokenrl_cli, must be your own"),
        ("ways.Judge.method", "needs 'self', .* it is a method of a class"),
        ("ways.count", "is a method that builtins defines, which is not in imports"),
        ("ways.unread", "its parameters cannot be read"),
        ("ways.share", "needs 'letter', which it will never get; there are hypothesis, "),
        ("ways.typo", r"needs 'refrence', which it will never get \(did you mean 'reference'\?\)"),
        ("ways.of_many", "needs 'hypotheses', .* with reward.batched=true"),
        ("ways.logs", "needs 'log_metric', .* TRL's log_metric is not here"),
        ("ways.nothing", "takes no name, only \\*args"),
        ("ways.odd.score", r"'score' cannot be read: KeyError: 'weights' \(ways.py, line \d+\)"),
        ("ways.judge.__call__", "'__call__' is private"),
        ("tokenrl_cli.config.types._read", "is of tokenrl_cli, must be of a module of your own"),
        ("os.system", "os is not in imports"),
        ("way.length", "way is not in imports"),
        ("length", "length is not in imports"),
    ],
)
def test_what_is_not_the_users_or_could_never_be_called_is_refused_at_once(ways: str, name: str, told: str) -> None:
    with pytest.raises(UserError, match=f"reward.function={name}: .*{told}"):
        of(name, ways, "tokenrl_cli").check_columns(["level"])


# ------------------------------------------------------------------------------------ what it does to this process


def leaves(hypothesis: str) -> float:
    os.chdir("/")
    return float(Path("here").exists())


def switches(hypothesis: str) -> float:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    np.seterr(all="raise")
    warnings.simplefilter("error")
    sys.setrecursionlimit(5000)
    os.umask(0o777)
    sys.stdout.close()
    sys.stdout = sys.stderr = None  # type: ignore[assignment]
    return 1.0


def ends(hypothesis: str) -> float:
    raise {"a": SystemExit(3), "bb": KeyboardInterrupt(), "ccc": GeneratorExit()}[hypothesis]


def ends_at_once(hypothesis: str) -> float:
    os._exit(3)


def surrogates(hypothesis: str) -> dict[str, Any]:
    if hypothesis == "bb":
        raise ValueError(hypothesis + "\ud800")
    return {"reward": 1.0, "text": "\ud800"}


def state() -> list[Any]:
    switched = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled()
    numerics = np.geterr(), warnings.filters[:], torch.get_rng_state().tolist()
    mask = os.umask(0o22)
    os.umask(mask)
    process = os.getcwd(), mask, sys.getrecursionlimit(), os._exit, signal.getsignal(signal.SIGINT)
    return [*process, sys.stdout, sys.stderr, *switched, *numerics]


@pytest.mark.parametrize("function", [leaves, switches, ends, ends_at_once])
def test_what_a_function_does_to_this_process_is_put_back(
    function: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state()
    reward(function)(texts(ROWS))
    assert state() == before
    print("stdout is still open")


def test_the_end_of_the_program_is_a_failure_of_its_sample_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert reward(ends)(texts(ROWS)).metrics == {"failed": 3}
    assert "SystemExit: 3" in caplog.text
    assert reward(ends_at_once)(texts(ROWS)).metrics == {"failed": 3}
    assert "os._exit(3)" in caplog.text


def test_lone_surrogates_can_be_written(caplog: pytest.LogCaptureFixture) -> None:
    scored = reward(surrogates)(texts(ROWS))
    assert scored.columns["text"][0] == "\\ud800"
    assert caplog.text.encode()
    assert reward(length)(texts([("\ud800", ["\ud800"])])).scores.tolist() == [1]


# ---------------------------------------------------------------------------------------------------------- the block

BLOCK = {
    "_target_": "tokenrl_cli.reward.callable.UserFunction", "function": f"{HERE}.length", "timeout": 1,
    "batched": False, "workers": 0, "on_error": "mask", "max_failed_fraction": 0.5,
}  # fmt: skip


def test_it_is_built_from_its_block() -> None:
    check({"reward": BLOCK}, [HERE])
    assert build(BLOCK, Reward, [HERE])(texts(ROWS)).scores.tolist() == [1, 2, 3]
    with pytest.raises(UserError, match=r"reward.function: is missing"):
        check({"reward": BLOCK | {"function": "???"}}, [])


def test_its_numbers_are_logged_as_callable() -> None:
    assert name_of(reward(length)) == "callable"


def test_a_column_takes_no_name_of_trls() -> None:
    known = of_all(texts([("said", ["meant"])], completions=["a column's"]))
    assert known["completions"] == ["said"]
