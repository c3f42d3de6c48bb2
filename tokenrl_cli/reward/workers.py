"""Calls that may hang, raise or die: each gets its time, and one that fails costs itself alone.

A runner takes the keyword arguments of each call and gives each answer, in order, or a Failure. Nothing is raised.
"""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import os
import queue
import threading
import time
import traceback
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from typing import Any

from pebble import ProcessExpired, ProcessPool

Arguments = dict[str, Any]
GRACE = 1.0  # seconds that an event loop gets, past the timeout, to report its own timeouts
START = 120.0  # seconds that a process gets to import what it needs; the timeout begins after that


@dataclass(frozen=True)
class Failure:
    error: str
    trace: str = ""


NEVER = Failure("its process died, or hung, before it could begin")


def failure(error: BaseException) -> Failure:
    said = "".join(traceback.format_exception_only(error)).strip()
    return Failure(said, "".join(traceback.format_exception(error)))


def late(seconds: float) -> Failure:
    return Failure(f"no answer within {seconds:g} s")


class InTurn:
    """One call after another in a daemon thread. Python cannot stop one that hangs: it is left behind there."""

    def __init__(self, function: Callable[..., Any], timeout: float) -> None:
        self.function, self.timeout = function, timeout

    def __call__(self, calls: list[Arguments]) -> list[Any]:
        outcomes: list[Any] = []
        while len(outcomes) < len(calls):
            done: queue.SimpleQueue[Any] = queue.SimpleQueue()
            abandoned = threading.Event()
            todo = calls[len(outcomes) :]
            threading.Thread(target=_work, args=(self.function, todo, done, abandoned), daemon=True).start()
            try:
                while len(outcomes) < len(calls):
                    outcomes.append(done.get(timeout=self.timeout))
            except queue.Empty:
                abandoned.set()
                outcomes.append(late(self.timeout))
        return outcomes


def _work(
    function: Callable[..., Any], calls: list[Arguments], done: queue.SimpleQueue[Any], abandoned: threading.Event
) -> None:
    for arguments in calls:
        try:
            outcome = function(**arguments)
        except BaseException as error:  # SystemExit, too, would end the thread and look like a timeout
            outcome = failure(error)
        done.put(outcome)
        if abandoned.is_set():
            return


class Together:
    """All calls of an async function at once, in an event loop that lives on: a client that belongs to it stays usable.

    A loop that is blocked is left behind, and the next calls get another.
    """

    def __init__(self, function: Callable[..., Awaitable[Any]], timeout: float) -> None:
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
        try:
            waiting.result(self.timeout + GRACE)
        except FutureTimeoutError:
            self._stop()
            self._stop = None
        return list(outcomes)


def _serve(loops: queue.SimpleQueue[asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner() as runner:  # on leaving it cancels what is still running, and closes the loop
        loops.put(runner.get_loop())
        runner.get_loop().run_forever()


async def _gather(
    function: Callable[..., Awaitable[Any]], calls: list[Arguments], timeout: float, outcomes: list[Any]
) -> None:
    async def one(place: int, arguments: Arguments) -> None:
        try:
            async with asyncio.timeout(timeout) as limit:
                outcomes[place] = await function(**arguments)
        except BaseException as error:  # SystemExit, too, would end the loop
            outcomes[place] = late(timeout) if limit.expired() else failure(error)

    await asyncio.gather(*(one(place, arguments) for place, arguments in enumerate(calls)))


class Processes:
    """Calls spread over processes; one that takes too long is killed and one that dies is replaced.

    `call(arguments)` answers there, after `prepare(*facts)` in each new process. Both are functions of a module, found
    there by name, so that only plain data goes to and fro; what `call` raises must not leave it, as an exception may
    not survive the way. The processes end with this object, or with the program, however that ends.
    """

    def __init__(
        self,
        call: Callable[[Arguments], Any],
        prepare: Callable[..., None],
        facts: tuple[Any, ...],
        timeout: float,
        workers: int,
    ) -> None:
        self.call, self.timeout, self.workers = call, timeout, workers
        self.facts = (prepare, *facts)
        self._pool: ProcessPool | None = None
        self._close: Callable[[], Any] = lambda: None

    def __call__(self, calls: list[Arguments]) -> list[Any]:
        pool = self._started()
        done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        futures: list[Future[Any]] = []
        with suppress(RuntimeError):  # the pool has failed meanwhile
            for arguments in calls:
                futures.append(pool.schedule(self.call, args=[arguments], timeout=self.timeout))
                futures[-1].add_done_callback(done.put)
        left, moved = len(futures), time.monotonic()
        while left and pool.active and time.monotonic() - moved < self.timeout + START:
            try:
                done.get(timeout=1.0)
                left, moved = left - 1, time.monotonic()
            except queue.Empty:
                pass  # look whether the pool is still alive
        if left:
            self._close()
        return [self._outcome(future) for future in futures] + [NEVER] * (len(calls) - len(futures))

    def _started(self) -> ProcessPool:
        if self._pool is None or not self._pool.active:
            self._close()
            self._pool = ProcessPool(self.workers, initializer=_begin, initargs=self.facts, context=_Spawn())
            self._close = weakref.finalize(self, _end, self._pool)
            atexit.register(self._close)  # before multiprocessing's own exit, which would wait for the processes
        return self._pool

    def _outcome(self, future: Future[Any]) -> Any:
        if not future.done():
            return NEVER
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            return NEVER
        if isinstance(error, ProcessExpired):
            return Failure(f"its process died with exit code {error.exitcode}")
        if isinstance(error, FutureTimeoutError):
            return late(self.timeout)
        return future.result() if error is None else failure(error)


class _Spawn(SpawnContext):
    """Not forked: this program has threads, and a lock that one of them holds would stay locked in the child.

    It keeps the locks it made. Pebble gives them up before it stops its processes, and one that is just starting would
    look for them in vain and say so.
    """

    def __init__(self) -> None:
        super().__init__()
        self._locks: list[Any] = []

    def RLock(self) -> Any:  # noqa: N802 - the name that multiprocessing gave it
        self._locks.append(super().RLock())
        return self._locks[-1]


def _begin(prepare: Callable[..., None], *facts: Any) -> None:
    threading.Thread(target=_follow, daemon=True).start()
    prepare(*facts)


def _follow() -> None:
    """A program that is killed cannot stop its processes, and one that hangs would never see that it is alone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()
