"""Calls that may hang, raise or die: each has its own time limit, and one that fails costs itself alone.

A runner calls a function with each set of arguments and gives each answer, in order, or a Failure. Nothing is raised.

Time is counted in slices by the thread that waits for an answer. While this process itself stands still (a stopped job,
a suspended laptop) no thread counts, so that no call is late for that.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
import weakref
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tokenrl_cli.usercode.isolation import STOPS
from tokenrl_cli.usercode.values import writable

Arguments = dict[str, Any]
GRACE = 1.0  # seconds that an event loop gets, past the timeout, to report its own timeouts
START = 120.0  # seconds that a process gets to import what it needs; the timeout begins after that
SLOW = 5.0  # seconds after which a process that is still starting is not counted on
TAKE_UP = 30.0  # seconds that a process gets to take up a call; one that does not is replaced, the call is not lost
STARTS = 2  # processes that may fail one after another, if there are not more of them, before there is no use in more
TRIES = 3  # times that a call goes to another process because the one that had it died before it took it up
SLICE = 0.05  # seconds between two looks at the clock
LONGEST = 0.25  # seconds that count of a slice, however long it was: the rest is time in which the process stood still


@dataclass(frozen=True)
class Failure:
    """What a runner gives in place of an answer where a call fails: the error in one line, and its traceback, "" where
    there is none."""

    error: str  # one line
    trace: str = ""


NEVER = Failure("its process died, or hung, before it could begin")


def failure(error: BaseException) -> Failure:
    """Returns an exception as a Failure, which can be sent between processes and written to a file (lone surrogates are
    escaped)."""
    said = " ".join("".join(traceback.format_exception_only(error)).split())
    return Failure(writable(said), writable("".join(traceback.format_exception(error))))


def late(seconds: float) -> Failure:
    """Returns the Failure of a call that gave no answer within its time limit of `seconds`."""
    return Failure(f"no answer within {seconds:g} s")


class Watch:
    """Measures the seconds that this process has been running since the object was made, without pauses of the whole
    process, for a thread that calls `look` every `SLICE` seconds."""

    def __init__(self) -> None:
        self._awake, self._seen = 0.0, time.monotonic()

    def look(self) -> float:
        """Returns the seconds so far. An interval between two calls counts as at most `LONGEST` (0.25 s), so that a
        pause of the whole process is not counted."""
        now = time.monotonic()
        self._awake += min(now - self._seen, LONGEST)
        self._seen = now
        return self._awake


def _soon(done: queue.SimpleQueue[Any], timeout: float) -> Any:
    """Returns what comes next. Raises queue.Empty after `timeout` seconds of running."""
    watch = Watch()
    while True:
        try:
            return done.get(timeout=min(SLICE, timeout))
        except queue.Empty:
            if watch.look() >= timeout:
                raise


class InTurn:
    """Runs one call after another in a daemon thread. An object of it is called with a list of the arguments of each
    call, dictionaries from name to value that `function` gets as its one argument, and returns the list of the results
    in the same order, a Failure where a call raised or took longer than `timeout` seconds. Python cannot stop a late
    call: it is left behind in its thread, still running, and the calls after it go on in a new one."""

    def __init__(self, function: Callable[[Arguments], Any], timeout: float) -> None:
        self.function, self.timeout = function, timeout

    def __call__(self, calls: list[Arguments]) -> list[Any]:
        outcomes: list[Any] = []
        while len(outcomes) < len(calls):
            done: queue.SimpleQueue[Any] = queue.SimpleQueue()
            abandoned = threading.Event()
            todo = calls[len(outcomes) :]
            threading.Thread(target=_in_turn, args=(self.function, todo, done, abandoned), daemon=True).start()
            try:
                while len(outcomes) < len(calls):
                    outcomes.append(_soon(done, self.timeout))
            except queue.Empty:
                abandoned.set()
                outcomes.append(late(self.timeout))
        return outcomes


def _in_turn(
    function: Callable[[Arguments], Any],
    calls: list[Arguments],
    done: queue.SimpleQueue[Any],
    abandoned: threading.Event,
) -> None:
    for arguments in calls:
        try:
            outcome = function(arguments)
        except BaseException as error:  # SystemExit, too, would end the thread and look like a timeout
            outcome = failure(error)
        done.put(outcome)
        if abandoned.is_set():
            return


class Together:
    """Runs all calls of an async function at once, in an event loop that lives on: a client that belongs to it stays
    usable. An object of it is called with a list of the arguments of each call, dictionaries from name to value that
    `function` gets as its one argument, and returns the list of the results in the same order, a Failure where a call
    raised, or had no result `timeout` seconds after the start of all; such a call is cancelled.

    A loop that is blocked, so that it reports nothing within GRACE seconds more, is left behind, and the next calls get
    another.
    """

    def __init__(self, function: Callable[[Arguments], Awaitable[Any]], timeout: float) -> None:
        self.function, self.timeout = function, timeout
        self._stop: Callable[[], Any] | None = None

    def __call__(self, calls: list[Arguments]) -> list[Any]:
        if self._stop is None:
            loops: queue.SimpleQueue[asyncio.AbstractEventLoop] = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(loops,), daemon=True).start()
            self._loop = loops.get()
            self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        outcomes: list[Any] = [late(self.timeout)] * len(calls)
        waiting = asyncio.run_coroutine_threadsafe(_gather(self.function, calls, self.timeout, outcomes), self._loop)
        watch = Watch()
        while not waiting.done() and watch.look() < self.timeout + GRACE:
            with suppress(FutureTimeoutError):
                waiting.result(SLICE)
        if not waiting.done():
            self._stop()
            self._stop = None
        return list(outcomes)


def _serve(loops: queue.SimpleQueue[asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner() as runner:  # on leaving it cancels what is still running, and closes the loop
        loops.put(runner.get_loop())
        runner.get_loop().run_forever()


async def _gather(
    function: Callable[[Arguments], Awaitable[Any]], calls: list[Arguments], timeout: float, outcomes: list[Any]
) -> None:
    """Fills `outcomes` as answers come; a place whose time is over keeps what stood there."""
    over = False

    async def one(place: int, arguments: Arguments) -> None:
        try:
            outcome = await function(arguments)
        except BaseException as error:  # SystemExit, too, would end the loop
            outcome = failure(error)
        if not over:
            outcomes[place] = outcome

    left = {asyncio.ensure_future(one(place, arguments)) for place, arguments in enumerate(calls)}
    watch = Watch()
    while left and watch.look() < timeout:
        _, left = await asyncio.wait(left, timeout=min(SLICE, timeout))
    over = True
    for task in left:
        task.cancel()


class Processes:
    """Spreads calls over at most `workers` processes; one that takes longer than `timeout` seconds for a call is killed
    and one that dies is replaced. An object of it is called with a list of the arguments of each call, dictionaries
    from name to value, and returns the list of the results in the same order, a Failure where a call raised, was
    killed, or has arguments or a result that cannot be pickled.

    `call(arguments)` runs there, after `prepare(*facts)` in each new process. Both are functions of a module, found
    there by name, so that only plain data are sent. A process has a pipe of its own and gets one call at a time: one
    that dies takes nothing else along, and a call that it had not taken up goes to another. When several processes in a
    row die or hang before they are ready, as where `prepare` raises, the calls left are Failures. The processes end
    with this object, or with the program, however that ends.
    """

    def __init__(
        self,
        call: Callable[[Arguments], Any],
        prepare: Callable[..., None],
        facts: tuple[Any, ...],
        timeout: float,
        workers: int,
    ) -> None:
        self.timeout, self.workers = timeout, workers
        self._what = (call, prepare, facts)
        self._news: queue.SimpleQueue[tuple[_Worker, str, Any]] = queue.SimpleQueue()
        self._team: list[_Worker] = []
        atexit.register(weakref.finalize(self, _end, self._team))  # before multiprocessing's exit, which waits for them

    def __call__(self, calls: list[Arguments]) -> list[Any]:
        outcomes: list[Any] = [NEVER] * len(calls)
        todo: deque[tuple[int, bytes]] = deque()
        for place, arguments in enumerate(calls):
            try:
                todo.append((place, pickle.dumps(arguments)))
            except Exception as error:  # the class of a value in a column may refuse
                outcomes[place] = failure(error)
        for worker in [each for each in self._team if each.process.exitcode is not None]:
            self._dismiss(worker)
        self._share_out(todo, outcomes)
        return outcomes

    def _share_out(self, todo: deque[tuple[int, bytes]], outcomes: list[Any]) -> None:
        watch = Watch()
        tries: Counter[int] = Counter()
        failed = 0  # processes, one after another, that died or hung before they were ready
        while todo or any(worker.call for worker in self._team):
            if failed >= max(STARTS, self.workers):
                todo.clear()
            taken = sum(worker.call is not None or worker.slow(watch.look()) for worker in self._team)
            while len(self._team) < min(self.workers, len(todo) + taken):
                self._team.append(_Worker(*self._what, self._news, watch.look()))
            for worker in self._team:
                if todo and worker.ready and worker.call is None:
                    worker.give(todo.popleft(), watch.look())
            lost = self._heard(watch, outcomes)
            failed = 0 if lost is None else failed
            for worker, why in lost or ():
                self._dismiss(worker)
                failed += not worker.ready
                if worker.call is not None and worker.began:
                    outcomes[worker.call[0]] = why
                elif worker.call is not None and tries[worker.call[0]] < TRIES:
                    tries[worker.call[0]] += 1
                    todo.appendleft(worker.call)

    def _heard(self, watch: Watch, outcomes: list[Any]) -> list[tuple[_Worker, Failure]] | None:
        """Waits a little for news; -> processes that are of no use any more, and why; None: there is an answer."""
        lost: list[tuple[_Worker, Failure]] = []
        quiet = False
        try:
            worker, kind, value = self._news.get(timeout=min(SLICE, self.timeout))
            if worker in self._team:
                if kind == "answered" and worker.call is not None:
                    outcomes[worker.call[0]] = pickle.loads(value)
                    worker.call = None
                    return None
                worker.heard(kind, watch.look())
        except queue.Empty:
            quiet = True
        now = watch.look()
        for worker in self._team:
            if worker.dead(quiet):
                lost.append((worker, Failure(f"its process died with exit code {worker.process.exitcode}")))
            elif now >= worker.since + worker.limit(self.timeout):
                lost.append((worker, late(self.timeout)))
        return lost

    def _dismiss(self, worker: _Worker) -> None:
        self._team.remove(worker)
        worker.end()


class _Worker:
    """A process, and a thread here that communicates with it, because sending and receiving may block as long as the
    process stands still."""

    def __init__(
        self, call: Any, prepare: Any, facts: Any, news: queue.SimpleQueue[tuple[_Worker, str, Any]], now: float
    ) -> None:
        self.call: tuple[int, bytes] | None = None  # what it was given last, until it answers: place, arguments
        self.ready = self.began = self._gone = False
        self.since = now  # when it was started, was given its call, or took it up
        self._given: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        here, there = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(there, call, prepare, facts), name="tokenrl-reward")
        self.process.start()
        there.close()
        threading.Thread(target=self._talk, args=(here, news), daemon=True).start()

    def _talk(self, line: Connection, news: queue.SimpleQueue[tuple[_Worker, str, Any]]) -> None:
        with line, suppress(EOFError, OSError):
            line.recv_bytes()
            news.put((self, "ready", None))
            while arguments := self._given.get():
                line.send_bytes(arguments)
                line.recv_bytes()
                news.put((self, "began", None))
                news.put((self, "answered", line.recv_bytes()))
        news.put((self, "gone", None))

    def give(self, call: tuple[int, bytes], now: float) -> None:
        self.call, self.began, self.since = call, False, now
        self._given.put(call[1])

    def heard(self, kind: str, now: float) -> None:
        if kind == "gone":
            self._gone = True
            self.process.join(GRACE)  # it closed its line: it is about to end
            return
        self.ready, self.began, self.since = True, kind == "began", now

    def dead(self, quiet: bool) -> bool:
        """Whether the process has ended. If `quiet`, the exit code decides, too: where another process holds its pipe,
        no message comes."""
        return self._gone or (quiet and self.process.exitcode is not None)

    def limit(self, timeout: float) -> float:
        """Returns the seconds, from `since` on, that the process may take for what it is doing."""
        if not self.ready:
            return START
        return math.inf if self.call is None else timeout if self.began else TAKE_UP

    def slow(self, now: float) -> bool:
        """Whether it takes so long to start that another should be started in its place."""
        return not self.ready and now - self.since > SLOW

    def end(self) -> None:
        self._given.put(b"")
        self.process.kill()
        self.process.join(TAKE_UP)


LEAVE = os._exit  # which is another while foreign code runs
SPAWN = multiprocessing.get_context("spawn")  # not forked: a lock that a thread of this program holds would stay locked


def _end(team: list[_Worker]) -> None:
    for worker in team:
        worker.end()


def _work(line: Connection, call: Callable[[Arguments], Any], prepare: Callable[..., None], facts: Any) -> None:
    """In the process: answers the calls that come until none can come any more."""
    threading.Thread(target=_follow, daemon=True).start()
    for each in STOPS:  # they are of the program, which still needs the answers to save itself
        signal.signal(each, lambda *_: None)
    prepare(*facts)
    with suppress(EOFError, OSError):
        line.send_bytes(b"ready")
        while True:
            arguments = line.recv_bytes()
            line.send_bytes(b"began")
            line.send_bytes(_outcome(call, arguments))


def _outcome(call: Callable[[Arguments], Any], arguments: bytes) -> bytes:
    try:
        return pickle.dumps(call(pickle.loads(arguments)))
    except BaseException as error:  # it may not survive the way itself
        return pickle.dumps(failure(error))


def _follow() -> None:
    """Ends this process when its parent ends. A program that is killed cannot stop its processes, and one that hangs
    would not notice it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    LEAVE(1)
