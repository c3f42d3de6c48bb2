"""Rich on a terminal: one bar over both stages, tables of evaluations and samples above it."""

from __future__ import annotations

import time
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report.tables import final_table, notes, number

SHOWN = (
    ("reward", "reward"),
    ("loss/nll", "nll"),
    ("loss/td", "td"),
    ("loss/consistency", "consistency"),
    ("tokens_per_second", "tokens/s"),
)
RL_WEIGHT = 5.0  # an RL step costs about this many of the warm start, until one was measured
WIDE = 100  # columns from which an evaluation is drawn as a table
LONGEST = 200  # characters of a sample shown


class Live:
    """Draws on one console. Text of the user's is never read as markup."""

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.fields[shown]}", markup=False),
            console=self.console,
        )
        self.bar: Any = None
        self.left: dict[str, int] = {}  # steps of each stage still to do
        self.pace: dict[str, float] = {}  # seconds a step of each stage, a moving average
        self.last: tuple[float, int] | None = None

    def start(self, title: str, stages: list[tuple[str, int]], done: int) -> None:
        self.message(title)
        self.left = dict(stages)
        for name, steps in stages:
            behind = min(done, steps)
            self.left[name], done = steps - behind, done - behind
        total = sum(steps for _, steps in stages)
        behind = total - sum(self.left.values())
        self.bar = self.progress.add_task("starting", total=total, completed=behind, left="", shown="")
        self.progress.start()

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if self.last is not None and step > self.last[1]:
            took = (now - self.last[0]) / (step - self.last[1])
            self.pace[stage] = 0.9 * self.pace.get(stage, took) + 0.1 * took
        self.last = (now, step)
        self.left[stage] = max(0, self.left.get(stage, 0) - 1)
        shown = "  ".join(f"{short} {metrics[name]:,.3g}" for name, short in SHOWN[:-1] if name in metrics)
        if "tokens_per_second" in metrics:
            shown += f"  {metrics['tokens_per_second']:,.0f} tokens/s"
        if self.bar is not None:
            name, left = stage.replace("_", " "), self.remaining()
            self.progress.update(self.bar, completed=step, description=name, left=left, shown=shown)

    def remaining(self) -> str:
        """Time left: each stage at its own measured pace, an RL stage not begun at a guess from the warm start's."""
        if not self.pace:
            return ""
        guess = self.pace.get("warm_start", 0.0) * RL_WEIGHT
        seconds = int(sum(steps * self.pace.get(stage, guess) for stage, steps in self.left.items()))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"

    def evaluation(self, evaluation: Evaluation, samples: int) -> None:
        title = f"{evaluation.stage.replace('_', ' ')} step {evaluation.step}, {evaluation.split}, {evaluation.decode}"
        values = {name.removeprefix("completions/"): number(value) for name, value in evaluation.metrics.items()}
        if self.console.width >= WIDE:
            self._table([list(values), list(values.values())], title, 0)
        else:
            self.message(f"{title}: " + "  ".join(f"{name} {value}" for name, value in values.items()))
        said = zip(evaluation.sources, evaluation.hypotheses, evaluation.references, evaluation.scores, strict=True)
        shown = [
            [*(text[:LONGEST] for text in (source, hypothesis, references[0] if references else "")), number(score)]
            for source, hypothesis, references, score in list(said)[:samples]
        ]
        if shown:
            self._table([["source", "hypothesis", "reference", "score"], *shown], None, 3)
        self.last = None  # the time an evaluation takes is not a step's

    def message(self, text: str) -> None:
        self.console.print(Text(text))

    def final(self, results: dict[str, Any], run: str) -> None:
        self.close()
        self._table(final_table(results), None, 1)
        for line in notes(results, run):
            self.message(line)

    def close(self) -> None:
        self.progress.stop()

    def _table(self, rows: list[list[str]], title: str | None, right: int) -> None:
        """The first line is the header; columns from the `right`-th on stand to the right."""
        table = Table(title=None if title is None else Text(title), title_justify="left")
        for i, name in enumerate(rows[0]):
            table.add_column(Text(name), justify="right" if i >= right else "left", overflow="fold")
        for row in rows[1:]:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table)
