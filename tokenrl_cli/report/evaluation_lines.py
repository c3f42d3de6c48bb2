"""An evaluation in lines of text, beside what was shown before it; both displays draw it."""

from __future__ import annotations

import json

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report import layout
from tokenrl_cli.report.layout import number
from tokenrl_cli.report.run_header import named

LONGEST = 60  # cells of a text in a sample where no terminal says how many there are
HEADER = ["source", "hypothesis", "reference", "score"]


class Shown:
    """Remembers the evaluations of a run: what has changed since the last one, and which were the same."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, str, str], dict[str, float]] = {}  # by stage, split and decoding
        self.seen: dict[str, str] = {}  # what an evaluation said -> its title

    def lines(self, evaluation: Evaluation, samples: int, width: int | None, ellipsis: str = "…") -> list[str]:
        """The evaluation in lines of at most `width` cells; None: the numbers in one line of any length.

        An evaluation that said the same as one before it is named, not repeated. What the final table of a run will
        say is left to it, but for the samples of the last policy.
        """
        title = title_of(evaluation)
        if is_row(evaluation):
            told = sample_lines(evaluation, samples, width, ellipsis) if evaluation.stage == "final" else []
            return [title, *told] if told else []
        where = (evaluation.stage, evaluation.split, evaluation.decode)
        before = self.last.get(where, {})
        self.last[where] = evaluation.metrics
        said = json.dumps([evaluation.split, evaluation.decode, evaluation.metrics, evaluation.hypotheses])
        if (same := self.seen.setdefault(said, title)) != title:
            return [f"{title}: the same as {same}"]
        items = [
            (shortened(name), number(value), layout.change(value, before.get(name)))
            for name, value in evaluation.metrics.items()
        ]
        if width is None:
            values = [" ".join(part for part in item if part) for item in items]
            head = ["  ".join([title, *values])]
        else:
            head = [title, *(f"  {line}" for line in layout.grid(items, width - 2))]
        return head + sample_lines(evaluation, samples, width, ellipsis)


def is_row(evaluation: Evaluation) -> bool:
    """Whether the final table of a run shows it: the whole of test, at the end."""
    return evaluation.split == "test" and evaluation.stage != "eval"


def title_of(evaluation: Evaluation) -> str:
    return f"{named(evaluation.stage)} step {evaluation.step}, {evaluation.split}, {evaluation.decode}"


def shortened(metric: str) -> str:
    return metric.removeprefix("completions/")


def sample_lines(evaluation: Evaluation, samples: int, width: int | None, ellipsis: str) -> list[str]:
    """Source, hypothesis, the first reference and score of the first `samples` texts, one line each."""
    several = zip(evaluation.sources, evaluation.hypotheses, evaluation.references, evaluation.scores, strict=True)
    rows = [
        [*map(layout.visible, (source, hypothesis, references[0] if references else "")), number(score)]
        for source, hypothesis, references, score in list(several)[:samples]
    ]
    if not rows:
        return []
    room = 3 * (LONGEST + layout.GAP) + 8 if width is None else width - 2
    return [f"  {line}" for line in layout.table([HEADER, *rows], room, (0, 1, 2), ellipsis)]
