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
import asyncio, os, time

def fate(hypothesis):
    """What happens to a sample is what it says."""
    if hypothesis == "sleep":
        time.sleep(900)
    if hypothesis == "raise":
        raise Odd("no such", "word")
    if hypothesis == "quit":
        raise SystemExit(3)
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
    """Answers when four have come, or when it is told to wait for nobody."""
    with open("log", "a") as log:
        log.write(f"+{hypothesis} ")
    open(f"here-{hypothesis}", "w").close()
    while hypothesis.startswith("w") and len([name for name in os.listdir() if name.startswith("here-w")]) < 4:
        time.sleep(0.01)
    with open("log", "a") as log:
        log.write(f"-{hypothesis} ")
    return 1.0

async def ameets(hypothesis):
    global MET
    MET += 1
    while MET < 4:
        await asyncio.sleep(0)
    return 1.0

def where(hypothesis):
    return {"reward": 0.5, "process": os.getpid(), "folder": os.getcwd()}
'''
PROGRAM = """
import sys
sys.path.append({root!r})
from tests.reward.said import texts
from tokenrl_cli.reward.callable import UserFunction
if __name__ == "__main__":
    kept = UserFunction("mine.py:{name}", {timeout}, False, {workers}, "mask", 1.0, ["mine.py"])
    print(kept(texts([("sleep", []), ("a", [])])).scores.tolist())
"""
ROOT = Path(__file__).parents[2]
BAD = ["sleep", "raise", "quit", "nan"]
HUNG = 1.5  # seconds after which what hangs has hung: what does not has answered by then, on a busy machine, too
EVER = 600  # seconds: what takes longer waited for what hangs


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture(params=[0, 2])
def workers(request: pytest.FixtureRequest) -> Iterator[int]:
    yield request.param
    gc.collect()
    assert not multiprocessing.active_children()


def reward(name: str, workers: int, timeout: float = 60.0, on_error: str = "mask", most: float = 1.0) -> UserFunction:
    batched = name.endswith("every")
    return UserFunction(f"mine.py:{name}", timeout, batched, workers, on_error, most, ["mine.py"])


def said(*hypotheses: str) -> Texts:
    return texts([(hypothesis, ["R"]) for hypothesis in hypotheses])


def scores(scored: Scored) -> list[float | None]:
    return [None if math.isnan(score) else score for score in scored.scores]


@pytest.mark.parametrize("name", ["each", "aeach"])
@pytest.mark.parametrize("bad", BAD)
def test_a_sample_that_fails_does_not_count_and_the_others_do(
    name: str, bad: str, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    judge, start = reward(name, workers, timeout=HUNG if bad == "sleep" else 60.0), time.monotonic()
    for _ in range(2):
        scored = judge(said("a", bad, "ccc", "dddd"))
        assert scores(scored) == [1, None, 3, 4] and scored.metrics == {"failed": 1}
    assert time.monotonic() - start < EVER
    (record,) = caplog.records  # the same failure is shown once
    assert record.levelno == logging.WARNING and repr(bad) in record.getMessage() and "1 of 4" in record.getMessage()
    expected = dict(sleep="no answer within 1.5 s", quit="SystemExit: 3", nan="gave NaN")
    expected["raise"] = "Odd: no such word"
    assert expected[bad] in record.getMessage()


@pytest.mark.parametrize("name", ["every", "aevery"])
@pytest.mark.parametrize("bad", ["sleep", "raise", "quit"])
def test_a_batch_that_fails_loses_what_was_in_it(name: str, bad: str, workers: int) -> None:
    judge, start = reward(name, workers, timeout=HUNG if bad == "sleep" else 60.0), time.monotonic()
    scored = judge(said("a", "bb", "ccc", bad))
    lost = 2 if workers else 4  # each worker has its own share
    assert scores(scored) == [1, 2, 3, 4][: 4 - lost] + [None] * lost and scored.metrics == {"failed": lost}
    assert scores(judge(said("a", "bb", "ccc"))) == [1, 2, 3]
    assert time.monotonic() - start < EVER


@pytest.mark.parametrize("name", ["each", "aeach", "every", "aevery"])
def test_every_way_of_calling_gives_the_same(name: str, workers: int) -> None:
    judge = reward(name, workers)
    for _ in range(2):
        scored = judge(said("a", "bb", "none", "dddd", "eeeee"))
        assert scores(scored) == [1, 2, None, 4, 5] and scored.metrics == {"failed": 0}
        assert scored.scores.dtype == np.float64
    assert scores(judge(said("a"))) == [1]


@pytest.mark.parametrize("name", ["each", "aeach", "every", "aevery"])
@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("string", r"gave '0.5' \(str\), must give a finite number"),
        ("list", "gave 3 numbers, .* of the 1 sampled tokens"),
    ],
)
def test_a_wrong_answer_stops_the_run_whatever_on_error_says(name: str, bad: str, told: str, workers: int) -> None:
    with pytest.raises(UserError, match=f"reward.function=mine.py:{name}: {told}"):
        reward(name, workers)(said("list", "list") if bad == "list" else said("a", bad))


@pytest.mark.parametrize("name", ["each", "aeach"])
@pytest.mark.parametrize("bad", BAD)
def test_a_failure_can_stop_the_run(name: str, bad: str, workers: int) -> None:
    with pytest.raises(UserError, match=f"mine.py:{name}: failed on '{bad}': "):
        reward(name, workers, timeout=HUNG if bad == "sleep" else 60.0, on_error="raise")(said("a", bad))


def test_too_many_failures_stop_the_run_and_show_the_first(workers: int) -> None:
    judge = reward("each", workers, most=0.5)
    assert judge(said("a", "raise", "raise", "bb")).metrics == {"failed": 2}
    with pytest.raises(UserError, match="of 4 samples 3 failed, .*max_failed_fraction=0.5; the first failed on 'nan'"):
        judge(said("a", "nan", "raise", "raise"))


@pytest.mark.parametrize(("name", "code"), [("each", 7), ("each", 0), ("aeach", 7), ("every", 7)])
def test_a_process_that_dies_is_replaced(name: str, code: int) -> None:
    judge = reward(name, 2, timeout=HUNG)  # an exit with code 0 is told by its silence alone
    for _ in range(2):
        scored = judge(said("a", "bb", "ccc", f"die {code}"))
        assert scores(scored)[:2] == [1, 2] and math.isnan(scored.scores[3])
        assert scored.metrics == {"failed": 2 if name == "every" else 1}


def test_where_all_processes_die_the_others_are_still_answered(caplog: pytest.LogCaptureFixture) -> None:
    scored = reward("each", 2)(said("die 1", "die 2", "die 3", "die 4", "die 5", "ffffff"))
    assert scores(scored) == [None] * 5 + [6] and scored.metrics == {"failed": 5}
    assert "its process died with exit code 1" in caplog.text


def test_processes_that_die_between_two_calls_are_replaced() -> None:
    judge = reward("each", 2)
    judge(said("a"))
    killed = set(multiprocessing.active_children())
    for process in killed:
        process.kill()

    def noticed() -> bool:
        others = set(multiprocessing.active_children()) - killed
        return not judge._run._pool.active or len(others) == 2  # type: ignore[attr-defined]

    assert within(EVER, noticed, bool)
    assert scores(judge(said("a", "bb", "ccc"))) == [1, 2, 3]
    assert len(multiprocessing.active_children()) == 2


def test_processes_that_hang_together_do_not_stop_the_rest() -> None:
    start = time.monotonic()
    scored = reward("each", 2, timeout=HUNG)(said(*["sleep"] * 4, "bb"))
    assert scores(scored) == [None] * 4 + [2] and time.monotonic() - start < EVER


@pytest.mark.parametrize(("name", "workers"), [("meets", 4), ("ameets", 0)])
def test_slow_samples_run_beside_each_other(name: str, workers: int) -> None:
    """None of the four answers before all have been called."""
    scored = reward(name, workers, timeout=EVER)(said("w1", "w2", "w3", "w4"))
    assert scores(scored) == [1] * 4


def test_in_this_process_one_sample_waits_for_the_other(folder: Path) -> None:
    reward("meets", 0)(said("a", "b", "c"))
    assert (folder / "log").read_text().split() == ["+a", "-a", "+b", "-b", "+c", "-c"]


def test_the_work_is_done_elsewhere_in_the_same_folder(folder: Path) -> None:
    here, elsewhere = reward("where", 0)(said("a")), reward("where", 2)(said(*"abcdefgh"))
    assert set(elsewhere.columns["folder"]) == set(here.columns["folder"]) == {str(folder.resolve())}
    assert not set(here.columns["process"]) & set(elsewhere.columns["process"])
    assert elsewhere.scores.tolist() == [0.5] * 8


def test_an_import_that_works_here_alone_fails_there_and_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    once = "import os\nif os.path.exists('seen'): raise OSError('the second time')\nopen('seen', 'w').close()\n"
    (folder / "once.py").write_text(once + "def each(hypothesis): return 1.0\n")
    scored = UserFunction("once.py:each", 60.0, False, 2, "mask", 1.0, ["once.py"])(said("a", "bb"))
    assert scored.metrics == {"failed": 2} and "OSError: the second time" in caplog.text


@pytest.mark.parametrize("count", [6, 3000])  # 3000 do not fit in the pipe: the pool fails with calls still in line
def test_an_import_that_kills_the_process_is_no_endless_wait(count: int, folder: Path) -> None:
    once = "import os\nif os.path.exists('seen'): os._exit(5)\nopen('seen', 'w').close()\n"
    (folder / "once.py").write_text(once + "def each(hypothesis): return 1.0\n")
    judge, start = UserFunction("once.py:each", 60.0, False, 2, "mask", 1.0, ["once.py"]), time.monotonic()
    assert judge(said(*["a" * 99] * count)).metrics == {"failed": count} and time.monotonic() - start < EVER
    (folder / "seen").unlink()
    assert judge(said("a")).metrics == {"failed": 0}  # in new processes


def test_an_import_that_hangs_is_no_endless_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = "import os, time\nif os.path.exists('seen'): time.sleep(900)\nopen('seen', 'w').close()\n"
    (folder / "once.py").write_text(once + "def each(hypothesis): return 1.0\n")
    judge, start = UserFunction("once.py:each", HUNG, False, 2, "mask", 1.0, ["once.py"]), time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(workers_module, "START", 0.5)
        assert judge(said(*"abcdef")).metrics == {"failed": 6}
    assert time.monotonic() - start < EVER
    assert not multiprocessing.active_children()
    (folder / "seen").unlink()
    assert judge(said("a")).metrics == {"failed": 0}


def test_time_to_import_is_not_time_to_answer(folder: Path) -> None:
    (folder / "heavy.py").write_text("import time; time.sleep(2.5)\ndef each(hypothesis): return 1.0\n")
    scored = UserFunction("heavy.py:each", HUNG, False, 2, "mask", 1.0, ["heavy.py"])(said("a", "bb"))
    assert scored.metrics == {"failed": 0}


def test_the_processes_end_with_the_reward() -> None:
    judge = reward("each", 2)
    judge(said("a"))
    assert len(multiprocessing.active_children()) == 2
    del judge
    gc.collect()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("name", "workers"), [("each", 2), ("each", 0), ("aeach", 0), ("aeach", 2)])
def test_a_program_ends_though_a_function_hangs(name: str, workers: int, folder: Path) -> None:
    (folder / "program.py").write_text(PROGRAM.format(root=str(ROOT), name=name, timeout=HUNG, workers=workers))
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, timeout=EVER)
    assert (done.returncode, done.stdout, done.stderr.count("Error")) == (0, "[nan, 1.0]\n", 0), done.stderr


def test_a_program_that_ends_while_a_process_starts_says_nothing_of_it(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text("import time; time.sleep(0.5)")  # the one killed is just being replaced
    slow_to_end = "from multiprocessing import util\nutil.Finalize(None, time.sleep, (1.0,), exitpriority=1)\n"
    (folder / "mine.py").write_text(SOURCE + slow_to_end)
    (folder / "program.py").write_text(PROGRAM.format(root=str(ROOT), name="each", timeout=HUNG, workers=2))
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, timeout=EVER, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("Error")) == (0, "[nan, 1.0]\n", 0), done.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_no_process_outlives_a_program_that_is_killed(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import os, time\ndef each(hypothesis):\n    os.mkdir(f'pid-{os.getpid()}')\n    time.sleep(900)\n"
    )
    (folder / "program.py").write_text(PROGRAM.format(root=str(ROOT), name="each", timeout=900.0, workers=2))
    program = subprocess.Popen([sys.executable, "program.py"])
    pids = within(EVER, lambda: [int(each.name[4:]) for each in folder.glob("pid-*")], lambda found: len(found) == 2)
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


def double(number: int) -> int:
    return 2 * number


async def adouble(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("runner", [InTurn(double, 60.0), Together(adouble, 60.0)])
def test_answers_come_in_the_order_of_the_calls(runner: Callable[..., list[int]]) -> None:
    assert runner([dict(number=number) for number in range(50)]) == list(range(0, 100, 2))
    assert runner([]) == []


def test_what_cannot_be_sent_to_a_process_costs_its_call_alone() -> None:
    runner = Processes(len, print, (), 60.0, 1)
    first, second = runner([dict(a=lambda: 0), dict(a=1, b=2)])
    assert isinstance(first, Failure) and "pickle" in first.error and second == 2
