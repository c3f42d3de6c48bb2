"""What the user sees: Rich on a terminal, plain lines in a pipe or a file."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO

from tokenrl_cli.interfaces import Evaluation

SHOWN = ("reward", "loss/nll", "loss/td", "tokens_per_second")  # of a step


class Display(Protocol):
    """Shows a run; computes nothing."""

    def start(self, title: str, stages: list[tuple[str, int]], done: int) -> None: ...

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None: ...

    def evaluation(self, evaluation: Evaluation, samples: int) -> None: ...

    def message(self, text: str) -> None: ...

    def final(self, results: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def display(stream: TextIO | None = None) -> Display:
    """On standard error: standard output is for what a command produces."""
    return Plain(stream or sys.stderr)


class Plain:
    """One line an event, no escapes, no wrapping."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.total = 0

    def start(self, title: str, stages: list[tuple[str, int]], done: int) -> None:
        self.total = sum(steps for _, steps in stages)
        self.message(f"{title}: " + ", ".join(f"{name} {steps} steps" for name, steps in stages))

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        if step % max(1, self.total // 20) == 0:
            values = "  ".join(f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics)
            self.message(f"{stage} {step}/{self.total}  {values}")

    def evaluation(self, evaluation: Evaluation, samples: int) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in evaluation.metrics.items())
        self.message(f"{evaluation.stage} {evaluation.step} {evaluation.split} {evaluation.decode}  {values}")

    def message(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def final(self, results: dict[str, Any]) -> None:
        for name, metrics in results["test"].items():
            self.message(f"{name}  " + "  ".join(f"{key} {value:.4g}" for key, value in metrics.items()))
        for name, change in results["difference"].items():
            self.message(f"{name} {change['mean']:+.4g} [{change['low']:+.4g}, {change['high']:+.4g}] p {change['p']:.3g}")

    def close(self) -> None:
        pass
