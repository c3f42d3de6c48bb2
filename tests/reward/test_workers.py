"""A user's function that hangs, raises, dies or says nonsense: in this process and in others, nothing else is lost."""

from __future__ import annotations

import gc
import logging
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reward.said import texts
from tokenrl_cli.interfaces import Scored, Texts, UserError
from tokenrl_cli.reward import workers as workers_module
from tokenrl_cli.reward.callable import UserFunction
from tokenrl_cli.reward.workers import Failure, InTurn, Processes, Together

SOURCE = '''
import asyncio, os, pathlib, signal, time

def fate(hypothesis):
    """What happens to a sample is what it says."""
    if hypothesis == "sleep":
        time.sleep(900)
    if hypothesis == "raise":
        raise Odd("no such", "word")
    if hypothesis == "quit":
        raise SystemExit(3)
    if hypothesis == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if hypothesis.startswith("die"):
        os._exit(int(hypothesis.split()[1]))
    return {"nan": float("nan"), "none": None, "string": "0.5", "list": [1, 2, 3]}.get(hypothesis, len(hypothesis))

class Odd(Exception):
    def __init__(self, one, other):  # does not survive pickle
        super().__init__(f"{one} {other}")

def each(hypothesis):
    return fate(hypothesis)

async def aeach(hypothesis):
    if hypothesis == "sleep":
        await asyncio.sleep(900)
    return fate(hypothesis)

def every(hypotheses):
    return [fate(hypothesis) for hypothesis in hypotheses]

async def aevery(hypotheses):
    return [await aeach(hypothesis) for hypothesis in hypotheses]

MET = 0

def meets(hypothesis):
    """Answers when two have come, or when it is told to wait for nobody."""
    with open("log", "a") as log:
        log.write(f"+{hypothesis} ")
    open(f"here-{hypothesis}", "w").close()
    while hypothesis.startswith("w") and len([name for name in os.listdir() if name.startswith("here-w")]) < 2:
        time.sleep(0.01)
    with open("log", "a") as log:
        log.write(f"-{hypothesis} ")
    return {"reward": 1.0, "process": os.getpid(), "folder": os.getcwd()}

async def ameets(hypothesis):
    global MET
    MET += 1
    while MET < 4:
        await asyncio.sleep(0)
    return 1.0

def waits(hypothesis):
    pathlib.Path("began").touch()
    while not os.path.exists("go"):
        time.sleep(0.01)
    return 1.0

async def awaits(hypothesis):
    pathlib.Path("began").touch()
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    return 1.0
'''
PROGRAM = """
import sys
sys.path.append({root!r})
from tests.reward.said import texts
from tokenrl_cli.reward.callable import UserFunction
if __name__ == "__main__":
    kept = UserFunction("mine.py:{name}", {timeout}, False, {workers}, "mask", 1.0, ["mine.py"], "reward")
    print(kept(texts([("sleep", []), ("a", [])])).scores.tolist())
"""
ROOT = Path(__file__).parents[2]
BAD = ["sleep", "raise", "quit", "nan"]
SHORT = 0.5  # seconds after which what hangs in this process has hung: what does not answers at once
HUNG = 1.5  # in another process, whose answers have a way to go
EVER = 600  # seconds: what takes longer waited for what hangs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all that processes import, so that tests can share them."""
    path = tmp_path_factory.mktemp("home")
    (path / "mine.py").write_text(SOURCE)
    return path


@pytest.fixture(autouse=True)
def folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("began", "go", "log", "seen"):
        (home / name).unlink(missing_ok=True)
    return home


@pytest.fixture(scope="module")
def others(home: Path) -> Iterator[dict[str, UserFunction]]:
    """Functions in two processes each, which live as long as this module's tests."""
    before = os.getcwd()
    os.chdir(home)
    yield {name: reward(name, 2, timeout=HUNG if name == "each" else EVER) for name in ("each", "aevery")}
    os.chdir(before)


