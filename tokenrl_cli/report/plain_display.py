"""The display of a run as plain lines without escape sequences: for a pipe, a file or a very small terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report import layout
from tokenrl_cli.report.evaluation_lines import EvaluationLines
from tokenrl_cli.report.results_table import aligned, closing_lines, final_table
from tokenrl_cli.report.run_header import RunHeader, stage_name

STEP_METRICS = ("reward", "loss/nll", "loss/td", "loss/consistency", "tokens_per_second")  # those of a step to print
LINES = 20  # progress lines in a whole run
QUIET = 10.0  # seconds without a line after which a running evaluation prints its progress


class PlainDisplay:
    """Prints a run to a stream, each line flushed (see `Display`). With a `width` lines are wrapped to it; else they
    have any length."""

    def __init__(self, stream: TextIO, width: int | None = None) -> None:
        self.stream, self.width = stream, width
        self.total = 0  # steps of the run
        self.evaluations = EvaluationLines()
        self.clock = time.monotonic
        self.printed = self.clock()  # when the last line was written

    def start(self, title: str, stages: list[tuple[str, int]], done: int, facts: RunHeader | None = None) -> None:
        """Prints the title, then the facts on a second line; without `facts` the number of steps of each of `stages`,
        (name, steps), after the title. `done` is not shown."""
        self.total = sum(steps for _, steps in stages)
        if facts is None:
            title += ": " + ", ".join(f"{name} {steps} steps" for name, steps in stages)
        self.message(title)
        if facts is not None:
            self.message(facts.line())

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        """Prints those metrics of a step that STEP_METRICS names, for about LINES (20) steps of a run, at equal
        distances; nothing at the other steps."""
        if step % max(1, self.total // LINES) == 0:  # LINES lines in a log, however long the run is
            values = "  ".join(f"{name} {layout.number(metrics[name]):>6}" for name in STEP_METRICS if name in metrics)
            self.message(f"{stage_name(stage)} {step:>{len(str(self.total))}}/{self.total}  {values}")

    def evaluating(self, stage: str, split: str, step: int, done: int, total: int) -> None:
        """Prints the progress of an evaluation at its start, and whenever nothing at all was printed for QUIET seconds.
        In a training run the start on val is not printed, as such an evaluation is mostly short, unless QUIET seconds
        were silent before it."""
        between_steps = split == "val" and stage != "eval"
        if (done == 0 and not between_steps) or self.clock() - self.printed >= QUIET:
            self.message(f"evaluating {split}, {stage_name(stage)} step {step}: {done:,}/{total:,} examples")

    def evaluation(self, evaluation: Evaluation, samples: int) -> None:
        """Prints a finished evaluation with its first `samples` texts. An evaluation whose numbers and texts are those
        of an earlier one gets a line that names that one and no more. Of the evaluations that the table of `final`
        shows, only that of the final policy is printed, without its numbers."""
        for line in self.evaluations.lines(evaluation, samples, self.width):
            self._write(line)

    def message(self, text: str) -> None:
        """Prints a message to the stream, flushed: control characters escaped, and wrapped to `width` if there is one,
        except messages with a command or the path of a run."""
        for line in layout.message(text, self.width):
            self._write(line)

    def final(self, results: dict[str, Any], run: str, then: Sequence[str] = ()) -> None:
        """Prints the final table, the findings, the directory of the run and the commands to type `then`."""
        rows = final_table(results)
        for line in ["", *(aligned(rows) if self.width is None else layout.table(rows, self.width)), ""]:
            self._write(line)
        for line in closing_lines(results, run, then):
            self.message(line)

    def close(self) -> None:
        """Does nothing: every line is written already."""

    def _write(self, line: str) -> None:
        """Prints a line, and remembers when."""
        self.printed = self.clock()
        print(line, file=self.stream, flush=True)
