"""Standard output and standard error as the program writes to them, whatever the process was started with.

Both are UTF-8. Text from data, configs, checkpoints and exceptions cannot move the cursor, erase a line or turn the
direction of writing: such characters are spelt out, always on standard error, which is for eyes, and on standard output
where that is a terminal, for a file or a pipe gets a command's product as it is. A standard error that nobody reads any
more, or that is full, changes nothing of the work.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, TextIO

from tokenrl_cli.interfaces import UserError
from tokenrl_cli.report.layout import visible


class Unread(BaseException):
    """Nobody reads standard output any more: the work that writes to it is done. No task may take it for a failure."""


class Screen:
    """A text stream around another. What it does not do itself the other does."""

    def __init__(self, raw: TextIO, spells: bool, product: bool) -> None:
        self.raw = raw
        self.spells = spells  # control characters
        self.product = product  # of the command: it must be written

    def write(self, text: str) -> int:
        with self._failing():
            self.raw.write(visible(text, "\n\t") if self.spells else text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._failing():
            self.raw.flush()

    def drawn_on(self) -> Screen:
        """The same for who draws: a display moves the cursor by purpose, and spells out what it shows by itself."""
        return Screen(self.raw, False, self.product)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Raises Unread for a closed pipe, UserError for a full disk; where it is no product both are passed over."""
        try:
            yield
        except BrokenPipeError:
            if self.product:
                raise Unread from None
        except (OSError, ValueError) as error:  # ValueError: closed by somebody
            if self.product:
                problem = isinstance(error, OSError) and error.strerror or str(error)
                raise UserError("standard output", f"cannot be written: {problem}") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Within it sys.stdout and sys.stderr are Screens; where the process has none, what is written is lost."""
    before = sys.stdout, sys.stderr
    out, err = (each if each is not None else open(os.devnull, "w", encoding="utf-8") for each in before)  # noqa: SIM115
    sys.stdout, sys.stderr = Screen(out, _is_terminal(out), True), Screen(err, True, False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for each in {out, err} - {*before}:
            each.close()


def output_is_no_product() -> None:
    """For a command whose work is written to files: nothing of standard output may end it from now on."""
    if isinstance(sys.stdout, Screen):
        sys.stdout.product = False


def prepare() -> None:
    """Once, at the start of a process. Both streams write UTF-8, and half of a surrogate pair spelt out, whatever the
    locale and PYTHONIOENCODING say. Descriptors that the process was started without lead nowhere: otherwise the next
    file to be opened would be standard output for all that writes there."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)  # the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    logging.raiseExceptions = False  # a line that cannot be logged is lost, and nothing else


def leave() -> None:
    """Once, at the end: what is left in the buffers is written where anybody reads it; the interpreter, which would
    complain of a closed pipe on its way out, finds nothing to write."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False
