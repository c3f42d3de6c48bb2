"""Which examples each stage draws, and the check before the first step that those that need references have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.presets import PRESETS, preset
from tests.reward.said import texts
from tests.world import RECORDED, Letters, TableReward, TabularPolicy, batch_of
from tokenrl_cli.config.build import build, locate
from tokenrl_cli.config.options import conf_dir
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.data.batching import Batching, training_texts
from tokenrl_cli.data.splits import Reader, drawn_by, kept_for_rl, require_references, require_split, splits_of
from tokenrl_cli.dataset.jsonl import Jsonl
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import Dataset, Divided, Example, ReadsReferences, Reward, UserError
from tokenrl_cli.model.recurrent import Recurrent
from tokenrl_cli.optim import NonFinite
from tokenrl_cli.run.findings import far_above
from tokenrl_cli.tokenizer.word import Word

TOKENIZER = Letters()


@dataclass
class Old:
    """A user's data set that has only the methods of the protocol."""

    examples: list[Example]
    max_source_length: int = 8
    overlong: str = "truncate"

    def size(self, split: str) -> int | None:
        return len(self.examples)

    def example(self, split: str, index: int) -> Example:
        return self.examples[index]


@dataclass
class New(Old):
    rl_share: float = 0.0
    rl_split: str | None = None


def examples(count: int, *empty: int) -> list[Example]:
    said = [[] if i in empty else [f"y{i % 3}"] for i in range(count)]
    return [Example(str(i), f"x{i}", refs, refs, {}, f"f, line {i + 1}") for i, refs in enumerate(said)]


def drawn(data: Dataset, stage: str, steps: int = 30) -> tuple[list[str], Batching]:
    tokenizer = Word(100, 1)
    tokenizer.train(f"x{i} y{i}" for i in range(60))
    split, member = drawn_by(data, stage)
    batching = Batching(data, split, 4, tokenizer, tokenizer, 4, 1, True, member)
    return [source for step in range(steps) for source in batching.batch(step).sources], batching


def test_a_share_of_train_is_drawn_by_rl_alone() -> None:
    data = New(examples(60), rl_share=0.3)
    assert isinstance(data, Divided)
    first, second = (set(drawn(data, stage)[0]) for stage in ("warm_start", "train"))
    assert not first & second
    assert first | second == {f"x{i}" for i in range(60)}
    assert 8 <= len(second) <= 28
    larger = {each.source for i, each in enumerate(data.examples) if kept_for_rl(each.source, i, 0.6)}
    assert second < larger, "what RL has of a smaller share it has of a larger one, too"


def test_equal_sources_stand_on_one_side_and_empty_ones_are_divided() -> None:
    assert len({kept_for_rl("the same", i, 0.5) for i in range(50)}) == 1
    assert len({kept_for_rl("", i, 0.5) for i in range(50)}) == 2


def test_without_a_share_both_draw_what_they_always_did() -> None:
    before, plain = drawn(Old(examples(60)), "train")
    after, _ = drawn(New(examples(60)), "warm_start")
    assert before == after
    assert drawn_by(New(examples(60)), "train") == ("train", None)
    assert drawn_by(New([], rl_split="rl"), "train") == ("rl", None)
    assert drawn_by(New([], rl_split="rl"), "warm_start") == ("train", None)
    assert torch.equal(plain.batch(3).targets, drawn(New(examples(60)), "train")[1].batch(3).targets)


def test_a_share_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"dataset\.rl_share: leaves none of the 2 examples"):
        drawn(New(examples(2), rl_share=0.01), "train")


def test_a_split_is_known_or_named(tmp_path: Path) -> None:
    assert splits_of(Old([])) == ["train", "val", "test"]
    rest: dict[str, Any] = {"rl_share": 0.0, "rl_split": None, "max_source_length": 8, "overlong": "drop"}
    named = Jsonl(str(tmp_path), {"test_seen": "a"}, "src", "refs", False, False, **rest)
    require_split(named, "test_seen")
    with pytest.raises(UserError, match=r"split=test_sen: .*did you mean 'test_seen'\?"):
        require_split(named, "test_sen")
    with pytest.raises(UserError, match=r"split=vall: .*did you mean 'val'\?"):
        require_split(Old([]), "vall")


@dataclass
class Asks:
    needs_references: bool = True


def test_what_needs_references_is_named_with_the_first_example_that_has_none() -> None:
    readers = [
        Reader("reward=bleu", Asks(), "train", "reward=other"),
        Reader("metrics.bleu", Asks(), "val", "~metrics.bleu"),
        Reader("reward=mine", object(), "train", "what says nothing needs none"),
        Reader("reward=ended", Asks(False), "train", "nor does this"),
    ]
    with pytest.raises(UserError) as caught:
        require_references(Old(examples(5, 2, 4)), readers)
    assert caught.value.where == "reward=bleu, metrics.bleu"
    assert caught.value.problem == "need references: f, line 3 has none, nor have 1 others of train"
    assert caught.value.remedy == "give it references, or: reward=other; ~metrics.bleu"
    require_references(Old(examples(5)), readers)
    require_references(Old(examples(5, 2)), readers[2:])
    untouched = Reader("warm_start=mle", Asks(), "train", "", lambda example, index: index != 2)
    require_references(Old(examples(5, 2)), [untouched])


