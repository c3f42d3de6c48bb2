"""Loops over integer ids, compiled by numba when first called and kept on disk for every later start."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Loop = Callable[..., Any]
PATIENCE = 1.0  # seconds of compiling after which it is said


def loop(function: Loop) -> Any:
    """Machine code, for other loops to call."""
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
        """numba's, but what it holds is only a copy of what can be made again: damaged, it is thrown away; where the
        disk is full, it is not kept."""

        def _load_overload(self, *arguments: Any) -> Any:
            try:
                return super()._load_overload(*arguments)
            except Exception as error:  # a damaged pickle may raise anything
                logging.getLogger(__name__).warning("%s: damaged (%r), made anew", self.cache_path, error)
                with suppress(OSError):
                    self.flush()
                return None

        def _save_overload(self, *arguments: Any) -> None:
            try:
                super()._save_overload(*arguments)
            except OSError:
                _kept_on_disk.clear()

    return Cache


def compiled(function: Loop) -> Loop:
    """A loop for Python to call. A first call that has to compile says so, for it takes seconds."""
    fast = loop(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return fast(*arguments)

    return call


_kept_on_disk = threading.Event()
_kept_on_disk.set()


@functools.cache  # numba is told once
def _watch() -> None:
    """Has numba report what it compiles. What it loads from its cache on disk it does not report."""
    from numba.core import event

    class Notice(event.Listener):
        """A timer that runs while loops of ours are compiled, those that they call included."""

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


@functools.cache  # once is enough, however many loops there are
def _tell() -> None:
    often = "once per installation" if _kept_on_disk.is_set() else "at each start, for no directory can be written"
    logging.getLogger(__name__).warning("compiling the loops of the metrics: some seconds, %s", often)
