"""What the user sees of a run; which of two displays shows it depends on where the lines go."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO

from tokenrl_cli.interfaces import Evaluation


class Display(Protocol):
    """Shows a run; computes nothing that is kept."""

    def start(self, title: str, stages: list[tuple[str, int]], done: int) -> None:
        """The stages of the run with their numbers of steps, of which `done` are behind it."""

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None: ...

    def evaluation(self, evaluation: Evaluation, samples: int) -> None: ...

    def message(self, text: str) -> None: ...

    def final(self, results: dict[str, Any], run: str) -> None: ...

    def close(self) -> None: ...


def display(stream: TextIO | None = None) -> Display:
    """Rich on a terminal, plain lines elsewhere; on standard error, for standard output is a command's product."""
    stream = stream or sys.stderr
    if stream.isatty():
        from tokenrl_cli.report.live import Live

        return Live(stream)
    from tokenrl_cli.report.plain import Plain

    return Plain(stream)