def test_a_tokenizer_of_nothing_is_refused() -> None:
    prompts = Old(examples(3, 0, 1, 2))
    assert list(training_texts(prompts, sources=True, targets=True)) == ["x0", "x1", "x2"]
    with pytest.raises(UserError, match="tokenizer: there is nothing to make it of: train has no references"):
        list(training_texts(prompts, sources=False, targets=True))


REFERENCED = {"bleu", "cer", "chrf", "exact_match", "length", "per", "rouge", "ter", "token_accuracy", "wer"}


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "reward").glob("*.yaml")))
def test_every_reward_says_whether_it_needs_references_and_scores_nothing_without(name: str) -> None:
    block = yaml.safe_load((conf_dir() / "reward" / f"{name}.yaml").read_text("utf-8"))
    kind: Any = locate(block["_target_"], [])
    assert hasattr(kind, "needs_references")
    if name in REFERENCED:
        reward = build(block, Reward, [])
        assert isinstance(reward, ReadsReferences)
        assert reward.needs_references
        assert np.isnan(reward(texts([("a b", []), ("c", [])]))).all()
    elif isinstance(kind.needs_references, bool):
        assert kind.needs_references is (name == "embedding_similarity")  # which has tests of its own


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "actor_critic"])  # that needs a critic's model
def test_every_algorithm_says_whether_it_needs_references(name: str) -> None:
    assert isinstance(preset(name, TabularPolicy(RECORDED.policy), Letters(), 3), ReadsReferences)


CHOSEN = [
    *(["mle"], ["raml"], ["gold"], ["ocd"], ["actor_critic", "algorithm.critic_steps=0"], ["ilql"]),
    *(["rloo"], ["rloo", "algorithm.nll_mix=0.1"], ["rloo", "algorithm.add_reference=true"]),
    ["rloo", "algorithm/forced_prefix=annealed", "algorithm.forced_prefix.start=1"],
    *(["dqn", "algorithm/data=mixed"], ["dqn", "algorithm/data=on_policy"]),
]


@pytest.mark.sample(4)
@pytest.mark.parametrize("words", CHOSEN, ids=" ".join)
def test_an_algorithm_needs_references_where_it_learns_otherwise_without(words: list[str]) -> None:
    """`needs_references` of an algorithm is right, whatever parts it is made of: tried with references and without."""
    said, learned = [], []
    batch = batch_of(5)
    ids, mask = torch.zeros(5, 1, dtype=torch.int64), torch.zeros(5, 1, dtype=torch.bool)
    prompts = replace(batch, targets=ids, target_mask=mask, reference_ids=ids, reference_mask=mask)
    for each in (batch, prompts):
        torch.manual_seed(3)
        model = Recurrent(TOKENIZER, TOKENIZER, "gru", 5, 7, 1, 0.0, False, False).double()
        algorithm = preset(words[0], model, TOKENIZER, 3, *words[1:])
        assert isinstance(algorithm, ReadsReferences)
        said.append(algorithm.needs_references)
        try:
            rollout = algorithm.collect(each)
            if algorithm.needs_rewards:
                rollout = judge(rollout, each, TOKENIZER, TableReward(RECORDED.table), Delta())[0]
            for _ in range(2):  # a new critic says nothing before its first step
                algorithm.update(rollout)
            learned.append([parameter.detach().clone() for parameter in model.parameters()])
        except (NonFinite, RuntimeError):
            learned.append([])  # nothing was there to learn from
    same = len(learned[1]) == len(learned[0]) and all(map(torch.equal, *learned))
    assert said == [not same] * 2


def test_far_above_is_more_than_noise_and_more_than_half_a_deviation() -> None:
    val, few = (np.array([0.5, 0.9] * count) for count in (500, 4))  # standard deviation 0.2
    assert far_above(np.full(128, 0.999), val)
    assert far_above(val + 0.12, val)
    assert not far_above(val + 0.08, val), "more than noise, and too little to matter"
    assert not far_above(np.full(128, 0.4), val), "val is better"
    assert not far_above(few + 0.15, few), "noise"
    assert not far_above(few - 0.65, np.zeros(8)), "noise of the first alone"
    assert not far_above(np.full(8, 0.1 + 1e-12), np.full(8, 0.1)), "rounding"
    assert far_above(np.array([1.0] * 8 + [np.nan]), np.zeros(8))
    assert not far_above(np.zeros(8), np.zeros(8))
    assert not far_above(np.array([1.0]), val)
    assert not far_above(np.array([np.nan]), val)
