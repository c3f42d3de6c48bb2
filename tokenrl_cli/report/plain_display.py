"""One line an event, for a pipe or a file: no escapes, no wrapping. With a width, on a small terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report import layout
from tokenrl_cli.report.evaluation_lines import Shown
from tokenrl_cli.report.results_table import aligned, final_table, notes
from tokenrl_cli.report.run_header import Start, named

SHOWN = ("reward", "loss/nll", "loss/td", "loss/consistency", "tokens_per_second")  # of a step
LINES = 20  # progress lines of a run
QUIET = 10.0  # seconds after which an evaluation says how far it is


class Plain:
    """Whole lines, flushed."""

    def __init__(self, stream: TextIO, width: int | None = None) -> None:
        self.stream, self.width = stream, width
        self.total = 0  # steps of the run
        self.shown = Shown()
        self.clock = time.monotonic
        self.spoken = self.clock()  # when the last line was written

    def start(self, title: str, stages: list[tuple[str, int]], done: int, facts: Start | None = None) -> None:
        self.total = sum(steps for _, steps in stages)
        if facts is None:
            title += ": " + ", ".join(f"{name} {steps} steps" for name, steps in stages)
        self.message(title)
        if facts is not None:
            self.message(facts.line())

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        if step % max(1, self.total // LINES) == 0:
            values = "  ".join(f"{name} {layout.number(metrics[name]):>6}" for name in SHOWN if name in metrics)
            self.message(f"{named(stage)} {step:>{len(str(self.total))}}/{self.total}  {values}")

    def evaluating(self, stage: str, split: str, step: int, done: int, total: int) -> None:
        between = split == "val" and stage != "eval"  # between two steps, and short
        if (done == 0 and not between) or self.clock() - self.spoken >= QUIET:
            self.message(f"evaluating {split}, {named(stage)} step {step}: {done:,}/{total:,} examples")

    def evaluation(self, evaluation: Evaluation, samples: int) -> None:
        for line in self.shown.lines(evaluation, samples, self.width):
            self._write(line)

    def message(self, text: str) -> None:
        for line in layout.message(text, self.width):
            self._write(line)

    def final(self, results: dict[str, Any], run: str, then: Sequence[str] = ()) -> None:
        rows = final_table(results)
        for line in ["", *(aligned(rows) if self.width is None else layout.table(rows, self.width)), ""]:
            self._write(line)
        for line in notes(results, run, then):
            self.message(line)

    def close(self) -> None:
        pass

    def _write(self, line: str) -> None:
        self.spoken = self.clock()
        print(line, file=self.stream, flush=True)
