"""The display of a run on a terminal, drawn with rich: one progress bar over both stages, evaluations above it."""

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
from tokenrl_cli.report.evaluation_lines import EvaluationLines
from tokenrl_cli.report.results_table import closing_lines, final_table
from tokenrl_cli.report.run_header import RunHeader, stage_name

STEP_METRICS = (  # name of a metric of a step -> its label beside the bar
    ("reward", "reward"),
    ("loss/nll", "nll"),
    ("loss/td", "td"),
    ("loss/consistency", "consistency"),
    ("tokens_per_second", "tokens/s"),
)
RL_WEIGHT = 5.0  # guess for the time left before any RL step was timed: seconds of an RL step / of a warm start step
BAR = 30  # width of the bar in terminal cells, if there is room
SHORTEST = 8  # the narrowest bar; with less room there is none


class LiveDisplay:
    """Shows a run on one console, with a bar in the last line that stays below what is printed (see `Display`).
    Brackets in texts of the user are printed as they are, never read as rich markup."""

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, highlight=False)
        unicode = (stream.encoding or "utf-8").lower().startswith("utf")
        self.ellipsis, self.strokes = ("…", "━─") if unicode else ("...", "#-")
        self.progress = Progress(_Line(self), console=self.console, transient=True)
        self.drawing: bool = False  # the bar is on the screen
        self.steps = (0, 0)  # steps done, steps in all
        self.evaluated: tuple[str, int, int] | None = None  # of a running evaluation: label, examples done, in all
        self.stage = "starting"
        self.metrics: list[str] = []
        self.left: dict[str, int] = {}  # steps left in each stage
        self.pace: dict[str, float] = {}  # seconds per step of each stage, a moving average
        self.last: tuple[float, int] | None = None  # time and number of the latest step
        self.evaluations = EvaluationLines()

    @property
    def width(self) -> int:
        """The width to format lines for, in terminal cells; it follows the size of the window."""
        return layout.layout_width(self.console.width)

    def start(self, title: str, stages: list[tuple[str, int]], done: int, facts: RunHeader | None = None) -> None:
        """Prints the title and the facts, and draws the bar; `done` steps of the stages, in their order, are done
        already."""
        self.message(title)
        if facts is not None:
            self.message(facts.line())
        self.left = dict(stages)
        for name, steps in stages:
            past = min(done, steps)
            self.left[name], done = steps - past, done - past
        total = sum(steps for _, steps in stages)
        self.steps = (total - sum(self.left.values()), total)
        self._draw()

    def step(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        """Advances the bar to `step`, one step of `stage`, with those of the metrics beside it that STEP_METRICS names;
        rich redraws it a few times a second. To be called for every step: the time left depends on the number of
        calls."""
        now = time.monotonic()
        if self.last is not None and step > self.last[1]:
            took = (now - self.last[0]) / (step - self.last[1])
            self.pace[stage] = 0.9 * self.pace.get(stage, took) + 0.1 * took
        self.last = (now, step)
        self.left[stage] = max(0, self.left.get(stage, 0) - 1)
        self.stage, self.steps = stage_name(stage), (step, self.steps[1])
        self.metrics = [f"{label} {layout.number(metrics[name]):>6}" for name, label in STEP_METRICS if name in metrics]

    def remaining(self) -> str:
        """Returns the estimated time left as text, such as "0:12:05 left", "" before the second step. Each stage counts
        at its own measured pace, a moving average; an RL stage that has not begun at RL_WEIGHT (5) times that of the
        warm start."""
        if not self.pace:
            return ""
        guess = self.pace.get("warm_start", 0.0) * RL_WEIGHT
        seconds = int(sum(steps * self.pace.get(stage, guess) for stage, steps in self.left.items()))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"

    def evaluating(self, stage: str, split: str, step: int, done: int, total: int) -> None:
        """Turns the bar to a running evaluation, of which `done` of `total` examples are decoded, until `evaluation` is
        called."""
        self.evaluated = (f"evaluating {split}, {stage_name(stage)} step {step}", done, total)
        self._draw()

    def evaluation(self, evaluation: Evaluation, samples: int) -> None:
        """Prints a finished evaluation with its first `samples` texts above the bar, which shows steps again. An
        evaluation whose numbers and texts are those of an earlier one gets a line that names that one and no more. Of
        the evaluations that the table of `final` shows, only that of the final policy is printed, without its
        numbers."""
        lines = self.evaluations.lines(evaluation, samples, self.width, self.ellipsis)
        self._print(lines)
        self.evaluated = None
        self.last = None  # or the time of the evaluation would count as a step's

    def message(self, text: str) -> None:
        """Prints a message above the bar, control characters escaped."""
        self._print(layout.message(text, self.width), None)

    def final(self, results: dict[str, Any], run: str, then: Sequence[str] = ()) -> None:
        """Removes the bar, and prints the final table, the findings, the directory of the run and the commands
        to type `then`."""
        self.close()
        self._print(["", *layout.table(final_table(results), self.width), ""], 1)
        for line in closing_lines(results, run, then):
            self.message(line)

    def close(self) -> None:
        """Removes the bar from the screen. Messages can still be printed, but the bar does not come back. May be called
        more than once."""
        self.progress.stop()

    def line(self) -> str:
        """Returns the text of the last line, for the present width: stage, bar, steps, time left and metrics; while an
        evaluation runs, its name, bar and number of examples. The time left, or a metric, is left out where it would
        leave less than SHORTEST (8) cells for the bar, and the bar where stage and steps leave less. These two are
        always there: where they are too wide, the caller crops the line."""
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
        bar = min(BAR, room - 1)  # what is left after the text
        if bar >= SHORTEST:
            full = bar * done // max(total, 1)
            pieces[0] += f" {self.strokes[0] * full}{self.strokes[1] * (bar - full)}"
        return "  ".join(pieces)

    def _draw(self) -> None:
        """Starts to draw the bar, which rich then redraws by itself."""
        if not self.drawing:
            self.drawing = True
            self.progress.add_task("")
            self.progress.start()

    def _print(self, lines: Sequence[str], bold: int | None = 0) -> None:
        """Prints lines, the one with index `bold` in bold type. The terminal wraps those that are too long."""
        if self.console.width < 1:  # with COLUMNS=0 rich would print nothing at all
            self.console.width = self.width
        for number, line in enumerate(lines):
            style = "bold" if bold is not None and number == bold else ""
            self.console.print(Text(layout.escaped(line), style), soft_wrap=True)


class _Line(ProgressColumn):
    """The only column of rich's progress display: the text of `LiveDisplay.line`."""

    def __init__(self, live: LiveDisplay) -> None:
        super().__init__(Column(no_wrap=True, overflow="crop"))
        self.live = live

    def render(self, task: Task) -> Text:
        """The current text of the bar; rich calls this at each redraw."""
        return Text(self.live.line(), no_wrap=True, overflow="crop")
