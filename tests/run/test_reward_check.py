"""The check of rewards before training: useless ones are reported, useful ones are not."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.running import TINY, lines, tokenrl
from tokenrl_cli.config.build import build
from tokenrl_cli.config.options import conf_dir
from tokenrl_cli.data.batching import evaluation_batches
from tokenrl_cli.interfaces import Example, Finding, Part, Reward, Texts
from tokenrl_cli.run.reward_check import (
    KINDS,
    Trial,
    differing_metrics,
    metric_findings,
    reward_findings,
    trial,
    verdict,
)
from tokenrl_cli.tokenizer.char import Char
from tokenrl_cli.tokenizer.word import Word

WORDS = {
    "english": "the small cat sat on an old mat while seven dogs ran past her".split(),
    "hindi": "घर बड़ा है और पेड़ के नीचे एक गाय सोती रहती थी".split(),
    "chinese": list("山水田木日月火土石竹米目"),
}
PLAIN = ("bleu", "chrf", "wer", "cer", "ter", "exact_match", "token_accuracy", "length")
FREE = ("repetition", "distinct", "ended")  # need no reference


class Sentences:
    """Sentences of a language, each a shuffle of four to eight of its words."""

    max_source_length, overlong = 16, "truncate"

    def __init__(self, language: str) -> None:
        self.language = language

    def size(self, split: str) -> int | None:
        return 32

    def example(self, split: str, index: int) -> Example:
        draws = np.random.default_rng([index, *split.encode()])
        words = draws.permutation(WORDS[self.language])[: 4 + int(draws.integers(5))]
        text = ("" if self.language == "chinese" else " ").join(words.tolist())
        return Example(str(index), f"source {index}", [text], [text], {"count": len(text)})


@cache
def tried(language: str = "english", size: int = 32, seed: int = 1) -> Trial:
    data = Sentences(language)
    tokenizer = (Char if language == "chinese" else Word)(1000, 1)
    tokenizer.train([*(data.example("val", i).references[0] for i in range(32)), *map(str, range(32)), "source"])
    ((_, batch),) = evaluation_batches(data, "val", size, size, tokenizer, tokenizer, 16)  # type: ignore[arg-type]
    return trial(batch, tokenizer, 16, seed)


def block(name: str, **settings: Any) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((conf_dir() / "reward" / f"{name}.yaml").read_text("utf-8"))
    return raw | settings


def reward(name: str, **settings: Any) -> Any:
    return build(block(name, **settings), Reward, [], seed=1)


def found(reward: Any, there: Trial | None = None, rewarded: bool = True) -> list[tuple[str, str, str | None]]:
    findings = reward_findings(reward, there or tried(), rewarded)
    return [(finding.rule, finding.severity, finding.key) for finding in findings]


class Says:
    """A reward that is a function of the text alone."""

    def __init__(self, function: Callable[[str, list[str]], float]) -> None:
        self.function, self.calls = function, list[int]()

    def __call__(self, texts: Texts) -> np.ndarray:
        self.calls.append(len(texts.hypotheses))
        pairs = zip(texts.hypotheses, texts.references, strict=True)
        return np.array([self.function(text, references) for text, references in pairs])


class Both:
    """A mixture of two rewards."""

    def __init__(self, **parts: Any) -> None:
        self.parts = [Part(name, each, 1.0, 1.0, 0.0, False) for name, each in parts.items()]

    def __call__(self, texts: Texts) -> np.ndarray:
        raise AssertionError("its parts are looked at one by one")


# ---------------------------------------------------------------------------------------------------------- the texts


def test_the_kinds_are_what_they_are_called() -> None:
    there = tried()
    said = dict(zip(KINDS, (texts.hypotheses for texts in there.kinds), strict=True))
    assert said["demonstrations"] == [references[0] for references in there.kinds[0].references]
    for text, other, half, mixed, again, nothing in zip(*said.values(), strict=True):
        words = text.split()
        assert other in said["demonstrations"]
        assert other != text
        assert half.split() == words[: len(words) // 2]
        assert nothing == ""
        assert sorted(mixed.split()) == sorted(words)
        assert again.split() == words[:1] * len(words)
    assert sum(a != b for a, b in zip(said["shuffled"], said["demonstrations"], strict=True)) > 28
    assert [texts.ended.all() for texts in there.kinds] == [True, True, False, True, True, True]
    assert all(texts.mask.shape == texts.actions.shape for texts in there.kinds)


def test_a_text_without_spaces_is_spoiled_by_characters() -> None:
    said = [texts.hypotheses[0] for texts in tried("chinese").kinds]
    assert len(said[2]) == len(said[0]) // 2
    assert sorted(said[3]) == sorted(said[0])
    assert set(said[4]) == {said[0][0]}
    assert len(said[4]) == len(said[0])


def test_the_draws_belong_to_the_seed_alone() -> None:
    again = [texts.hypotheses for texts in tried.__wrapped__().kinds]
    assert again == [texts.hypotheses for texts in tried().kinds]
    assert again[3] != tried(seed=2).kinds[3].hypotheses


# --------------------------------------------------------------------------------------------------------- the verdict


@pytest.mark.parametrize("name", [*PLAIN, *FREE, "rouge"])
@pytest.mark.parametrize("size", [2, 4, 32])
def test_a_reward_that_tells_the_kinds_apart_is_healthy(name: str, size: int) -> None:
    """There is no finding if a metric gives every demonstration 1, or if it needs no reference."""
    assert found(reward(name), tried(size=size)) == []


@pytest.mark.parametrize("size", [4, 32])
def test_rouge_is_dead_where_nothing_is_a_word_to_it(size: int) -> None:
    (finding,) = reward_findings(reward("rouge"), tried("hindi", size), True)
    assert (finding.rule, finding.severity, finding.key) == ("dead_reward", "warning", "reward")
    assert "demonstrations 0, of other sources 0" in finding.text
    assert f"a-z and 0-9 alone, and {size} of {size} references have none: reward=chrf" in finding.text
    for name in PLAIN:
        assert found(reward(name), tried("hindi", size)) == [], name


@pytest.mark.parametrize("name", ["constant", "random"])
def test_a_control_is_dead_by_purpose(name: str) -> None:
    assert found(reward(name)) == [("dead_reward", "note", "reward")]


def test_noise_and_a_number_for_all_are_dead() -> None:
    draws = np.random.default_rng(0)
    assert found(Says(lambda text, _: draws.normal())) == [("dead_reward", "warning", "reward")]
    assert found(Says(lambda text, _: 0.5)) == [("dead_reward", "warning", "reward")]
    assert found(Says(lambda text, _: 0.5), tried(size=1)) == [("dead_reward", "warning", "reward")]


def test_a_little_more_than_noise_is_alive() -> None:
    draws = np.random.default_rng(0)
    assert found(Says(lambda text, refs: draws.normal() + 2.0 * (text in refs))) == []


def test_of_few_sources_only_equal_numbers_are_the_same() -> None:
    same = np.zeros((6, 4), dtype=bool)
    scores = np.zeros((6, 4))
    assert verdict(scores, same) == "alike"
    scores[0, 0] = 0.1
    assert verdict(scores, same) == "alive"


def test_noise_is_called_alive_in_less_than_two_of_a_hundred_trials() -> None:
    draws, same = np.random.default_rng(0), np.zeros((6, 32), dtype=bool)
    alive = [verdict(draws.random((6, 32)), same) != "alike" for _ in range(1000)]
    assert sum(alive) < 20


def test_what_spoiling_did_not_change_is_no_evidence() -> None:
    scores, same = np.zeros((6, 4)), np.zeros((6, 4), dtype=bool)
    scores[3] = 1
    assert verdict(scores, same) == "alive"
    same[3] = True
    assert verdict(scores, same) == "alike"


def test_a_reward_of_the_wrong_sign_is_told() -> None:
    """For example an error rate that was not subtracted from 1."""
    wer = reward("wer")
    errors = Says(lambda text, refs: float(text != refs[0]))
    assert found(errors) == [("inverted_reward", "warning", "reward")]
    assert found(wer) == []
    assert found(Says(lambda text, _: -len(text))) == []  # shuffled it is as long


def test_a_reward_without_a_number_stops() -> None:
    (finding,) = reward_findings(Says(lambda *_: math.nan), tried(), False)
    assert (finding.rule, finding.severity, finding.key) == ("dead_reward", "stop", "reward")
    assert "no number for any of 192 texts" in finding.text


def test_a_credit_that_leaves_no_number_stops() -> None:
    assert found(reward("bleu"), rewarded=False) == [("dead_reward", "stop", "credit")]


def test_each_part_of_a_mixture_is_looked_at() -> None:
    mixture = Both(bleu=reward("bleu"), rouge=reward("rouge"), constant=reward("constant"))
    assert found(mixture, tried("hindi")) == [
        ("dead_reward", "warning", "reward.parts.rouge"),
        ("dead_reward", "note", "reward.parts.constant"),
    ]


def test_a_reward_that_fails_on_spoiled_texts_is_told_and_stops_nothing() -> None:
    (finding,) = reward_findings(Says(lambda text, _: 1 / len(text)), tried(), True)
    assert (finding.rule, finding.severity) == ("fragile_reward", "warning")
    assert "ZeroDivisionError" in finding.text


def test_it_costs_one_call() -> None:
    counted = Says(lambda text, _: len(text))
    found(counted)
    assert counted.calls == [6 * 32]


# ----------------------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("name", [*PLAIN, *FREE, "rouge", "constant", "random"])
def test_a_metric_that_tells_the_kinds_apart_is_healthy(name: str) -> None:
    assert metric_findings(name, reward(name), tried()) == []


def test_a_metric_whose_table_says_the_same_of_all_is_told() -> None:
    """Each sentence has a score of its own, but corpus BLEU, which has no effective order, is 0 for texts of one
    word."""
    chinese = tried("chinese")
    assert found(reward("bleu"), chinese) == []
    (finding,) = metric_findings("bleu", reward("bleu"), chinese)
    assert (finding.rule, finding.severity, finding.key) == ("dead_metric", "warning", "metrics.bleu")
    assert "tokenize=zh or char" in finding.text
    for tokenize in ("zh", "char"):
        assert metric_findings("bleu", reward("bleu", tokenize=tokenize), chinese) == []
    assert [f.rule for f in metric_findings("rouge", reward("rouge"), tried("hindi"))] == ["dead_metric"]


def test_a_metric_that_fails_on_spoiled_texts_is_told() -> None:
    (finding,) = metric_findings("mine", Says(lambda text, _: 1 / len(text)), tried())
    assert (finding.rule, finding.key) == ("fragile_metric", "metrics.mine")


def differing(name: str, settings: dict[str, Any], **metrics: dict[str, Any]) -> list[tuple[str, str | None]]:
    blocks = {key: block(value.pop("of", key)) | value for key, value in metrics.items()}
    findings = differing_metrics(block(name, **settings), reward(name, **settings), blocks)
    assert all(finding.rule == "metric_differs" for finding in findings)
    return [(finding.severity, finding.key) for finding in findings]


def test_two_settings_behind_one_name_are_told() -> None:
    assert differing("bleu", {"tokenize": "zh"}, bleu={}) == [("warning", "metrics.bleu.tokenize")]
    assert differing("bleu", {"max_order": 2}, bleu={"lowercase": True}) == [("warning", "metrics.bleu.max_order")]
    assert differing("chrf", {"word_order": 2}, chrf={}) == [("warning", "metrics.chrf.word_order")]
    assert differing("rouge", {"stemmer": True}, rouge={}) == [("warning", "metrics.rouge.stemmer")]
    assert differing("ter", {"case_sensitive": True}, ter={}) == [("warning", "metrics.ter.case_sensitive")]
    assert differing("wer", {"lowercase": True}, wer={}) == [("warning", "metrics.wer.lowercase")]
    assert differing("cer", {}, cer={"punctuation": "remove"}) == [("warning", "metrics.cer.punctuation")]


def test_another_measure_of_a_family_is_a_note_and_another_name_is_nothing() -> None:
    assert differing("rouge", {"variant": "rouge1"}, rouge={}) == [("note", "metrics.rouge.variant")]
    assert differing("rouge", {"variant": "rouge1", "stemmer": True}, rouge={})[0][0] == "warning"
    assert differing("bleu", {"tokenize": "zh"}, bleu={"tokenize": "zh"}, chrf={}) == []
    assert differing("bleu", {"tokenize": "zh"}, plain={"of": "bleu"}) == []
    assert differing("bleu", {"tokenize": "zh"}, bleu={}, zh={"of": "bleu", "tokenize": "zh"}) == []
    assert differing("wer", {}, cer={}) == []
    assert differing("wer", {"deletion": 2.0}, wer={}) == [("note", "metrics.wer.deletion")]
    assert differing("bleu", {}, chrf={}) == []


def test_a_part_of_a_mixture_has_its_own_name() -> None:
    parts = {"bleu": block("bleu", tokenize="zh"), "chrf": block("chrf")}
    blocks = {"bleu": block("bleu"), "chrf": block("chrf")}
    mixture = Both(**{key: build(each, Reward, []) for key, each in parts.items()})
    (finding,) = differing_metrics({"_target_": "Both", "parts": parts}, mixture, blocks)
    assert finding.key == "metrics.bleu.tokenize"
    assert "reward.parts.bleu.tokenize=zh" in finding.text


# -------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with data of each language and a module of reward functions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for language in WORDS:
        (tmp_path / language).mkdir()
        for split, size in (("train", 32), ("val", 8), ("test", 8)):
            data = [Sentences(language).example("train", index) for index in range(size)]
            rows = [json.dumps({"src": each.source, "refs": each.references}) + "\n" for each in data]
            (tmp_path / language / f"{split}.jsonl").write_text("".join(rows), "utf-8")
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return tmp_path


FUNCTIONS = """
from pathlib import Path

