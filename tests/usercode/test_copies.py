"""What the user's code is given is its own: whatever it writes into that, nothing else changes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.credit.toy import EOS, Merges, rollout_from
from tests.reward.said import texts
from tests.running import TINY, train
from tests.world import batch_of
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.data.batching import Batching, evaluation_batches, training_texts
from tokenrl_cli.episodes.scoring import corpus_score, judge, scored
from tokenrl_cli.interfaces import Batch, CorpusScore, Example, Part, Scored, Texts
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.reward.callable import UserFunction
from tokenrl_cli.usercode.copies import copied

HERE = __name__
TOKENIZER = Merges(["a", "b", " "])


def spoil(texts: Texts) -> None:
    """Writes into everything that can be written into."""
    for references in texts.references:
        references[0] = "spoiled"
        references.append("more")
    for name, values in texts.columns.items():
        for value in values:
            if isinstance(value, dict):
                value["list"].clear()
                value["key"] = name
        values.sort(key=str)
        values.pop()
    texts.columns["new"] = []
    for each in (texts.hypotheses, texts.sources, texts.references):
        each.clear()
    texts.actions[:] = 0
    texts.mask[:] = False
    texts.ended[:] = False


def numbers(texts: Texts) -> np.ndarray:
    """A score that depends on all there is."""
    said = zip(texts.hypotheses, texts.references, texts.sources, texts.columns["info"], strict=True)
    lengths = [len(h) + len("".join(r)) / 8 + len(s) / 64 + len(c["list"]) / 256 for h, r, s, c in said]
    return np.array(lengths) + texts.actions.sum(-1) / 1024 + texts.mask.sum(-1) + texts.ended


class Vandal:
    """A reward, metric and part of a mixture, that spoils what it is given, after it has scored it."""

    def __init__(self, harmless: bool = False) -> None:
        self.spoil: Callable[[Texts], None] = (lambda texts: None) if harmless else spoil
        self.buffer = np.zeros(0)

    def __call__(self, texts: Texts) -> Scored:
        scores = numbers(texts)
        said = {"column": list(texts.hypotheses)}
        self.spoil(texts)
        return Scored(scores, {}, said)

    def corpus(self, texts: Texts) -> CorpusScore:
        scores = numbers(texts)
        self.spoil(texts)
        return mean_score(scores, "")


class Prefixes(Vandal):
    def prefix_scores(self, texts: Texts, prefixes: list[list[str]]) -> np.ndarray:
        numbers(texts)
        scores = np.zeros((len(prefixes), texts.mask.shape[1] + 1))
        for row, strings in enumerate(prefixes):
            scores[row, : len(strings)] = [len(string) for string in strings]
            if self.spoil is spoil:
                strings.clear()
        self.spoil(texts)
        return scores


class Writes:
    """A credit that writes into its scores and masks."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.needs_prefixes = inner, inner.needs_prefixes

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        rewards: Tensor = self.inner(scores, mask, ended).clone()
        scores.zero_()
        mask.zero_()
        ended.zero_()
        return rewards


def batch() -> Batch:
    """Two sources; the rows of one share its lists, as samples of one source do."""
    columns = {"info": [{"list": [1, 2], "key": "k"}, {"list": [3], "key": "l"}]}
    return replace(
        batch_of(2), sources=["s", "ss"], references=[["ab", "b"], ["b"]], columns=columns, step=batch_of(2).step
    )


def outcome(reward: Any, credit: Any) -> tuple[Any, ...]:
    """All that a judged batch leaves behind: rewards, log, and what it was made of."""
    there = batch()
    rollout = rollout_from([[1, 2, EOS], [1, EOS], [2, 2, 1], [2, EOS]], there)
    before = copied((there.references, there.sources, there.columns)), rollout.actions.clone(), rollout.mask.clone()
    done, scores = judge(rollout, there, TOKENIZER, reward, credit)
    assert (there.references, there.sources, there.columns) == before[0]
    assert torch.equal(rollout.actions, before[1])
    assert torch.equal(rollout.mask, before[2])
    assert rollout.ended.tolist() == [True, True, False, True]
    assert done.rewards is not None
    return done.rewards.tolist(), done.valid.tolist(), scores.metrics


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
@pytest.mark.parametrize("kind", [Vandal, Prefixes])
def test_a_reward_may_write_into_all_it_is_given(kind: type[Vandal], credit: Any) -> None:
    assert outcome(kind(), credit) == outcome(kind(harmless=True), credit)


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
def test_so_may_each_part_of_a_mixture(credit: Any) -> None:
    class Mixture:
        def __init__(self, harmless: bool) -> None:
            names = ("one", "two")
            self.parts = [Part(name, Vandal(harmless), 1.0, 1.0, 0.0, False) for name in names]

        def __call__(self, texts: Texts) -> np.ndarray:
            raise AssertionError("a mixture is credited part by part")

    assert outcome(Mixture(False), credit) == outcome(Mixture(True), credit)


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
def test_a_credit_may_write_into_its_scores_and_masks(credit: Any) -> None:
    assert outcome(Vandal(harmless=True), Writes(credit)) == outcome(Vandal(harmless=True), credit)


