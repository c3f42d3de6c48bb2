"""How a run reacts to signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tokenrl_cli.run.recorder import Recorder


class Silent:
    def message(self, text: str) -> None: ...


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recorder with only what handling signals needs, while SIGHUP has its default handler."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    recorder = Recorder.__new__(Recorder)
    recorder.signal, recorder.on_signal, recorder.display = None, "", Silent()  # type: ignore[assignment]
    yield recorder
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_asks_for_a_stop_and_the_second_stops_at_once_but_for_a_hang_up(name: str, recorder: Recorder) -> None:
    number = signal.Signals[name]
    with recorder.signals():
        os.kill(os.getpid(), number)
        assert recorder.signal == number
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_a_hang_up_that_was_ignored_from_the_start_stays_so(recorder: Recorder) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with recorder.signals():
        os.kill(os.getpid(), signal.SIGHUP)
        assert recorder.signal is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
