"""What `tokenrl eval` says of error rates beyond their value, and their comparison with another evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenrl_cli.report.error_files import alignment_lines
from tokenrl_cli.report.error_table import ErrorReport, error_report
from tokenrl_cli.reward.error_rate import ErrorRate

if TYPE_CHECKING:
    from tokenrl_cli.interfaces import Evaluation
    from tokenrl_cli.report.display import Display
    from tokenrl_cli.run.task import Task

SHOWN = 3  # utterances with their errors on the screen
SPEAKER = "speaker"  # the column of the data that names who spoke


def error_reports(task: Task, evaluation: Evaluation) -> dict[str, ErrorReport]:
    """Returns a report for each error rate among the corpus scores of an evaluation of `task`, its reward included, by
    name; {} if there is none. The ids of its examples and their speakers are read from the data set."""
    from tokenrl_cli.episodes.scoring import name_of

    metrics = {name_of(task.reward): task.reward, **task.metrics}
    rates = {name: each for name, each in metrics.items() if isinstance(each, ErrorRate) and name in evaluation.corpus}
    if not rates:
        return {}
    examples = [task.dataset.example(evaluation.split, index) for index in range(len(evaluation.hypotheses))]
    ids = [each.id for each in examples]
    named = [each.columns.get(SPEAKER) for each in examples]
    speakers = [None if each is None else str(each) for each in named]
    scores = evaluation.corpus
    return {name: error_report(each, scores[name], evaluation, ids, speakers) for name, each in rates.items()}


def show_alignments(display: Display, reports: dict[str, ErrorReport]) -> None:
    """Shows the first SHOWN (3) utterances that have errors, by the first of the error rates, with the errors in place;
    nothing where there is no error rate or no error."""
    for name, report in list(reports.items())[:1]:
        wrong = [each for each in report.utterances if each.alignment and each.alignment.counts.errors]
        for utterance in wrong[:SHOWN]:
            display.message(f"{name}, {alignment_lines(utterance)[0]}")
            for line in alignment_lines(utterance)[2:-1]:
                display.message(f"  {line}")


def require_comparable(against: str | None, split: str) -> None:
    """Raises UserError if `against`, the folder of an evaluation or a run, has no evaluation of the split, so that this
    is known before anything is decoded. None is no mistake."""
    from tokenrl_cli.report.paired_errors import evaluations

    if against is not None:
        evaluations(Path(against), split)


def show_difference(display: Display, folder: Path, against: str | None, split: str) -> None:
    """Compares the error rates of the evaluation in `folder` with those in `against`, the folder of another evaluation
    or a run that has one of the same `split`; shows the differences, and writes them to against.json in `folder`. Does
    nothing where `against` is None. Raises UserError where the two cannot be compared."""
    from tokenrl_cli.report.paired_errors import difference_lines, evaluation_of, write_differences

    if against is not None:
        other = evaluation_of(Path(against), split, folder)
        for line in difference_lines(write_differences(folder, other)):
            display.message(line)
