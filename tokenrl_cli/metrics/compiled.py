"""Loops over integer ids, compiled by numba when first called and kept on disk for every later start."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Loop = TypeVar("Loop", bound=Callable[..., Any])
PATIENCE = 1.0  # seconds; loading from disk is faster, compiling is not


def compiled(loop: Loop) -> Loop:
    """`loop` as machine code. A first call that has to compile says so, for it takes seconds."""
    import numba

    try:
        fast = numba.njit(cache=True, nogil=True)(loop)
    except RuntimeError:  # no directory can be written: compile in every process
        fast = numba.njit(nogil=True)(loop)

    @functools.wraps(loop)
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

    return call  # type: ignore[return-value]


def _tell() -> None:
    logging.getLogger(__name__).info("compiling the loops of the metrics for this machine (once per installation)")
