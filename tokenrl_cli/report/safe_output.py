"""Standard output and standard error, made safe to write any text to.

Both are UTF-8, whatever the locale. Text from data, configs, checkpoints and exceptions may hold control characters
that move the cursor, erase a line or reverse the direction of writing. These are written as escapes such as \\x1b:
always on standard error, which people read, and on standard output if that is a terminal. A file or a pipe gets the
result of a command unchanged. A standard error that is closed or full never stops a command.
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
from tokenrl_cli.report.layout import escaped


class OutputClosed(BaseException):
    """The reader of standard output has closed it, as `head` does: the command ends, and has not failed.

    A BaseException, so that no `except Exception` on the way takes it for an error.
    """


class SafeStream:
    """A text stream that writes to another one, `raw`; all other attributes are those of `raw`. With `escapes` control
    characters are written as escapes; with `required` a failure to write is an error, else what was to be written is
    lost in silence."""

    def __init__(self, raw: TextIO, escapes: bool, required: bool) -> None:
        self.raw = raw
        self.escapes = escapes  # whether control characters are written as escapes
        self.required = required  # whether failing to write is an error

    def write(self, text: str) -> int:
        """Writes a text and returns its length. If the stream is required, raises OutputClosed where the reader has
        closed the pipe, UserError where it cannot be written otherwise (a full disk, a closed stream); else a failure
        is ignored. A buffered stream may fail only at `flush`."""
        with self._failing():
            self.raw.write(escaped(text, "\n\t") if self.escapes else text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes each of several texts; adds no line breaks. If the stream is required, raises OutputClosed where
        the reader has closed the pipe, UserError for any other failure; else a failure is ignored."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes what is buffered. If the stream is required, raises OutputClosed where the reader has closed the
        pipe, UserError for any other failure; else a failure is ignored."""
        with self._failing():
            self.raw.flush()

    def without_escaping(self) -> SafeStream:
        """Returns a new stream to the same `raw` without escaping, for a display: it moves the cursor on purpose and
        escapes texts itself."""
        return SafeStream(self.raw, False, self.required)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Raises OutputClosed for a closed pipe, UserError for a full disk; ignores both if the stream is not
        `required`."""
        try:
            yield
        except BrokenPipeError:
            if self.required:
                raise OutputClosed from None
        except (OSError, ValueError) as error:  # ValueError: the stream has been closed
            if self.required:
                problem = (isinstance(error, OSError) and error.strerror) or str(error)
                raise UserError("standard output", f"cannot be written: {problem}") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Context manager: replaces sys.stdout and sys.stderr by SafeStreams while the block runs, and restores them.
    Standard output is required, standard error is not. If the process has no such stream, what is written to it is
    lost."""
    before = sys.stdout, sys.stderr
    out, err = (each if each is not None else open(os.devnull, "w", encoding="utf-8") for each in before)  # noqa: SIM115
    sys.stdout, sys.stderr = SafeStream(out, _is_terminal(out), True), SafeStream(err, True, False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for each in {out, err} - {*before}:
            each.close()


def ignore_output_errors() -> None:
    """From now on drops what cannot be written to standard output (a closed pipe, a full disk) in silence instead of
    raising: for a command whose result is written to files. Works on the stream that `standard_streams` put in place,
    until its block ends; without it nothing changes."""
    if isinstance(sys.stdout, SafeStream):
        sys.stdout.required = False


def prepare_streams() -> None:
    """Sets up the standard streams, once at the start of a process.

    Both write UTF-8 whatever the locale and PYTHONIOENCODING say, and half of a surrogate pair as its escape. If the
    process was started with descriptor 0, 1 or 2 closed, it is opened on /dev/null: otherwise the next file to be
    opened would get that number, and everything printed would land in it. A line that logging cannot write is lost
    without a traceback.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # gets the lowest free number, which is this one
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    logging.raiseExceptions = False  # a line that cannot be logged is lost without a traceback


def flush_streams() -> None:
    """Writes what the standard streams still buffer, once at the end of a process; raises nothing where that fails.

    A stream that can no longer be written is pointed at /dev/null: otherwise the interpreter would flush it once more
    on exit, print an error and change the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal; False for a closed one."""
    try:
        return stream.isatty()
    except ValueError:
        return False