def reward(name: str, workers: int, timeout: float = 60.0, on_error: str = "mask", most: float = 1.0) -> UserFunction:
    batched = name.endswith("every")
    return UserFunction(f"mine.py:{name}", timeout, batched, workers, on_error, most, ["mine.py"], "reward")


def said(*hypotheses: str) -> Texts:
    return texts([(hypothesis, ["R"]) for hypothesis in hypotheses])


def scores(scored: Scored) -> list[float | None]:
    return [None if math.isnan(score) else score for score in scored.scores]


# -------------------------------------------------------------------------------------------------- in this process


@pytest.mark.parametrize("name", ["each", "aeach"])
@pytest.mark.parametrize("bad", BAD)
def test_a_sample_that_fails_does_not_count_and_the_others_do(
    name: str, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    judge = reward(name, 0, timeout=SHORT if bad == "sleep" else 60.0)
    for _ in range(2):
        scored = judge(said("a", bad, "ccc", "dddd"))
        assert scores(scored) == [1, None, 3, 4]
        assert scored.metrics == {"failed": 1}
    (record,) = caplog.records  # the same failure is shown once
    assert record.levelno == logging.WARNING
    assert repr(bad) in record.getMessage()
    assert "1 of 4" in record.getMessage()
    expected = {"sleep": f"no answer within {SHORT:g} s", "quit": "SystemExit: 3", "nan": "gave NaN"}
    expected["raise"] = "Odd: no such word"
    assert expected[bad] in record.getMessage()


@pytest.mark.parametrize("name", ["every", "aevery"])
@pytest.mark.parametrize("bad", ["sleep", "raise", "quit"])
def test_a_batch_that_fails_loses_what_was_in_it(name: str, bad: str) -> None:
    judge = reward(name, 0, timeout=SHORT if bad == "sleep" else 60.0)
    scored = judge(said("a", "bb", "ccc", bad))
    assert scores(scored) == [None] * 4
    assert scored.metrics == {"failed": 4}
    assert scores(judge(said("a", "bb", "ccc"))) == [1, 2, 3]


@pytest.mark.parametrize("name", ["each", "aeach", "every", "aevery"])
def test_every_way_of_calling_gives_the_same(name: str) -> None:
    scored = reward(name, 0)(said("a", "bb", "none", "dddd", "eeeee"))
    assert scores(scored) == [1, 2, None, 4, 5]
    assert scored.metrics == {"failed": 0}
    assert scored.scores.dtype == np.float64


@pytest.mark.parametrize("name", ["each", "aeach", "every", "aevery"])
@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("string", r"gave '0.5' \(str\), must give a finite number"),
        ("list", "gave 3 numbers, .* of the 1 sampled tokens"),
    ],
)
def test_a_wrong_answer_stops_the_run_whatever_on_error_says(name: str, bad: str, told: str) -> None:
    with pytest.raises(UserError, match=f"reward.function=mine.py:{name}: {told}"):
        reward(name, 0)(said("list", "list") if bad == "list" else said("a", bad))


@pytest.mark.parametrize("bad", BAD)
def test_a_failure_can_stop_the_run(bad: str) -> None:
    with pytest.raises(UserError, match=f"mine.py:each: failed on '{bad}': "):
        reward("each", 0, timeout=SHORT if bad == "sleep" else 60.0, on_error="raise")(said("a", bad))


def test_too_many_failures_stop_the_run_and_show_the_first() -> None:
    judge = reward("each", 0, most=0.5)
    assert judge(said("a", "raise", "raise", "bb")).metrics == {"failed": 2}
    with pytest.raises(UserError, match=r"of 4 samples 3 failed, .*max_failed_fraction=0.5; the first failed on 'nan'"):
        judge(said("a", "nan", "raise", "raise"))


def test_slow_samples_of_an_async_function_run_beside_each_other() -> None:
    """None of the four answers before all have been called."""
    assert scores(reward("ameets", 0, timeout=EVER)(said("w1", "w2", "w3", "w4"))) == [1] * 4


