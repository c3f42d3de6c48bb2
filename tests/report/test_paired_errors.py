"""Two evaluations of the same utterances, compared over utterances and over speakers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_error_table import random_pairs, reported
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.metrics.saved_statistics import save
from tokenrl_cli.metrics.significance import FEWEST_BLOCKS, by_block, paired_bootstrap
from tokenrl_cli.report.error_files import write_errors
from tokenrl_cli.report.error_table import ErrorReport, error_summary
from tokenrl_cli.report.paired_errors import difference_lines, differences, evaluation_of

PAIRS = random_pairs(40)
BETTER = [(references[0] if i % 2 else text, references) for i, (text, references) in enumerate(PAIRS)]
SPEAKERS = [name for name in "abcde" for _ in range(8)]


def evaluated(folder: Path, pairs: Any, speakers: Any = None, data: str = "d", split: str = "test") -> ErrorReport:
    report = reported(pairs, speakers)
    folder.mkdir(parents=True)
    save(folder / "statistics.npz", {"wer": report.score})
    summary = error_summary(report)
    write_errors(folder, {"wer": report}, {"wer": summary})
    settings = {"split": split, "data": data}
    (folder / "results.json").write_text(json.dumps({"settings": settings, "errors": {"wer": summary}}))
    return report


def test_the_difference_is_that_of_the_paired_bootstrap_over_utterances_and_over_speakers(tmp_path: Path) -> None:
    one, two = evaluated(tmp_path / "a", BETTER, SPEAKERS), evaluated(tmp_path / "b", PAIRS, SPEAKERS)
    found = differences(tmp_path / "a", tmp_path / "b")["metrics"]["wer"]
    plain = paired_bootstrap(one.score, two.score, 1000, 12345)
    assert [found[key] for key in ("mean", "low", "high", "p")] == [plain.mean, plain.low, plain.high, plain.p]
    assert found["high"] < 0
    blocks = [by_block(each.score, SPEAKERS) for each in (one, two)]
    expected = paired_bootstrap(*blocks, 1000, 12345, FEWEST_BLOCKS)
    assert found["speakers"]["number"] == 5
    assert (found["speakers"]["low"], found["speakers"]["p"]) == (expected.low, expected.p)
    assert expected.low != plain.low


def test_few_speakers_have_no_interval_and_data_without_any_say_nothing_of_them(tmp_path: Path) -> None:
    for name, pairs in (("a", BETTER), ("b", PAIRS)):
        evaluated(tmp_path / name / "three", pairs, [each.replace("e", "a").replace("d", "a") for each in SPEAKERS])
        evaluated(tmp_path / name / "none", pairs)
    three = differences(tmp_path / "a" / "three", tmp_path / "b" / "three")
    assert three["metrics"]["wer"]["speakers"] | {"mean": 0} == {
        "number": 3, "mean": 0, "low": None, "high": None, "p": None,
    }  # fmt: skip
    assert (
        difference_lines(three)[1]
        == "wer difference  no interval and no p (too few, or no difference), over 3 speakers"
    )
    none = differences(tmp_path / "a" / "none", tmp_path / "b" / "none")
    assert none["metrics"]["wer"]["speakers"] is None
    assert len(difference_lines(none)) == 1


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    evaluated(tmp_path / "a", PAIRS)
    evaluated(tmp_path / "other", PAIRS, data="e")
    with pytest.raises(UserError, match="was not evaluated on the sources and references of"):
        differences(tmp_path / "a", tmp_path / "other")
    score = reported(PAIRS).score
    evaluated(tmp_path / "b", PAIRS)
    save(tmp_path / "b" / "statistics.npz", {"bleu": score})
    with pytest.raises(UserError, match="has no error rate"):
        differences(tmp_path / "a", tmp_path / "b")
    save(tmp_path / "b" / "statistics.npz", {"wer": type(score)(**vars(score) | {"signature": "wer|lowercase"})})
    with pytest.raises(UserError, match=r"wer was computed as wer\|lowercase, and in"):
        differences(tmp_path / "a", tmp_path / "b")


def test_a_run_stands_for_its_evaluation_of_the_same_name_or_its_only_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="has no evaluation of the split test"):
        evaluation_of(run, "test", tmp_path / "test-greedy")
    evaluated(run / "eval" / "test-beam", PAIRS)
    evaluated(run / "eval" / "val-greedy", PAIRS, split="val")
    (run / "results.json").write_text("{}")  # that of the run
    assert evaluation_of(run, "test", tmp_path / "test-greedy") == run / "eval" / "test-beam"
    assert evaluation_of(run / "eval" / "test-beam", "test", tmp_path / "x") == run / "eval" / "test-beam"
    with pytest.raises(UserError, match="is an evaluation of the split val"):
        evaluation_of(run / "eval" / "val-greedy", "test", tmp_path / "x")
    evaluated(run / "eval" / "test-greedy", PAIRS)
    assert evaluation_of(run, "test", tmp_path / "test-greedy") == run / "eval" / "test-greedy"
    with pytest.raises(UserError, match="several evaluations of test, none named test-sample: test-beam, test-greedy"):
        evaluation_of(run, "test", tmp_path / "test-sample")
    assert evaluation_of(run, "test", run / "eval" / "test-greedy") == run / "eval" / "test-beam"  # never itself
    with pytest.raises(UserError, match="but test-beam, which is the one to compare"):
        evaluation_of(run / "eval" / "test-beam", "test", run / "eval" / "test-beam")
