"""Loops over integer ids, compiled by numba when first called and kept on disk for every later start."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

Loop = Callable[..., Any]
PATIENCE = 1.0  # seconds; loading from disk is faster, compiling is not


def loop(function: Loop) -> Any:
    """Machine code, for other loops to call."""
    import numba

    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no directory can be written: compile in every process
        return numba.njit(nogil=True)(function)


def compiled(function: Loop) -> Loop:
    """A loop for Python to call. A first call that has to compile says so, for it takes seconds."""
    fast = loop(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if fast.signatures:
            return fast(*arguments)
        notice = threading.Timer(PATIENCE, _tell)
        notice.daemon = True
        notice.start()
        try:
            return fast(*arguments)
        finally:
            notice.cancel()

    return call


@functools.cache  # once is enough, however many loops there are
def _tell() -> None:
    logging.getLogger(__name__).warning("compiling the loops of the metrics: some seconds, once per installation")
