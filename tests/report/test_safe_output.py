"""The standard streams: which characters are escaped, and what happens if nobody reads or the disk is full."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

import pytest

from tests.running import tokenrl
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.report.safe_output import OutputClosed, SafeStream, standard_streams

EVIL = "a\x1b[31m\rb\x07\u202ec\n\td"
SPELT = "a\\x1b[31m\\rb\\x07\\u202ec\n\td"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream that fails with an error of the system at every write."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


def streams(monkeypatch: pytest.MonkeyPatch, out: Any, err: Any) -> None:
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)


def test_control_characters_are_spelt_out_for_eyes_and_a_product_is_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for out, expected in ((io.StringIO(), EVIL), (Terminal(), SPELT)):
        err = io.StringIO()
        streams(monkeypatch, out, err)
        with standard_streams():
            sys.stdout.write(EVIL)
            print(EVIL, end="", file=sys.stderr)
        assert (sys.stdout, sys.stderr) == (out, err)
        assert (out.getvalue(), err.getvalue()) == (expected, SPELT)


def test_an_error_is_shown_without_its_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert tokenrl("list", "evil\x1b]0;x\x07") == 2
    assert capsys.readouterr().err.startswith("tokenrl: evil\\x1b]0;x\\x07: there is no such group")


def test_a_standard_error_that_cannot_be_written_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for raw in (Broken(errno.EPIPE), Broken(errno.ENOSPC), Broken(errno.EIO)):
        print("x", file=SafeStream(raw, True, False))
    closed = io.StringIO()
    closed.close()
    SafeStream(closed, True, False).write("x")
    for number in (errno.EPIPE, errno.ENOSPC):
        streams(monkeypatch, sys.stdout, Broken(number))
        assert tokenrl("trian") == 2


def test_a_product_that_nobody_reads_is_done_and_one_that_has_no_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputClosed):
        SafeStream(Broken(errno.EPIPE), False, True).write("x")
    with pytest.raises(UserError, match=f"standard output: cannot be written: {os.strerror(errno.ENOSPC)}"):
        SafeStream(Broken(errno.ENOSPC), False, True).write("x")
    streams(monkeypatch, Broken(errno.EPIPE), sys.stderr)
    assert tokenrl("list") == 0


def test_streams_that_are_not_there_lose_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    streams(monkeypatch, None, None)
    assert tokenrl("list") == 0
    assert tokenrl("trian") == 2


def test_a_display_draws_on_the_stream_below() -> None:
    raw = Terminal()
    SafeStream(raw, True, False).without_escaping().write("\x1b[1m")
    assert raw.getvalue() == "\x1b[1m"
