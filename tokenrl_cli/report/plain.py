"""One line an event, for a pipe or a file: no escapes, no wrapping."""

from __future__ import annotations

from typing import Any, TextIO

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report.tables import aligned, final_table, notes

SHOWN = ("reward", "loss/nll", "loss/td", "loss/consistency", "tokens_per_second")  # of a step
LINES = 20  # progress lines of a run


class Plain:
    """Whole lines, flushed."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.total = stream, 0

    def start(self, title: str, stages: list[tuple[str, int]], done: int) -> None:
        self.total = sum(steps for _, steps in stages)
        self.message(f"{title}: " + ", ".join(f"{name} {steps} steps" for name, steps in stages))

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        if step % max(1, self.total // LINES) == 0:
            values = "  ".join(f"{name} {metrics[name] + 0.0:.4g}" for name in SHOWN if name in metrics)
            self.message(f"{stage} {step}/{self.total}  {values}")

    def evaluation(self, evaluation: Evaluation, samples: int) -> None:
        values = "  ".join(f"{name} {value + 0.0:.4g}" for name, value in evaluation.metrics.items())
        self.message(f"{evaluation.stage} {evaluation.step} {evaluation.split} {evaluation.decode}  {values}")

    def message(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def final(self, results: dict[str, Any], run: str) -> None:
        for line in ["", *aligned(final_table(results)), ""]:
            self.message(line)
        for line in notes(results, run):
            self.message(line)

    def close(self) -> None:
        pass