def test_a_plain_sample_waits_for_the_one_before(folder: Path) -> None:
    reward("meets", 0)(said("a", "b", "c"))
    assert (folder / "log").read_text().split() == ["+a", "-a", "+b", "-b", "+c", "-c"]


# -------------------------------------------------------------------------------------------------- in other processes


def test_processes_lose_what_raises_stops_or_dies_and_nothing_else(
    others: dict[str, UserFunction], caplog: pytest.LogCaptureFixture
) -> None:
    """A process that is stopped says as little as one that hangs."""
    scored = others["each"](said("a", "raise", "quit", "nan", "die 7", "stop", "die 0", "none", "bb"))
    assert scores(scored) == [1, *[None] * 7, 2]
    assert scored.metrics == {"failed": 6}
    assert "6 of 9" in caplog.text


@pytest.mark.slow
def test_processes_that_die_between_two_calls_cost_nothing(others: dict[str, UserFunction]) -> None:
    others["each"](said("a", "bb"))
    for process in multiprocessing.active_children():
        process.kill()
    assert scores(others["each"](said("a", "bb", "ccc"))) == [1, 2, 3]


@pytest.mark.slow
def test_a_process_that_dies_with_a_call_it_has_not_taken_up_costs_nothing(others: dict[str, UserFunction]) -> None:
    """The processes are stopped, so that they cannot take up what they are given, and then killed."""
    judge = others["each"]
    judge(said("a", "bb"))
    team = [worker.process for worker in judge._run._team]  # type: ignore[attr-defined]
    for process in team:
        os.kill(process.pid, 19)
    given = workers_module._Worker.give

    def give(worker: Any, call: Any, now: float) -> None:
        given(worker, call, now)
        worker.process.kill()
        workers_module._Worker.give = given  # type: ignore[method-assign]

    workers_module._Worker.give = give  # type: ignore[method-assign]
    try:
        assert scores(judge(said("a"))) == [1]
    finally:
        workers_module._Worker.give = given  # type: ignore[method-assign]
        for process in team:
            process.kill()


@pytest.mark.slow
def test_a_batch_of_shares_loses_the_share_that_fails(others: dict[str, UserFunction]) -> None:
    scored = others["aevery"](said("a", "bb", "ccc", "raise"))
    assert scores(scored) == [1, 2, None, None]
    assert scored.metrics == {"failed": 2}
    scored = others["aevery"](said("die 3", "bb", "ccc", "dddd"))
    assert scores(scored) == [None, None, 3, 4]
    with pytest.raises(UserError, match=r"gave '0.5' \(str\), must give a finite number"):
        others["aevery"](said("a", "string"))


