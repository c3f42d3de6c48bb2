"""Context managers around foreign code that runs in this process: they restore the process state that it may change."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any


class _Stream:
    """A standard stream whose `close` only flushes it: closed by foreign code, it could not be written to any more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def close(self) -> None:
        self._stream.flush()

    def detach(self) -> Any:
        return self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def signals_of(*names: str) -> tuple[signal.Signals, ...]:
    """Returns the signals with these names, such as "SIGHUP", that this system has; others are left out. They come in
    the order of signal.Signals, not in that of `names`."""
    return tuple(each for each in signal.Signals if each.name in names)


STOPS = signals_of("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def process_restored() -> Iterator[Callable[[], bool]]:
    """Context manager for foreign code: restores the working directory, the standard streams, the recursion limit, the
    umask and the signal handlers afterwards. Inside, os._exit raises SystemExit instead of ending the process, except
    in a child made by fork, and closing standard output or standard error only flushes it. What the block raises is
    raised as it is.

    Yields a function that returns True once a SIGINT, SIGTERM or SIGHUP that has a handler has arrived, which runs as
    usual: foreign code may raise KeyboardInterrupt by itself, and that must not be taken for Ctrl-C. Outside the main
    thread signals are neither restored nor noticed.
    """
    here = None
    with suppress(OSError):  # the directory has been removed
        here = os.getcwd()
    streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    came: list[int] = []
    process, leave = os.getpid(), os._exit

    def ended(status: int) -> Any:
        if os.getpid() != process:  # in a child made by fork, os._exit is the right way to end
            leave(status)
        raise SystemExit(f"os._exit({status})")

    limit, mask = sys.getrecursionlimit(), os.umask(0o77)  # the umask can only be read by setting it
    os.umask(mask)
    handlers = _handlers()
    for number, handler in handlers.items():
        if callable(handler) and number in STOPS:
            signal.signal(number, partial(_noticed, came, handler))
    for name in ("stdout", "stderr"):
        if streams[name] is not None:
            setattr(sys, name, _Stream(streams[name]))
    os._exit = ended
    try:
        yield lambda: bool(came)
    finally:
        os._exit = leave
        sys.setrecursionlimit(limit)
        os.umask(mask)
        for name, stream in streams.items():
            setattr(sys, name, stream)
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
        with suppress(OSError):
            os.chdir(here or os.curdir)


def _noticed(came: list[int], handler: Callable[[int, Any], Any], number: int, frame: Any) -> None:
    """Notes in `came` that a signal arrived, then calls the handler that was there."""
    came.append(number)
    handler(number, frame)


def _handlers() -> dict[int, Any]:
    """Signal number -> handler; {} outside the main thread, the only one that may set handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCONT", "SIGTSTP")
    return {number: signal.getsignal(number) for number in signals_of(*names)}


@contextmanager
def same_numerics() -> Iterator[None]:
    """Context manager for foreign code: restores afterwards numpy's error settings, the warning filters, and torch's
    random state on the CPU, default type, number of threads, gradient mode and deterministic mode. Random states of a
    GPU, of numpy and of Python are not restored. If numpy or torch was not imported before the block, its settings are
    left alone."""
    filters, torch, numpy = warnings.filters[:], sys.modules.get("torch"), sys.modules.get("numpy")
    before = _torch_state(torch) if torch else None
    errors = numpy.geterr() if numpy else {}
    try:
        yield
    finally:
        if warnings.filters[:] != filters:
            warnings.resetwarnings()
            warnings.filters.extend(filters)  # type: ignore[attr-defined]
        if numpy:
            numpy.seterr(**errors)
        if torch and before:
            _restore(torch, before)


def _torch_state(torch: Any) -> tuple[Any, ...]:
    switches = (torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())
    return torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), *switches


def _restore(torch: Any, before: tuple[Any, ...]) -> None:
    draws, dtype, threads, gradients, deterministic = before
    torch.set_rng_state(draws)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(gradients)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)
