"""Counts, tables and files of errors, of an example worked out by hand:

    ann  the cat sat on the mat       the cat sat on the mat    6 correct
    ann  a dog ran                    a dog can                 2 correct, 1 substitution
    bob  one two three                one three                 2 correct, 1 deletion
    bob  stop                         please stop now           1 correct, 2 insertions
    bob  go home | go back home       go back hole              of the second: 2 correct, 1 substitution (1/3 < 2/2)

Together 6 + 3 + 3 + 1 + 3 = 16 words, 13 correct, 2 + 1 + 2 = 5 errors (31.25 %), in 4 of 5 utterances: ann has 1 error
in 9 words, bob 4 in 7.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from tests.reward.said import error_rate, texts
from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.metrics.significance import bootstrap_interval
from tokenrl_cli.report.error_files import NAMES, write_errors
from tokenrl_cli.report.error_table import ErrorReport, error_lines, error_report, error_rows, error_summary
from tokenrl_cli.reward.error_rate import ErrorRate

FIVE = [
    ("the cat sat on the mat", ["the cat sat on the mat"]),
    ("a dog can", ["a dog ran"]),
    ("one three", ["one two three"]),
    ("please stop now", ["stop"]),
    ("go back hole", ["go home", "go back home"]),
]
SPEAKERS = ["ann", "ann", "bob", "bob", "bob"]


def reported(
    pairs: list[tuple[str, list[str]]],
    speakers: list[Any] | None = None,
    ids: list[str] | None = None,
    metric: ErrorRate | None = None,
) -> ErrorReport:
    metric = metric or error_rate("words")
    seen = texts(pairs)
    sources, scores = [""] * len(pairs), [0.0] * len(pairs)
    evaluation = Evaluation(0, "eval", "test", "greedy", {}, {}, seen.hypotheses, seen.references, sources, scores)
    names = ids or [str(i + 1) for i in range(len(pairs))]
    return error_report(metric, metric.corpus(seen), evaluation, names, speakers or [None] * len(pairs))


def random_pairs(count: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    rng = np.random.default_rng(seed)

    def sentence() -> str:
        return " ".join(rng.choice(list("abcde"), rng.integers(1, 9)))

    return [(sentence(), [sentence() for _ in range(rng.integers(1, 4))]) for _ in range(count)]


def counts(row: dict[str, Any]) -> list[int]:
    return [value for name, value in row.items() if name != "per_cent"]


def test_the_example_counted_by_hand() -> None:
    found = error_summary(reported(FIVE, SPEAKERS))
    assert list(found["all"]) == [
        "utterances", "tokens", "correct", "substitutions", "deletions", "insertions", "errors", "sentence_errors",
        "per_cent",
    ]  # fmt: skip
    assert counts(found["all"]) == [5, 16, 13, 2, 1, 2, 5, 4]
    assert {name: counts(row) for name, row in found["speakers"].items()} == {
        "ann": [2, 9, 8, 1, 0, 0, 1, 1],
        "bob": [3, 7, 5, 1, 1, 2, 4, 3],
    }
    assert found["all"]["per_cent"] == pytest.approx({
        "correct": 1300 / 16, "substitutions": 200 / 16, "deletions": 100 / 16, "insertions": 200 / 16,
        "errors": 500 / 16, "sentence_errors": 80,
    })  # fmt: skip
    assert found["confusions"] == {
        "substitutions": [("home", "hole", 1), ("ran", "can", 1)],
        "deletions": [("two", 1)],
        "insertions": [("now", 1), ("please", 1)],
    }


@pytest.mark.parametrize("unit", ["words", "characters", "phones"])
def test_errors_are_the_numerator_of_the_metric_and_tokens_its_denominator(unit: Any) -> None:
    report = reported(
        [*random_pairs(60), ("", ["a"]), ("a b", [""]), (" a\tb  c ", ["a b c"])], metric=error_rate(unit)
    )
    found = [each.alignment.counts for each in report.utterances if each.alignment is not None]
    assert [(each.errors, each.length) for each in found] == [tuple(row) for row in report.score.statistics]
    row = error_summary(report)["all"]
    assert row["errors"] == row["substitutions"] + row["deletions"] + row["insertions"]
    assert row["errors"] / row["tokens"] == report.score.value


def test_an_utterance_without_a_reference_counts_nowhere() -> None:
    found = error_summary(reported([*FIVE, ("more words", [])], [*SPEAKERS, "cid"]))
    assert counts(found["all"]) == [5, 16, 13, 2, 1, 2, 5, 4]
    assert list(found["speakers"]) == ["ann", "bob"]


def test_the_tables_have_a_row_a_speaker_and_one_of_all() -> None:
    summary = error_summary(reported(FIVE, SPEAKERS))
    assert error_rows(summary, "wer", per_cent=False, speakers=True) == [
        ["wer", "Utterances", "Words", "Corr", "Sub", "Del", "Ins", "Err", "S.Err"],
        ["ann", "2", "9", "8", "1", "0", "0", "1", "1"],
        ["bob", "3", "7", "5", "1", "1", "2", "4", "3"],
        ["all", "5", "16", "13", "2", "1", "2", "5", "4"],
    ]
    assert error_lines(summary, "wer") == [
        "wer, %  Utterances  Words  Corr   Sub  Del   Ins   Err  S.Err",
        "all              5     16  81.2  12.5  6.2  12.5  31.2   80.0",
        "wer no interval over speakers: 2 speakers, and fewer than 4 say nothing of others",
    ]


def test_four_speakers_have_an_interval_and_three_have_none() -> None:
    pairs = random_pairs(40)
    four = error_summary(reported(pairs, [name for name in "abcd" for _ in range(10)]))
    low, high = four["intervals"]["speakers"]
    assert low < four["all"]["errors"] / four["all"]["tokens"] < high
    assert f"[{low:.4g}, {high:.4g}] over 4 speakers" in error_lines(four, "wer")[-1]
    three = error_summary(reported(pairs, [name for name in "abc" for _ in range(10)] + ["a"] * 10))
    assert three["intervals"]["speakers"] is None
    assert three["intervals"]["utterances"] == list(bootstrap_interval(reported(pairs).score, 1000, 12345))
    none = error_summary(reported(pairs))
    assert (none["speakers"], none["intervals"]["speakers"]) == (None, None)
    assert len(error_lines(none, "wer")) == 2


def written(folder: Path, report: ErrorReport) -> dict[str, str]:
    write_errors(folder, {"wer": report}, {"wer": error_summary(report)})
    assert sorted(path.name for path in (folder / "wer").iterdir()) == sorted(NAMES)
    return {name: (folder / "wer" / name).read_text("utf-8") for name in NAMES}


def test_the_files_of_the_example(tmp_path: Path) -> None:
    found = written(tmp_path, reported([*FIVE[1:4], ("x", [])], [*SPEAKERS[1:4], None]))
    lines = [json.loads(line) for line in found["alignments.jsonl"].splitlines()]
    assert lines[1] == {
        "id": "2", "speaker": "bob", "operations": "CDC", "reference": ["one", "two", "three"],
        "hypothesis": ["one", None, "three"], "choice": 0,
    }  # fmt: skip
    assert lines[3] == {"id": "4", "operations": None, "reference": None, "hypothesis": ["x"], "choice": None}
    assert (
        found["alignments.txt"]
        == """id: 1, speaker ann