def test_the_work_is_done_side_by_side_elsewhere_in_the_same_folder_and_ends_with_the_reward(folder: Path) -> None:
    """Neither of the two answers before both have been called."""
    before = len(multiprocessing.active_children())
    there = reward("meets", 2, timeout=EVER)
    columns = there(said("w1", "w2")).columns
    assert set(columns["folder"]) == {str(folder.resolve())}
    assert len({*columns["process"], os.getpid()}) == 3
    assert len(multiprocessing.active_children()) == before + 2
    del there
    gc.collect()
    assert len(multiprocessing.active_children()) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("raise OSError('the second time')", "OSError: the second time"),
        ("os.kill(os.getpid(), 9)", "its process died, or hung, before it could begin"),
        ("time.sleep(900)", "its process died, or hung, before it could begin"),
    ],
)
def test_an_import_that_fails_there_is_no_endless_wait(
    line: str, told: str, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works here, where the function is looked at first, and not in the processes."""
    file = f"once{abs(hash(line))}.py"
    once = f"import os, time\nif os.path.exists('seen'):\n    {line}\nopen('seen', 'w').close()\n"
    (folder / file).write_text(once + "def each(hypothesis): return 1.0\n")
    judge = UserFunction(f"{file}:each", EVER, False, 1, "mask", 1.0, [file], "reward")
    with monkeypatch.context() as patch:
        if "sleep" in line:
            patch.setattr(workers_module, "START", 0.2)
        scored = judge(said(*["a" * 999] * 200))  # more than fits in a pipe
    assert scored.metrics == {"failed": 200}
    assert told in caplog.text


@pytest.mark.slow
def test_time_to_import_is_not_time_to_answer(folder: Path) -> None:
    (folder / "heavy.py").write_text("import time; time.sleep(2)\ndef each(hypothesis): return 1.0\n")
    scored = UserFunction("heavy.py:each", HUNG, False, 1, "mask", 1.0, ["heavy.py"], "reward")(said("a", "bb"))
    assert scored.metrics == {"failed": 0}


# ------------------------------------------------------------------------------------------ a program that stands still


class Stalled:
    """A clock that jumps by an hour while a call runs, as that of a program that was stopped meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jump, self.looks = folder, 0.0, 0

    def monotonic(self) -> float:
        if (self.folder / "began").exists():
            self.jump, self.looks = 3600.0, self.looks + 1
        if self.looks == 3:  # whoever waits has seen the jump
            (self.folder / "go").touch()
        return time.monotonic() + self.jump


@pytest.mark.sample(1)
@pytest.mark.parametrize(("name", "workers"), [("waits", 0), ("awaits", 0), ("waits", 1)])
def test_time_in_which_the_program_stood_still_is_no_time_of_a_call(
    name: str, workers: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "time", Stalled(folder))
    scored = reward(name, workers, timeout=30.0)(said("a"))
    assert scored.metrics == {"failed": 0}
    assert scored.scores.tolist() == [1]


# ---------------------------------------------------------------------------------------------- the end of a program


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workers"), [("each", 2), ("aeach", 0)])
def test_a_program_ends_though_a_function_hangs(name: str, workers: int, folder: Path) -> None:
    (folder / "program.py").write_text(PROGRAM.format(root=str(ROOT), name=name, timeout=HUNG, workers=workers))
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, timeout=EVER)
    assert (done.returncode, done.stdout, done.stderr.count("Error")) == (0, "[nan, 1.0]\n", 0), done.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_no_process_outlives_a_program_that_is_killed(folder: Path) -> None:
    (folder / "sleeps.py").write_text(
        "import os, time\ndef each(hypothesis):\n    os.mkdir(f'pid-{os.getpid()}')\n    time.sleep(900)\n"
    )
    (folder / "program.py").write_text(
        PROGRAM.format(root=str(ROOT), name="each", timeout=900.0, workers=1).replace("mine", "sleeps")
    )
    program = subprocess.Popen([sys.executable, "program.py"])
    pids = within(EVER, lambda: [int(each.name[4:]) for each in folder.glob("pid-*")], lambda found: len(found) == 1)
    program.kill()
    program.wait()
    assert within(EVER, lambda: [pid for pid in pids if alive(pid)], lambda left: not left) == []


def within(seconds: float, look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + seconds
    while not enough(seen := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return seen


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------------------------------------ the runners


def double(arguments: dict[str, int]) -> int:
    return 2 * arguments["number"]


async def adouble(arguments: dict[str, int]) -> int:
    return 2 * arguments["number"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("runner", [InTurn(double, 60.0), Together(adouble, 60.0)])
def test_answers_come_in_the_order_of_the_calls(runner: Callable[..., list[int]]) -> None:
    assert runner([{"number": number} for number in range(50)]) == list(range(0, 100, 2))
    assert runner([]) == []


@pytest.mark.slow
def test_what_cannot_be_sent_to_a_process_costs_its_call_alone() -> None:
    runner = Processes(len, print, (), 60.0, 1)
    first, second = runner([{"a": lambda: 0}, {"a": 1, "b": 2}])
    assert isinstance(first, Failure)
    assert "pickle" in first.error
    assert second == 2
