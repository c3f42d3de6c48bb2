"""What the user sees of a run; which of two displays shows it depends on where the lines go."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report.layout import NARROW, columns_of
from tokenrl_cli.report.run_header import Start
from tokenrl_cli.report.safe_output import Screen

LOWEST = 3  # lines of a terminal on which a bar can stay below what scrolls


class Display(Protocol):
    """Shows a run; computes nothing that is kept."""

    def start(self, title: str, stages: list[tuple[str, int]], done: int, facts: Start | None = None) -> None:
        """The stages of the run with their numbers of steps, of which `done` are behind it, and what it is made of."""

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None: ...

    def evaluating(self, stage: str, split: str, step: int, done: int, total: int) -> None:
        """An evaluation is under way: `done` of `total` examples are decoded; called before the first, too."""

    def evaluation(self, evaluation: Evaluation, samples: int) -> None: ...

    def message(self, text: str) -> None: ...

    def final(self, results: dict[str, Any], run: str, then: Sequence[str] = ()) -> None:
        """The table of a finished run, and the commands to type `then`."""

    def close(self) -> None: ...


def display(stream: TextIO | None = None) -> Display:
    """Rich on a terminal, plain lines elsewhere; on standard error, for standard output is a command's product.

    On a terminal that reports no size, or one too small for a bar, plain lines of a width that can be read.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        from tokenrl_cli.report.plain_display import Plain

        return Plain(stream)
    columns, lines = _size(stream)
    if columns < NARROW or lines < LOWEST:
        from tokenrl_cli.report.plain_display import Plain

        return Plain(stream, columns_of(columns))
    from tokenrl_cli.report.live_display import Live

    return Live(stream.drawn_on() if isinstance(stream, Screen) else stream)  # type: ignore[arg-type]


def _size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines, as the environment or else the terminal says; where nobody knows, those of old."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 80, 25
    given = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    return (int(given[0]) if given[0].isdecimal() else columns, int(given[1]) if given[1].isdecimal() else lines)
