"""The summary of a finished run in results.json and in the table."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tokenrl_cli.interfaces import CorpusScore, Evaluation
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.metrics.significance import Difference, paired_bootstrap, sacrebleu_p
from tokenrl_cli.report.layout import number, signed
from tokenrl_cli.report.results import RESAMPLES, SEED, peak_memory_mb, results
from tokenrl_cli.report.results_table import final_table, with_interval


def test_peak_memory_is_that_of_this_process_and_not_of_the_one_that_started_it() -> None:
    """A large parent process, such as a study that holds many results, must not count."""
    large = bytearray(300 * 2**20)
    large[:: 2**12] = b"x" * len(large[:: 2**12])
    command = "from tokenrl_cli.report.results import peak_memory_mb; print(peak_memory_mb())"
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    mine = peak_memory_mb()
    assert mine >= 300
    assert 10 < int(said) < mine - 150
    assert len(large)


def rows(sentences: dict[str, tuple[np.ndarray, np.ndarray]], decode: str = "greedy") -> dict[str, Evaluation]:
    """The evaluations of a run on test, made from the sentence scores (warm start, final) of each metric."""

    def evaluation(which: int) -> Evaluation:
        corpus: dict[str, CorpusScore] = {name: mean_score(pair[which], "") for name, pair in sentences.items()}
        metrics = {name: score.value for name, score in corpus.items()}
        return Evaluation(7, "train", "test", decode, metrics, corpus, [], [], [], [])

    return {"warm_start": evaluation(0), "final": evaluation(1), "best": evaluation(1)}


def summary(sentences: dict[str, tuple[np.ndarray, np.ndarray]], decode: str = "greedy") -> dict[str, Any]:
    return results(rows(sentences, decode), None, 1.0, {"tokens": 1, "rollout": 1.0, "update": 1.0}, [])


def noise(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    return rng.normal(size=size), rng.normal(1, 1, size=size)


def test_a_difference_has_its_interval_its_p_and_sacrebleus() -> None:
    sentences = noise(100)
    found = summary({"bleu": sentences})
    before, after = (mean_score(each, "") for each in sentences)
    wanted = paired_bootstrap(after, before, RESAMPLES, SEED)
    assert Difference(**found["difference"]["bleu"]) == wanted
    assert wanted.p is not None
    assert found["difference"]["bleu"]["sacrebleu_p"] == sacrebleu_p(after, before, RESAMPLES, SEED)
    assert found["findings"] == []


@pytest.mark.parametrize("size", [1, 29])
def test_few_sentences_are_told_and_have_neither_interval_nor_p(size: int) -> None:
    found = summary({"bleu": noise(size), "reward": noise(size)})
    for each in found["difference"].values():
        assert each["low"] is each["high"] is each["p"] is each["sacrebleu_p"] is None
        assert math.isfinite(each["mean"])
    (finding,) = found["findings"]
    assert (finding["rule"], finding["severity"], finding["step"]) == ("few_sentences", "note", 7)
    words = f"no interval and no p of bleu, reward: only {size} sentence"
    assert finding["text"].startswith(words)
    assert "fewer than 30" in finding["text"]
    table = final_table(found)
    assert table[1][0] == "bleu"
    assert "[" not in table[1][-2]
    assert table[1][-1] == "-"


def test_every_reason_is_told_of_the_numbers_it_is_true_of() -> None:
    same, lost = np.ones(50), np.full(50, np.inf)
    missing = np.where(np.arange(50) < 20, 1.0, np.nan)
    found = summary({"a": noise(50), "b": (same, same / 3), "c": (lost, same), "d": (missing, same), "e": (same, same)})
    told = {each["rule"]: each["text"] for each in found["findings"]}
    assert told.keys() == {"few_sentences", "not_a_number", "no_variation"}
    assert "of d: only 20 sentences" in told["few_sentences"]
    assert "of c: " in told["not_a_number"]
    assert "of b, e: " in told["no_variation"]
    assert found["difference"]["a"]["p"] is not None
    assert [row[-1] for row in final_table(found)[1:]][1:] == ["-"] * 4


@pytest.mark.parametrize("decode", ["greedy", "beam", "sample"])
def test_the_table_is_headed_by_what_decoding_was(decode: str) -> None:
    found = summary({"bleu": noise(50)}, decode)
    assert found["decode"] == decode
    assert final_table(found)[0][0] == f"test, {decode}"


def test_no_number_is_printed_as_minus_zero() -> None:
    for value in (-0.0, 0.0, -1e-9, -0.0004):
        assert number(value) == "0.000"
        assert signed(value) == "+0.000"
        assert with_interval({"mean": value, "low": value, "high": -value}) == "+0.000 [+0.000, +0.000]"
    assert (number(-0.5), number(-12.345), number(None)) == ("-0.500", "-12.35", "-")
    assert (signed(1.25), signed(-1.25), signed(None)) == ("+1.250", "-1.250", "-")
    assert (signed(math.nan), signed(math.inf), signed(-math.inf)) == ("nan", "inf", "-inf")
    assert with_interval({"mean": 1.9, "low": None, "high": None}) == "+1.900"