counts: C S D I = 2 1 0 0
REF:  a dog RAN
HYP:  a dog CAN
Eval:       S

id: 2, speaker bob
counts: C S D I = 2 0 1 0
REF:  one TWO three
HYP:  one *** three
Eval:     D

id: 3, speaker bob
counts: C S D I = 1 0 0 2
REF:  ****** stop ***
HYP:  PLEASE stop NOW
Eval: I           I

id: 4
no reference

"""
    )
    assert found["hypotheses.trn"] == "a dog can (ann-1)\none three (bob-2)\nplease stop now (bob-3)\n"
    assert found["references.trn"] == "a dog ran (ann-1)\none two three (bob-2)\nstop (bob-3)\n"
    assert "substitutions, reference -> hypothesis: 1\n     1  ran -> can\n" in found["errors.txt"]
    assert "deletions: 1\n     1  two\n" in found["errors.txt"]


def test_a_long_alignment_goes_on_below(tmp_path: Path) -> None:
    found = written(tmp_path, reported([("a b c d" * 20, ["a x c d" * 20])], metric=error_rate("characters")))
    lines = found["alignments.txt"].splitlines()
    assert max(map(len, lines)) <= 106
    assert [line[:4] for line in lines] == ["id: ", "coun", *["REF:", "HYP:", "Eval"] * 3, ""]
    assert lines[2].startswith("REF:  a ␣ X ␣ c")


def test_transcripts_hold_what_their_format_cannot(tmp_path: Path) -> None:
    """And names that occur again stay different."""
    metric = error_rate("words")
    pairs = [("{a / b} 5% (x)", ["a\tb ;; ü"]), ("", ["a"]), ("c", ["c"])]
    found = written(tmp_path, reported(pairs, ["m-1_x", "m", "m"], ["u (1)", "7", "7"], metric))
    hypotheses, references = (found[f"{name}.trn"].splitlines() for name in ("hypotheses", "references"))
    assert hypotheses[0] == "%7Ba / b%7D 5%25 %28x%29 (m%2D1%5Fx-u%20%281%29)"
    assert unquote(references[0].split()[0]) == "a\tb"
    assert references[0].split()[1:3] == ["%3B%3B", "ü"]
    assert hypotheses[1:] == ["(m-7)", "c (m-7+2)"]
    assert [line.rpartition(" ")[2] for line in references] == [line.rpartition(" ")[2] for line in hypotheses]
    assert written(tmp_path, reported([("a", ["b"])], None, ["u"]))["hypotheses.trn"] == "a (u)\n"
