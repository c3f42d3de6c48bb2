"""Loops over integer ids, compiled to machine code by numba at their first call, with the code cached on disk.

Two decorators: `compiled` for a loop that Python calls, `loop` for one that only other compiled loops call. Compiling
takes seconds; a warning says so when it takes longer than PATIENCE.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Loop = Callable[..., Any]
PATIENCE = 1.0  # seconds of compiling after which a warning is logged


def loop(function: Loop) -> Any:
    """Decorator: `function` compiled by numba at its first call, for other compiled loops to call.

    The machine code is cached in a directory beside the source file or, if that is read-only, in the user's cache.
    Where neither can be written, it is compiled anew in every process.
    """
    import numba

    _watch()
    fast: Any = numba.njit(nogil=True)(function)
    try:
        fast._cache = _cache_class()(function)
    except RuntimeError:  # no directory can be written: compile in every process
        _kept_on_disk.clear()
    return fast


@functools.cache
def _cache_class() -> Any:
    from numba.core.caching import FunctionCache

    class Cache(FunctionCache):
        """numba's cache, for which no error is fatal, since its content can always be compiled again: a damaged entry
        is deleted, and on a full disk nothing is saved."""

        def _load_overload(self, *arguments: Any) -> Any:
            try:
                return super()._load_overload(*arguments)  # type: ignore[no-untyped-call]
            except Exception as error:  # a damaged pickle may raise anything
                logging.getLogger(__name__).warning("%s: damaged (%r), made anew", self.cache_path, error)
                with suppress(OSError):
                    self.flush()  # type: ignore[no-untyped-call]
                return None

        def _save_overload(self, *arguments: Any) -> None:
            try:
                super()._save_overload(*arguments)  # type: ignore[no-untyped-call]
            except OSError:
                _kept_on_disk.clear()

    return Cache


def compiled(function: Loop) -> Loop:
    """Decorator: `function` compiled by numba at its first call, which takes seconds unless the machine code is cached
    on disk (see `loop`), for Python to call with positional arguments."""
    fast = loop(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return fast(*arguments)

    return call


_kept_on_disk = threading.Event()  # cleared where no machine code can be saved
_kept_on_disk.set()


@functools.cache  # a second listener would warn twice
def _watch() -> None:
    """Registers a listener that logs a warning when compiling takes longer than PATIENCE. Loading machine code from
    the cache on disk is no such event."""
    from numba.core import event

    class Notice(event.Listener):
        """Starts a timer when a loop of this package begins to compile, and cancels it at the end. Compilations nest:
        a loop compiles those that it calls."""

        def __init__(self) -> None:
            self.timers: list[threading.Timer] = []

        def on_start(self, event: Any) -> None:
            timer = threading.Timer(PATIENCE, _tell)
            timer.daemon = True
            self.timers.append(timer)
            if event.data["dispatcher"].py_func.__module__.startswith("tokenrl_cli."):
                timer.start()

        def on_end(self, event: Any) -> None:
            self.timers.pop().cancel()

    event.register("numba:compile", Notice())


@functools.cache  # one warning a process, however many loops there are
def _tell() -> None:
    """Logs that the loops are compiled, and whether the next start will have to do it again."""
    often = "once per installation" if _kept_on_disk.is_set() else "at each start, for no directory can be written"
    logging.getLogger(__name__).warning("compiling the loops of the metrics: some seconds, %s", often)
