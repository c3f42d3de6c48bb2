"""The errors behind an error rate, counted as speech recognition reports them (NIST's sclite): in all, by speaker, and
by the tokens that were mistaken for one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tokenrl_cli.interfaces import CorpusScore, Evaluation
from tokenrl_cli.metrics.alignments import Alignment, Confusions, Counts, added, align_best, confusions
from tokenrl_cli.metrics.significance import FEWEST_BLOCKS, bootstrap_interval, by_block
from tokenrl_cli.report.results import RESAMPLES, SEED
from tokenrl_cli.report.results_table import aligned
from tokenrl_cli.reward.error_rate import ErrorRate

NO_SPEAKER = "-"  # the name of the block of all utterances without one, where others have a speaker
MOST_CONFUSIONS = 100  # of each kind in results.json; the table in the folder has all
COLUMNS = {  # head -> key of a row of counts; the number of tokens stands before them
    "Corr": "correct",
    "Sub": "substitutions",
    "Del": "deletions",
    "Ins": "insertions",
    "Err": "errors",
    "S.Err": "sentence_errors",
}


@dataclass(frozen=True)
class Utterance:
    """One example of a split that was decoded."""

    id: str
    speaker: str | None  # None where the data name none
    tokens: list[str]  # those of the hypothesis that the metric compares
    alignment: Alignment | None  # to the best of its references; None without a reference


@dataclass(frozen=True)
class ErrorReport:
    """The alignments of all utterances of an evaluation for one error rate."""

    unit: str  # "words", "characters" or "phones"
    utterances: list[Utterance]  # in the order of the split
    score: CorpusScore  # of the metric, with the statistics of each utterance

    @property
    def speakers(self) -> list[str] | None:
        """The speaker of each utterance, NO_SPEAKER for one without; None if none has one."""
        if all(each.speaker is None for each in self.utterances):
            return None
        return [NO_SPEAKER if each.speaker is None else each.speaker for each in self.utterances]

    @cached_property
    def confusions(self) -> Confusions:
        """The errors of all utterances, counted by their tokens."""
        return confusions(each.alignment for each in self.utterances if each.alignment is not None)


def error_report(
    metric: ErrorRate, score: CorpusScore, evaluation: Evaluation, ids: Sequence[str], speakers: Sequence[str | None]
) -> ErrorReport:
    """Returns the alignment of each hypothesis of an evaluation to that of its references which gives the lowest rate
    of errors, with the tokens that the metric compares. `score` is the metric's own of this evaluation; `ids` and
    `speakers` are those of its examples, in the same order."""
    rows = zip(ids, speakers, evaluation.hypotheses, evaluation.references, strict=True)
    utterances = []
    for name, speaker, hypothesis, references in rows:
        tokens, given = metric.tokens(hypothesis), [metric.tokens(text) for text in references]
        utterances.append(Utterance(name, speaker, tokens, align_best(given, tokens) if given else None))
    return ErrorReport(metric.unit, utterances, score)


def error_summary(report: ErrorReport) -> dict[str, Any]:
    """Returns the tables of a report as plain values for JSON.

    `all` is a row of counts, `speakers` one for each speaker (None if the data name none): `utterances` with a
    reference, `tokens` of their references, correct ones, substitutions, deletions, insertions, `errors` (the three
    together), `sentence_errors` (utterances with any), and `per_cent`, the same but for the first two over the tokens,
    sentence errors over the utterances. `intervals` are those of the metric, on its scale, as (low, high) of a 95 %
    bootstrap: over `utterances`, and over `speakers`, drawn with replacement, each with all its utterances. Either is
    None where there is none, that over speakers with fewer than FEWEST_BLOCKS (4). `confusions` has the MOST_CONFUSIONS
    (100) most frequent substitutions (token of the reference, token of the hypothesis, count), deletions and insertions
    (token, count).
    """
    speakers = report.speakers
    by_speaker = None
    blocks: tuple[float, float] | tuple[None, None] = None, None
    if speakers is not None:
        several: dict[str, list[Alignment]] = {}
        for name, each in zip(speakers, report.utterances, strict=True):
            if each.alignment is not None:
                several.setdefault(name, []).append(each.alignment)
        by_speaker = {name: _row(several[name]) for name in sorted(several)}
        blocks = bootstrap_interval(by_block(report.score, speakers), RESAMPLES, SEED, FEWEST_BLOCKS)
    found = {name: rows[:MOST_CONFUSIONS] for name, rows in vars(report.confusions).items()}
    return {
        "unit": report.unit,
        "all": _row([each.alignment for each in report.utterances if each.alignment is not None]),
        "speakers": by_speaker,
        "intervals": {
            "utterances": _pair(bootstrap_interval(report.score, RESAMPLES, SEED)),
            "speakers": _pair(blocks),
        },
        "confusions": found,
    }


def _pair(interval: tuple[float, float] | tuple[None, None]) -> list[float] | None:
    low, high = interval
    return None if low is None or high is None else [low, high]


def _row(alignments: list[Alignment]) -> dict[str, Any]:
    """The counts of some utterances and their per cent."""
    each = [alignment.counts for alignment in alignments]
    total = added(each)
    wrong = sum(counts.errors > 0 for counts in each)
    row = {"utterances": len(each), "tokens": total.length}
    row |= asdict(total) | {"errors": total.errors, "sentence_errors": wrong}
    return row | {"per_cent": _shares(total, wrong, len(each))}


def _shares(total: Counts, wrong: int, utterances: int) -> dict[str, float]:
    shares = {name: 100 * count / max(total.length, 1) for name, count in asdict(total).items()}
    return shares | {"errors": 100 * total.rate, "sentence_errors": 100 * wrong / max(utterances, 1)}


def error_rows(summary: dict[str, Any], name: str, per_cent: bool, speakers: bool) -> list[list[str]]:
    """Returns the cells of a table, header first: a row for each speaker, if there are any and `speakers`, and one of
    all. `summary` is the result of `error_summary`, `name` that of the metric, which heads the first column; the errors
    are counts, or with `per_cent` as sclite's table has them."""
    head = [name, "Utterances", summary["unit"].capitalize(), *COLUMNS]
    named = list((summary["speakers"] or {}).items()) if speakers else []
    rows = []
    for who, row in [*named, ("all", summary["all"])]:
        cells = [f"{row['per_cent'][key]:.1f}" if per_cent else str(row[key]) for key in COLUMNS.values()]
        rows.append([who, str(row["utterances"]), str(row["tokens"]), *cells])
    return [head, *rows]


def error_lines(summary: dict[str, Any], name: str) -> list[str]:
    """Returns the lines that the screen shows of a `summary` (`error_summary`) of the metric `name`: the table of all
    utterances in per cent, and the interval over speakers, or why there is none, where the data name speakers."""
    lines = aligned(error_rows(summary, f"{name}, %", per_cent=True, speakers=False))
    return lines if summary["speakers"] is None else [*lines, f"{name} {over_speakers(summary)}"]


def over_speakers(summary: dict[str, Any]) -> str:
    """Returns the interval over speakers as a text, or why there is none."""
    number = len(summary["speakers"] or {})
    found = summary["intervals"]["speakers"]
    if found is not None:
        return f"95 % [{found[0]:.4g}, {found[1]:.4g}] over {number} speakers"
    if number < FEWEST_BLOCKS:
        what = "speaker" if number == 1 else "speakers"
        return f"no interval over speakers: {number} {what}, and fewer than {FEWEST_BLOCKS} say nothing of others"
    return "no interval over speakers: all have the same rate, or it is no number"
