"""Rich on a terminal: one bar over both stages, evaluations and samples above it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report import layout
from tokenrl_cli.report.shown import Shown
from tokenrl_cli.report.start import Start, named
from tokenrl_cli.report.tables import final_table, notes

SHOWN = (
    ("reward", "reward"),
    ("loss/nll", "nll"),
    ("loss/td", "td"),
    ("loss/consistency", "consistency"),
    ("tokens_per_second", "tokens/s"),
)
RL_WEIGHT = 5.0  # an RL step costs about this many of the warm start, until one was measured
BAR = 30  # cells of the bar, where there is room for it
SHORTEST = 8  # below that there is none


class Live:
    """Draws on one console. Text of the user's is never read as markup."""

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, highlight=False)
        unicode = (stream.encoding or "utf-8").lower().startswith("utf")
        self.ellipsis, self.strokes = ("…", "━─") if unicode else ("...", "#-")
        self.progress = Progress(_Line(self), console=self.console)
        self.under_way: bool = False  # the bar is drawn
        self.steps = (0, 0)  # done, of how many
        self.evaluated: tuple[str, int, int] | None = None  # what an evaluation under way looks at; done, of how many
        self.stage = "starting"
        self.metrics: list[str] = []
        self.left: dict[str, int] = {}  # steps of each stage still to do
        self.pace: dict[str, float] = {}  # seconds a step of each stage, a moving average
        self.last: tuple[float, int] | None = None
        self.shown = Shown()

    @property
    def width(self) -> int:
        return layout.columns_of(self.console.width)

    def start(self, title: str, stages: list[tuple[str, int]], done: int, facts: Start | None = None) -> None:
        self.message(title)
        if facts is not None:
            self.message(facts.line())
        self.left = dict(stages)
        for name, steps in stages:
            behind = min(done, steps)
            self.left[name], done = steps - behind, done - behind
        total = sum(steps for _, steps in stages)
        self.steps = (total - sum(self.left.values()), total)
        self._draw()

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if self.last is not None and step > self.last[1]:
            took = (now - self.last[0]) / (step - self.last[1])
            self.pace[stage] = 0.9 * self.pace.get(stage, took) + 0.1 * took
        self.last = (now, step)
        self.left[stage] = max(0, self.left.get(stage, 0) - 1)
        self.stage, self.steps = named(stage), (step, self.steps[1])
        self.metrics = [f"{short} {layout.number(metrics[name]):>6}" for name, short in SHOWN if name in metrics]

    def remaining(self) -> str:
        """Time left: each stage at its own measured pace, an RL stage not begun at a guess from the warm start's."""
        if not self.pace:
            return ""
        guess = self.pace.get("warm_start", 0.0) * RL_WEIGHT
        seconds = int(sum(steps * self.pace.get(stage, guess) for stage, steps in self.left.items()))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"

    def evaluating(self, stage: str, split: str, step: int, done: int, total: int) -> None:
        self.evaluated = (f"evaluating {split}, {named(stage)} step {step}", done, total)
        self._draw()

    def evaluation(self, evaluation: Evaluation, samples: int) -> None:
        lines = self.shown.lines(evaluation, samples, self.width, self.ellipsis)
        self._print(lines)
        self.evaluated = None
        self.last = None  # the time an evaluation takes is not a step's

    def message(self, text: str) -> None:
        self._print(layout.message(text, self.width), None)

    def final(self, results: dict[str, Any], run: str, then: Sequence[str] = ()) -> None:
        self.close()
        self._print(["", *layout.table(final_table(results), self.width), ""], 1)
        for line in notes(results, run, then):
            self.message(line)

    def close(self) -> None:
        self.progress.stop()

    def line(self) -> str:
        """The line of the bar: pieces that do not fit are left out whole, the least important first."""
        stage, (done, total), left, metrics = self.stage, self.steps, self.remaining(), self.metrics
        if self.evaluated is not None:
            (stage, done, total), left, metrics = self.evaluated, "", []
        count = f"{done:>{len(f'{total:,}')},}/{total:,}"
        pieces = [stage, count]
        room = self.width - 1 - layout.cells(f"{stage}  {count}")
        for piece in (left, *metrics):
            if piece and layout.cells(piece) + layout.GAP <= room - SHORTEST - 1:
                pieces.append(piece)
                room -= layout.cells(piece) + layout.GAP
        bar = min(BAR, room - 1)
        if bar >= SHORTEST:
            full = bar * done // max(total, 1)
            pieces[0] += f" {self.strokes[0] * full}{self.strokes[1] * (bar - full)}"
        return "  ".join(pieces)

    def _draw(self) -> None:
        if not self.under_way:
            self.under_way = True
            self.progress.add_task("")
            self.progress.start()

    def _print(self, lines: Sequence[str], bold: int | None = 0) -> None:
        """Whole lines, which the terminal wraps where they are longer than it; the `bold`-th is set off."""
        if self.console.width < 1:  # COLUMNS=0: nothing at all would be printed
            self.console.width = self.width
        for number, line in enumerate(lines):
            style = "bold" if bold is not None and number == bold else ""
            self.console.print(Text(layout.visible(line), style), soft_wrap=True)


class _Line(ProgressColumn):
    """The one column of the progress display."""

    def __init__(self, live: Live) -> None:
        super().__init__(Column(no_wrap=True, overflow="crop"))
        self.live = live

    def render(self, task: Task) -> Text:
        return Text(self.live.line(), no_wrap=True, overflow="crop")