def forgot(hypothesis):
    len(hypothesis)

def begun(hypothesis):
    return len(hypothesis) if hypothesis else None

def seldom(source):
    return len(source) if source[-1] in "357" else None

def early(hypothesis):
    return None if Path("run/checkpoints").exists() else len(hypothesis)
"""


def run(language: str, *overrides: str) -> int:
    """Runs `tokenrl train` into the directory `run`."""
    settings = [each for each in TINY if not each.startswith(("dataset", "reward", "trainer.monitor"))]
    data = ["dataset=jsonl", f"dataset.path={language}", "decode.max_length=10", "trainer.monitor=chrf"]
    return tokenrl("train", *settings, *data, *overrides, "hydra.run.dir=run")


def findings() -> list[Finding]:
    return [Finding(**each) for each in json.loads(Path("run/results.json").read_text("utf-8"))["findings"]]


def mine(function: str) -> list[str]:
    return ["reward=callable", f"reward.function=mine.py:{function}", "imports=[mine.py]"]


def test_a_function_that_forgot_to_return_stops_before_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("english", *mine("forgot")) == 2
    told = capsys.readouterr().err
    assert "mine.py:forgot gave None" in told
    assert "`return`" in told
    assert "Warning" not in told
    assert not Path("run/metrics.jsonl").exists()
    assert not Path("run/checkpoints").exists()


def test_so_does_one_whose_prefixes_have_no_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("english", *mine("begun"), "credit=delta") == 2
    assert "the empty one included" in capsys.readouterr().err
    assert not Path("run/metrics.jsonl").exists()


@pytest.mark.parametrize("stage", [["trainer.steps=0"], ["algorithm=mle"]])
def test_without_learning_from_it_a_dead_reward_is_a_warning_and_nan_everywhere(
    folder: Path, stage: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("english", *mine("forgot"), *stage) == 0
    told = capsys.readouterr().err
    assert "RuntimeWarning" not in told
    assert "reward nan" in told
    serious = [(each.rule, each.severity) for each in findings() if each.severity != "note"]
    assert serious == [("dead_reward", "warning")]
    values = [line["metrics"]["reward"] for line in lines(Path("run")) if "reward" in line["metrics"]]
    assert values
    assert set(values) == {None}


def test_a_reward_that_ends_while_it_is_learned_from_stops_with_step_and_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until then the log shows NaN: the mean of no rewards is not 0."""
    assert run("english", *mine("early"), "trainer.log_every=1") == 2
    told = capsys.readouterr().err
    assert "step 12: no text of the last 6 batches has a reward" in told
    assert "RuntimeWarning" not in told
    logged = [line["metrics"] for line in lines(Path("run")) if line["split"] == "train" and line["stage"] == "train"]
    names = ("reward", "reward_std", "frac_reward_zero_std", "rewards/callable/mean", "rewards/callable/std")
    assert logged
    assert all(line[name] is None for line in logged for name in names)
    assert not Path("run/results.json").exists()


