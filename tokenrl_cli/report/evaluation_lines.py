"""An evaluation as lines of text, with the changes since the evaluation before it. Both displays print them."""

from __future__ import annotations

import json

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.report import layout
from tokenrl_cli.report.layout import number
from tokenrl_cli.report.run_header import stage_name

LONGEST = 60  # width of each text of a sample, in terminal cells, if no terminal gives its width
HEADER = ["source", "hypothesis", "reference", "score"]


class EvaluationLines:
    """Formats evaluations, and remembers them to show what has changed and which were identical."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, str, str], dict[str, float]] = {}  # the latest metrics by stage, split and decoding
        self.seen: dict[str, str] = {}  # JSON of an evaluation's metrics and texts -> its title

    def lines(self, evaluation: Evaluation, samples: int, width: int | None, ellipsis: str = "…") -> list[str]:
        """Returns the lines that show an evaluation and its first `samples` texts, and remembers its numbers for the
        next call.

        Lines are laid out for `width` terminal cells; with None the numbers stand in one line of any length. `ellipsis`
        ends a text that is cut. Changes are from the evaluation before with the same stage, split and decoding. An
        evaluation with the same split, decoding, metrics and texts as an earlier one is one line that names the earlier
        one. Of an evaluation that the final table of the run will show only the title and the samples of the final
        policy are given, [] for the other policies and where `samples` is 0: its numbers are left to that table.
        """
        title = title_of(evaluation)
        if in_final_table(evaluation):
            texts = sample_lines(evaluation, samples, width, ellipsis) if evaluation.stage == "final" else []
            return [title, *texts] if texts else []
        where = (evaluation.stage, evaluation.split, evaluation.decode)
        before = self.last.get(where, {})
        self.last[where] = evaluation.metrics
        content = json.dumps([evaluation.split, evaluation.decode, evaluation.metrics, evaluation.hypotheses])
        if (same := self.seen.setdefault(content, title)) != title:
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


def in_final_table(evaluation: Evaluation) -> bool:
    """Returns whether the final table of a run shows this evaluation: one of the whole test split at the end of
    `train`."""
    return evaluation.split == "test" and evaluation.stage != "eval"


def title_of(evaluation: Evaluation) -> str:
    """Returns the heading of an evaluation, such as "RL step 100, val, greedy"."""
    return f"{stage_name(evaluation.stage)} step {evaluation.step}, {evaluation.split}, {evaluation.decode}"


def shortened(metric: str) -> str:
    """Returns the name of a metric without the prefix "completions/"."""
    return metric.removeprefix("completions/")


def sample_lines(evaluation: Evaluation, samples: int, width: int | None, ellipsis: str) -> list[str]:
    """Returns a table of the first `samples` texts, header first: source, hypothesis, first reference and reward, one
    line per example, whose texts are cut where they do not fit (blocks of lines if `width` is too small for columns).
    With `width` None the three texts share about 3 * LONGEST (60) cells. `ellipsis` ends a text that is cut. [] without
    an example."""
    several = zip(evaluation.sources, evaluation.hypotheses, evaluation.references, evaluation.scores, strict=True)
    rows = [
        [*map(layout.escaped, (source, hypothesis, references[0] if references else "")), number(score)]
        for source, hypothesis, references, score in list(several)[:samples]
    ]
    if not rows:
        return []
    room = 3 * (LONGEST + layout.GAP) + 8 if width is None else width - 2
    return [f"  {line}" for line in layout.table([HEADER, *rows], room, (0, 1, 2), ellipsis)]
