"""The interface of a display, which shows a run to the user, and the choice between the two that there are."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report.layout import NARROW, layout_width
from tokenrl_cli.report.run_header import RunHeader
from tokenrl_cli.report.safe_output import SafeStream

LOWEST = 3  # lines that a terminal must have for a bar below the scrolling text


class Display(Protocol):
    """Shows a run to the user. Nothing that is saved or learned depends on it. `stage` is "warm_start", "train" (RL),
    or that of an evaluation."""

    def start(self, title: str, stages: list[tuple[str, int]], done: int, facts: RunHeader | None = None) -> None:
        """Announces a training run with a `title`: its stages, each with its name and number of steps, how many of all
        these steps are `done` before (in a run that is resumed), and the facts known of it, if given. Called once,
        before `step`; the command `eval` uses the other methods without it."""

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        """Shows that `step` steps of the whole run, all stages counted together, are done, with the metrics of the
        latest step, which was one of `stage`."""

    def evaluating(self, stage: str, split: str, step: int, done: int, total: int) -> None:
        """Shows the progress of a running evaluation of `split` after `step` steps of the run: `done` of `total`
        examples are decoded, 0 at its start."""

    def evaluation(self, evaluation: Evaluation, samples: int) -> None:
        """Shows a finished evaluation with its first `samples` texts, and ends the progress that `evaluating` shows. An
        evaluation whose numbers and texts are those of an earlier one gets a line that names that one and no more. Of
        the evaluations that the table of `final` shows, only that of the final policy is shown, without its numbers."""

    def message(self, text: str) -> None:
        """Shows a message, such as a finding or a warning; control characters in it have no effect."""

    def final(self, results: dict[str, Any], run: str, then: Sequence[str] = ()) -> None:
        """Shows the table of a finished run (`results` as in results.json), its findings, its directory `run`, and the
        commands to type `then`."""

    def close(self) -> None:
        """Stops drawing, so that the terminal can be used again; what was printed stays. May be called more than
        once."""


def choose_display(stream: TextIO | None = None) -> Display:
    """Returns the display for a stream, standard error by default: standard output is for the result of a command.

    A terminal gets a LiveDisplay with a progress bar, anything else a PlainDisplay with lines of any length. A terminal
    that reports the size 0, or one too small for a bar (below NARROW (40) columns or LOWEST (3) lines), gets a
    PlainDisplay with lines of a readable width. COLUMNS and LINES, if set, replace the size that the terminal reports.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        from tokenrl_cli.report.plain_display import PlainDisplay

        return PlainDisplay(stream)
    columns, lines = _size(stream)
    if columns < NARROW or lines < LOWEST:
        from tokenrl_cli.report.plain_display import PlainDisplay

        return PlainDisplay(stream, layout_width(columns))
    from tokenrl_cli.report.live_display import LiveDisplay

    return LiveDisplay(stream.without_escaping() if isinstance(stream, SafeStream) else stream)  # type: ignore[arg-type]


def _size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines of a terminal: from COLUMNS and LINES if set, else from the terminal, else 80 and 25."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 80, 25
    given = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    return (int(given[0]) if given[0].isdecimal() else columns, int(given[1]) if given[1].isdecimal() else lines)