def test_a_reward_of_few_sources_goes_on(folder: Path) -> None:
    assert run("english", *mine("seldom"), "trainer.batch_size=1") == 0
    (finding,) = [each for each in findings() if each.severity == "warning"]
    assert finding.rule == "dead_reward"
    assert "None" not in finding.text


def test_rouge_on_another_script_is_told_with_what_helps(folder: Path) -> None:
    assert run("hindi", "reward=rouge") == 0
    (finding,) = [each for each in findings() if each.severity == "warning"]
    assert (finding.rule, finding.key) == ("dead_reward", "reward")
    assert "reward=chrf" in finding.text


def test_the_metric_follows_the_tokenizer_of_the_reward_or_is_told(folder: Path) -> None:
    zh = ["tokenizer=char", "reward=bleu", "reward.tokenize=zh"]
    assert run("chinese", *zh) == 0
    told = {(each.rule, each.severity, each.key) for each in findings() if each.severity != "note"}
    assert told == {
        ("metric_differs", "warning", "metrics.bleu.tokenize"), ("dead_metric", "warning", "metrics.bleu")
    }  # fmt: skip
    assert all("zh" in each.text for each in findings() if each.severity == "warning")


def test_a_healthy_run_has_no_warning(folder: Path) -> None:
    assert run("chinese", "tokenizer=char", "reward=bleu", "reward.tokenize=zh", "metrics.bleu.tokenize=zh") == 0
    assert [each for each in findings() if each.severity != "note"] == []
