"""Where foreign code runs in this process: what it may change of it, and what is put back afterwards."""

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
    """A standard stream that whoever it is lent to cannot close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def close(self) -> None:
        self._stream.flush()

    def detach(self) -> Any:
        return self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def signals_of(*names: str) -> tuple[signal.Signals, ...]:
    """Those of these names that the machine has."""
    return tuple(each for each in signal.Signals if each.name in names)


STOPS = signals_of("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def lent() -> Iterator[Callable[[], bool]]:
    """While foreign code runs: the working directory, the standard streams, the recursion limit, the mask of new files
    and the handlers of signals are its to change, and are put back; os._exit raises SystemExit. Yields a function that
    tells whether a signal really came, so that a KeyboardInterrupt that the code raises by itself is not taken for
    one."""
    here = None
    with suppress(OSError):  # it is gone
        here = os.getcwd()
    streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    came: list[int] = []
    process, leave = os.getpid(), os._exit

    def ended(status: int) -> Any:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    limit, mask = sys.getrecursionlimit(), os.umask(0o77)
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
    came.append(number)
    handler(number, frame)


def _handlers() -> dict[int, Any]:
    """Only the main thread may change them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCONT", "SIGTSTP")
    return {number: signal.getsignal(number) for number in signals_of(*names)}


@contextmanager
def same_numerics() -> Iterator[None]:
    """What seeds, switches and filters foreign code sets for numpy, torch and warnings is undone."""
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