def test_a_metric_may_write_into_all_it_is_given() -> None:
    info = [{"list": [1], "key": "k"}, {"list": [], "key": "l"}]
    there = texts([("a", ["b", "c"]), ("bb", ["d"])], info=info)
    values = [corpus_score(metric, there).value for metric in (Vandal(harmless=True), Vandal(), Vandal())]
    assert values[0] == values[1] == values[2]
    assert there.references == [["b", "c"], ["d"]]
    assert there.columns["info"] is info
    assert info[0]["list"] == [1]


def test_a_reward_that_gives_one_buffer_again_and_again_changes_no_earlier_score() -> None:
    class Buffered:
        def __init__(self) -> None:
            self.buffer, self.column = np.zeros(2), ["", ""]

        def __call__(self, texts: Texts) -> Scored:
            self.buffer[:] = [len(text) for text in texts.hypotheses]
            self.column[:] = texts.hypotheses
            return Scored(self.buffer, {}, {"text": self.column})

    reward = Buffered()
    first = scored(reward, texts([("a", ["x"]), ("bb", ["x"])]))
    scored(reward, texts([("ccc", ["x"]), ("dddd", ["x"])]))
    assert first.scores.tolist() == [1, 2]
    assert first.columns == {"text": ["a", "bb"]}


# ------------------------------------------------------------------------------------------------ a function of texts


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def function(hypothesis: str, references: list[str], info: dict[str, Any], tokens: list[int]) -> float:
    found = len(references) + len(references[0]) / 8 + len(info["list"]) / 64 + len(tokens) / 256
    references[0] = "longer than it was"
    references.append("more")
    info["list"].append(1)
    tokens.clear()
    return found


def batched(hypotheses: list[str], references: list[list[str]], info: list[Any], tokens: list[Any]) -> list[float]:
    rows = zip(hypotheses, references, info, tokens, strict=True)
    found = [function(*row) for row in rows]
    for each in (hypotheses, references, info, tokens):
        each.clear()
    return found


async def asynchronous(hypothesis: str, references: list[str], info: dict[str, Any], tokens: list[int]) -> float:
    return function(hypothesis, references, info, tokens)


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "workers"), [("function", 0), ("batched", 0), ("asynchronous", 0), ("function", 1)])
def test_a_function_gets_copies_in_this_process_as_in_another(name: str, workers: int) -> None:
    """Rows that share their lists, as the samples of one source do, are apart, too."""
    references, info = ["x", "yy"], {"list": [1, 2]}
    rows = replace(texts([("a", references)] * 3, info=[info] * 3), references=[references] * 3)
    reward = UserFunction(f"{HERE}.{name}", 60.0, name == "batched", workers, "raise", 1.0, [HERE], "reward")
    for _ in range(2):
        assert reward(rows).scores.tolist() == [2 + 1 / 8 + 2 / 64 + 1 / 256] * 3
    assert references == ["x", "yy"]
    assert info == {"list": [1, 2]}
    assert len(rows.references) == 3


# --------------------------------------------------------------------------------------------------------- a data set


class Shared:
    """A data set that gives its own lists away."""

    max_source_length, overlong = 8, "truncate"

    def __init__(self, size: int | None) -> None:
        self.length = size
        self.items = [Example(str(i), "a", ["ab"], ["ab"], {"info": {"list": [i]}}) for i in range(4)]

    def size(self, split: str) -> int | None:
        return self.length

    def example(self, split: str, index: int) -> Example:
        return self.items[index % 4]

    def seen(self) -> list[Any]:
        return [(each.references, each.demonstrations, each.columns) for each in self.items]


