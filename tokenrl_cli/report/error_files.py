"""The files that show the errors of an evaluation: alignments, the table, and transcripts that NIST's tools read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenrl_cli.data.lines import well_formed
from tokenrl_cli.files import disk, writing
from tokenrl_cli.metrics.alignments import Alignment, Confusions
from tokenrl_cli.report.error_table import ErrorReport, Utterance, error_rows, over_speakers
from tokenrl_cli.report.evaluation_folder import file_name
from tokenrl_cli.report.layout import cells, escaped, padded
from tokenrl_cli.report.results_table import aligned

WIDTH = 100  # terminal cells of a line of alignments.txt; a longer alignment goes on below
NAMES = ("alignments.jsonl", "alignments.txt", "errors.txt", "hypotheses.trn", "references.trn")
SPACE = "␣"  # stands in alignments.txt for white space that is a token, as it is where characters are compared
HELD = re.compile(r"[\s%(){};\x00-\x1f\x7f]")  # what means something in a trn file, or would end a word


def write_errors(folder: Path, reports: Mapping[str, ErrorReport], summaries: Mapping[str, dict[str, Any]]) -> None:
    """Writes the files NAMES for each error rate into a folder below `folder` that has its name, over those of an
    earlier evaluation. `summaries` are the results of `error_summary`, by metric. Raises OSError where the system
    refuses."""
    for stale in folder.glob(f"*/{NAMES[0]}"):  # an interrupted evaluation may have left those of other metrics
        disk.discard(stale.parent)
    for name, report in reports.items():
        place = folder / file_name([name])
        disk.discard(place)
        place.mkdir()
        texts = (
            "".join(_json(each) for each in report.utterances),
            "\n".join(line for each in report.utterances for line in alignment_lines(each)) + "\n",
            "\n".join(table_lines(name, report, summaries[name])) + "\n",
            *transcripts(report),
        )
        for file, text in zip(NAMES, texts, strict=True):
            writing.write(place / file, text)


def _json(utterance: Utterance) -> str:
    """A line of alignments.jsonl."""
    found: dict[str, Any] = {"id": utterance.id}
    if utterance.speaker is not None:
        found["speaker"] = utterance.speaker
    alignment = utterance.alignment
    if alignment is None:
        found |= {"operations": None, "reference": None, "hypothesis": utterance.tokens, "choice": None}
    else:
        found |= vars(alignment)
    return json.dumps(found, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------------- alignments to be read


def alignment_lines(utterance: Utterance) -> list[str]:
    """Returns the lines that show the errors of an utterance in place, in the manner of sclite's pra: tokens that are
    wrong in capital letters, asterisks where a token is missing, and below them S, D or I. A blank line ends them."""
    speaker = "" if utterance.speaker is None else f", speaker {utterance.speaker}"
    head = f"id: {escaped(utterance.id)}{escaped(speaker)}"
    if utterance.alignment is None:
        return [head, "no reference", ""]
    counts = utterance.alignment.counts
    numbers = f"{counts.correct} {counts.substitutions} {counts.deletions} {counts.insertions}"
    return [head, f"counts: C S D I = {numbers}", *_shown(utterance.alignment), ""]


def _shown(alignment: Alignment) -> Iterator[str]:
    """The alignment in groups of three lines: reference, hypothesis, operations."""
    rows: tuple[list[str], ...] = ([], [], [])
    used = 0
    for operation, *pair in zip(alignment.operations, alignment.reference, alignment.hypothesis, strict=True):
        words = [_shown_token(token, operation) for token in dict.fromkeys(pair)]  # a correct token is the same in both
        width = max(map(cells, words))
        if used and used + width + 1 > WIDTH:
            yield from _named(rows)
            rows, used = ([], [], []), 0
        used += width + 1
        filled = [padded(word or "*" * width, width) for word in words]
        below = ("" if operation == "C" else operation).ljust(width)
        for row, word in zip(rows, (filled[0], filled[-1], below), strict=True):
            row.append(word)
    yield from _named(rows)


def _shown_token(token: str | None, operation: str) -> str:
    if token is None:
        return ""
    text = SPACE if token.isspace() else escaped(token)
    return text if operation == "C" else text.upper()


def _named(rows: tuple[list[str], ...]) -> Iterator[str]:
    for name, row in zip(("REF: ", "HYP: ", "Eval:"), rows, strict=True):
        yield " ".join([name, *row]).rstrip()


# --------------------------------------------------------------------------------------------------------- the table


def table_lines(name: str, report: ErrorReport, summary: dict[str, Any]) -> list[str]:
    """Returns the lines of errors.txt: counts and per cent by speaker and in all, the intervals of the metric `name`,
    and how often each token was mistaken. `summary` is the result of `error_summary`."""
    found = summary["intervals"]["utterances"]
    over = "no interval over utterances" if found is None else f"95 % [{found[0]:.4g}, {found[1]:.4g}] over utterances"
    lines = [
        *aligned(error_rows(summary, f"{name}, counts", per_cent=False, speakers=True)),
        "",
        *aligned(error_rows(summary, f"{name}, %", per_cent=True, speakers=True)),
        "",
        f"{name} {report.score.value:.4g}  {report.score.signature}",
        over,
    ]
    lines += [] if summary["speakers"] is None else [over_speakers(summary)]
    return [escaped(line) for line in [*lines, *_confusion_lines(report.confusions)]]


def _confusion_lines(found: Confusions) -> Iterator[str]:
    pairs = [(count, f"{_word(one)} -> {_word(other)}") for one, other, count in found.substitutions]
    single = {"deletions": found.deletions, "insertions": found.insertions}
    rest = {name: [(count, _word(token)) for token, count in rows] for name, rows in single.items()}
    for title, rows in {"substitutions, reference -> hypothesis": pairs, **rest}.items():
        yield from ("", f"{title}: {sum(count for count, _ in rows)}", *(f"{count:6}  {text}" for count, text in rows))


def _word(token: str) -> str:
    return SPACE if token.isspace() else token


# --------------------------------------------------------------------------------------- transcripts for other tools


def transcripts(report: ErrorReport) -> tuple[str, str]:
    """Returns the content of hypotheses.trn and references.trn: of each utterance with a reference a line "text
    (speaker-id)", or "text (id)" without a speaker; the reference is the one that the hypothesis is aligned to.

    What a word or a name cannot hold in this format (white space, brackets and braces, semicolons, control characters),
    and the per cent sign, is written as %XX, the bytes of its UTF-8 code, and so is a hyphen or underscore of a
    speaker: the first one ends the speaker's name. An id that occurs again gets +2, +3 ...
    """
    seen: Counter[str] = Counter()
    hypotheses: list[str] = []
    references: list[str] = []
    for each in report.utterances:
        if each.alignment is None:
            continue
        speaker = "" if each.speaker is None else f"{re.sub('[-_]', _coded, held(each.speaker))}-"
        name = f"{speaker}{held(each.id)}"
        seen[name] += 1
        name += f"+{seen[name]}" if seen[name] > 1 else ""
        given = [token for token in each.alignment.reference if token is not None]
        for lines, tokens in ((hypotheses, each.tokens), (references, given)):
            words = "".join(tokens).split() if report.unit == "characters" else tokens
            lines.append(" ".join([*map(held, words), f"({name})\n"]))
    return "".join(hypotheses), "".join(references)


def held(word: str) -> str:
    """Returns a word as a trn file can hold it; urllib.parse.unquote restores it."""
    return HELD.sub(_coded, well_formed(word))


def _coded(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())