@pytest.mark.parametrize("size", [4, None])
def test_what_is_written_into_a_batch_does_not_reach_the_data_set(size: int | None) -> None:
    dataset = Shared(size)
    before = copied(dataset.seen())
    batching = Batching(dataset, "train", 4, TOKENIZER, TOKENIZER, 4, 1)  # type: ignore[arg-type]
    taken = [batching.batch(step) for step in range(2)]
    if size:
        taken += [batch for _, batch in evaluation_batches(dataset, "val", 0, 2, TOKENIZER, TOKENIZER, 4)]  # type: ignore[arg-type]
    for batch in taken:
        batch.columns["info"][0]["list"].clear()
        for references in batch.references:
            references.clear()
    assert dataset.seen() == before
    assert batching.batch(3).references == [["ab"]] * 4


def test_what_a_data_set_writes_into_its_lists_does_not_reach_a_batch() -> None:
    class Reused(Shared):
        """Fills the same lists for every example."""

        def example(self, split: str, index: int) -> Example:
            example = self.items[0]
            example.references[:] = example.demonstrations[:] = ["ab"[index % 2]]
            return example

    batch = Batching(Reused(4), "train", 4, TOKENIZER, TOKENIZER, 4, 1).batch(0)  # type: ignore[arg-type]
    assert sorted(batch.references) == [["a"], ["a"], ["b"], ["b"]]
    ((_, batch),) = evaluation_batches(Reused(4), "val", 0, 4, TOKENIZER, TOKENIZER, 4)  # type: ignore[arg-type]
    assert batch.references == [["a"], ["b"], ["a"], ["b"]]
    assert list(training_texts(Reused(2), sources=False, targets=True)) == ["a", "b"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [["a", ["b"]], {"a": {"b": [1]}}, (["a"],), {1}, np.zeros(2), [{"a": np.zeros(1)}, None, 1.0, True]]
)
def test_a_copy_is_equal_and_shares_nothing(value: Any) -> None:
    other = copied(value)
    assert repr(other) == repr(value)
    assert type(other) is type(value)
    assert other is not value


# ---------------------------------------------------------------------------------------------------------- whole runs

REWARDS = """
import numpy as np

def score(hypothesis, references):
    right = references[0].split()
    return sum(a == b for a, b in zip(hypothesis.split(), right)) / len(right)

def kind(hypothesis, references):
    return score(hypothesis, list(references))

def rude(hypothesis, references):
    found = score(hypothesis, references)
    references[:] = [hypothesis]
    return found

class Rude:
    def __call__(self, texts):
        found = np.array([rude(*row) for row in zip(texts.hypotheses, texts.references)])
        texts.references.sort()
        texts.hypotheses.clear()
        texts.mask[:] = False
        return found

class Kind:
    def __call__(self, texts):
        return np.array([kind(*row) for row in zip(texts.hypotheses, texts.references)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("credit", ["terminal", "delta"])
def test_no_reward_changes_the_metrics_of_a_run(credit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a function and as a class; on a data set that keeps its examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = f"rewards_of_{credit}"
    (tmp_path / f"{module}.py").write_text(REWARDS)
    (tmp_path / "data").mkdir()
    for split, seed in (("train", 1), ("val", 2), ("test", 3)):
        draws = np.random.default_rng(seed).integers(0, 5, (24, 4))
        rows = [{"src": " ".join(map(str, row)), "refs": [" ".join(map(str, row[::-1]))]} for row in draws]
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [each for each in TINY if not each.startswith(("dataset", "reward", "trainer.monitor"))]
    settings += ["dataset=jsonl", f"dataset.path={tmp_path / 'data'}", "trainer.monitor=bleu", f"credit={credit}"]
    found = {}
    for name in ("kind", "rude", "Kind", "Rude"):
        chosen = ["reward=callable", f"reward.function={module}.{name}"]
        if name.istitle():
            chosen = ["reward=ended", f"reward._target_={module}.{name}"]
        assert train(tmp_path / name, *settings, *chosen, f"imports=[{module}]", tiny=False) == 0
        found[name] = json.loads((tmp_path / name / "results.json").read_text())["test"]
    assert found["rude"] == found["kind"]
    assert found["Rude"] == found["Kind"]
    assert found["rude"]["final"]["bleu"] < 90  # of its own texts it would be 100
