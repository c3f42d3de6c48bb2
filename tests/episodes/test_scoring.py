"""From what was said to rewards: the right text, the right source, the right row, and nothing lost on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.credit.toy import EOS, Merges, every_text, rollout_from, to_go
from tests.presets import preset
from tests.world import WORLD, Capture, Letters, TabularPolicy, batch_of, samples_of
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import rollout_of
from tokenrl_cli.episodes.scoring import check_columns, judge, prefix_scores, texts_of
from tokenrl_cli.interfaces import CONTINUATION, DEMONSTRATION, GREEDY, SAMPLED, Batch, Example, Part, Texts, UserError

TOKENIZER = Merges(["a", "b", "ab", " "])
NUMBERS = Merges([f"{i} " for i in range(8)])


class Told:
    """What a function says of each text, [B] or [B, T]."""

    def __init__(self, function: Callable[[Texts], Any]) -> None:
        self.function, self.seen = function, list[Texts]()

    def __call__(self, texts: Texts) -> np.ndarray:
        self.seen.append(texts)
        return np.asarray(self.function(texts))


class Mixture:
    def __init__(self, *parts: tuple[str, float, Any]) -> None:
        self.parts = [Part(name, reward, weight, 1.0, 0.0, False) for name, weight, reward in parts]

    def __call__(self, texts: Texts) -> np.ndarray:
        raise AssertionError("a mixture is credited part by part")


class Lossy:
    """Loses a thousandth on the way."""

    def __init__(self, needs_prefixes: bool) -> None:
        self.needs_prefixes = needs_prefixes

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        return (Delta() if self.needs_prefixes else Terminal())(scores, mask, ended) * 0.999


class Quick(Merges):
    """Gives the prefixes itself."""

    def __init__(self, pieces: list[str]) -> None:
        super().__init__(pieces)
        self.decoded = 0

    def decode(self, ids: Sequence[int]) -> str:
        self.decoded += 1
        return super().decode(ids)

    def prefixes(self, ids: Sequence[int]) -> list[str]:
        return [super(Quick, self).decode(ids[:t]) for t in range(len(ids) + 1)]


class Engine(Told):
    """Scores prefixes itself, and leaves the places past a row's end as `filling`."""

    def __init__(self, function: Callable[[Texts], Any], filling: float) -> None:
        super().__init__(function)
        self.filling = filling

    def prefix_scores(self, texts: Texts, prefixes: list[list[str]]) -> np.ndarray:
        scores = np.full((len(prefixes), texts.mask.shape[1] + 1), self.filling)
        for row, strings in enumerate(prefixes):
            assert strings[0] == ""
            assert strings[-1] == texts.hypotheses[row]
            scores[row, : len(strings)] = [len(string) / 8 for string in strings]
        return scores


def lengths(texts: Texts) -> list[float]:
    return [len(text) / 8 for text in texts.hypotheses]


def is_not(word: str, score: float) -> Callable[[Texts], list[float]]:
    return lambda texts: [score if text == word else 1.0 for text in texts.hypotheses]


def judged(sequences: list[list[int]], reward: Any, credit: Any = None) -> tuple[Tensor, Tensor, dict[str, float]]:
    rollout, scores = judge(rollout_from(sequences), batch_of(1), TOKENIZER, reward, credit or Terminal())
    assert rollout.rewards is not None
    return rollout.rewards, rollout.valid, scores.metrics


def numbered(sources: int, step: int = 7) -> Batch:
    """The source, the reference and a column of row i all say i."""
    names = [f"{i} " for i in range(sources)]
    return replace(batch_of(sources, step), sources=names, references=[[n] for n in names], columns={"name": names})


def echo(texts: Texts) -> list[int]:
    rows = zip(texts.hypotheses, texts.references, texts.sources, texts.columns["name"], strict=True)
    return [int(said == references[0] == source == name) for said, references, source, name in rows]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.data())
def test_every_row_is_judged_by_its_own_source_in_any_order(sources: int, times: int, data: st.DataObject) -> None:
    """Trap 23: references that belong to other samples."""
    batch = numbered(sources)
    rollout = rollout_from([[i + 1, EOS] for i in range(sources) for _ in range(times)], batch)
    index = data.draw(st.lists(st.integers(0, len(rollout) - 1), min_size=1, max_size=20))
    for rows in (rollout, rollout.rows(torch.tensor(index))):
        done, _ = judge(rows, batch, NUMBERS, Told(echo), Terminal())
        assert done.rewards is not None
        assert done.rewards.tolist() == [[0, 1]] * len(rows)
        texts = texts_of(rows, batch, NUMBERS)
        assert texts.sources == texts.hypotheses == [references[0] for references in texts.references]


def test_an_answer_to_another_source_is_wrong() -> None:
    batch = numbered(3)
    rollout = rollout_from([[2, EOS], [3, EOS], [1, EOS]], batch)
    done, _ = judge(rollout, batch, NUMBERS, Told(echo), Terminal())
    assert done.rewards is not None
    assert not done.rewards.any()
    assert bool(done.valid.all())


def test_prefixes_keep_their_source_too() -> None:
    batch = numbered(5)
    rollout = rollout_from([[i + 1, 1, EOS] for i in range(5)], batch)
    rollout = rollout.rows(torch.tensor([3, 0, 4, 4]))
    rewards = judge(rollout, batch, NUMBERS, Told(echo), Delta())[0].rewards
    assert rewards is not None
    assert rewards.tolist() == [[1, -1, 0]] * 4


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
def test_what_was_sampled_is_kept_although_its_text_would_be_spelt_otherwise(credit: Any) -> None:
    sequences = every_text(5, 3)
    rollout = rollout_from(sequences)
    respelt = [TOKENIZER.encode(TOKENIZER.decode(ids)) != [i for i in ids if i != EOS] for ids in sequences]
    assert any(respelt)
    reward = Told(lengths)
    done, _ = judge(rollout, batch_of(1), TOKENIZER, reward, credit)
    assert done.actions is rollout.actions
    assert done.mask is rollout.mask
    assert done.logprobs is rollout.logprobs
    for texts in reward.seen:
        rows = zip(texts.hypotheses, texts.actions.tolist(), texts.mask.sum(-1).tolist(), strict=True)
        assert all(text == TOKENIZER.decode(ids[:length]) for text, ids, length in rows)


def test_padding_is_never_read() -> None:
    texts = texts_of(rollout_from([[1, EOS], [2, 2, 2]]), batch_of(1), TOKENIZER)  # padded with "a"
    assert texts.hypotheses == ["a", "bbb"]


def test_the_score_stands_at_the_last_real_token_of_ended_and_cut_rows() -> None:
    rewards, _, metrics = judged([[1, EOS], [2, 2, 2], [EOS]], Told(lambda texts: [1, 1, 1]))
    assert rewards.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert to_go(rewards).tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert metrics["completions/clipped_ratio"] == pytest.approx(1 / 3)
    assert metrics["completions/mean_length"] == 2


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
def test_integers_and_fractions_stay_what_they_are(credit: Any) -> None:
    half = Told(lambda texts: [0.5 * (text != "") for text in texts.hypotheses])
    whole = Told(lambda texts: np.array([3 * (text != "") for text in texts.hypotheses], dtype=np.int64))
    for reward, score in ((half, 0.5), (whole, 3.0)):
        rewards, _, metrics = judged([[1, EOS]], reward, credit)
        assert rewards.is_floating_point()
        assert rewards.sum() == score == metrics["reward"]


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
def test_a_row_without_a_score_weighs_nothing_and_is_counted(credit: Any) -> None:
    rewards, valid, metrics = judged([[1, EOS], [2, EOS], [1, 1]], Told(is_not("b", math.nan)), credit)
    assert valid.tolist() == [True, False, True]
    assert rewards.isfinite().all()
    assert rewards[1].tolist() == [0, 0]
    assert metrics["rewards/invalid"] == 1
    assert metrics["reward"] == 1
    assert metrics["reward_std"] == 0


def test_a_prefix_without_a_score_makes_its_row_invalid() -> None:
    reward = Told(is_not("a", math.nan))
    rewards, valid, metrics = judged([[1, 2, EOS], [2, 2, EOS]], reward, Delta())  # "a" is on the way to "ab"
    assert valid.tolist() == [False, True]
    assert rewards.isfinite().all()
    assert metrics["rewards/invalid"] == 1


def test_an_invalid_row_does_not_move_the_policy() -> None:
    gradients = []
    for sequences in ([[1, 2, EOS], [1, EOS]], [[1, 2, EOS], [1, EOS], [2, EOS]]):
        policy = TabularPolicy(WORLD["policy_logits"])
        algorithm = preset("reinforce", policy, Letters(), 3, "algorithm/baseline=none")
        algorithm.optimizer = Capture(policy.parameters())
        batch = batch_of(len(sequences))
        rollout = rollout_of(batch, samples_of(sequences, policy), SAMPLED)
        algorithm.update(judge(rollout, batch, Letters(), Told(is_not("b", math.nan)), Terminal())[0])
        gradients.append(algorithm.optimizer.gradient)
    assert torch.equal(*gradients)
    assert gradients[0].abs().max() > 0.01


def test_rows_already_invalid_stay_so_and_are_in_no_mean() -> None:
    rollout = replace(rollout_from([[1, EOS], [2, EOS]]), valid=torch.tensor([False, True]))
    rollout = replace(rollout, mask=rollout.mask & rollout.valid.unsqueeze(-1))
    done, scores = judge(rollout, batch_of(1), TOKENIZER, Told(lengths), Terminal())
    assert done.valid.tolist() == [False, True]
    assert scores.metrics["completions/mean_length"] == 2  # the other is no text, and in no mean


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
def test_parts_are_credited_apart_and_then_weighed(credit: Any) -> None:
    sequences = [[1, 2, EOS], [3, EOS]]
    first, second = Told(lengths), Told(is_not("ab", 0.25))
    together, _, metrics = judged(sequences, Mixture(("one", 2.0, first), ("two", -0.5, second)), credit)
    apart = [judged(sequences, part, credit)[0] for part in (first, second)]
    assert torch.equal(together, 2.0 * apart[0] - 0.5 * apart[1])
    assert metrics["rewards/one/mean"] == 0.25
    assert metrics["rewards/two/mean"] == 0.25
    assert metrics["reward"] == 2.0 * 0.25 - 0.5 * 0.25


def test_a_row_that_one_part_cannot_judge_is_invalid() -> None:
    mixture = Mixture(("one", 1.0, Told(lengths)), ("two", 0.0, Told(is_not("b", math.nan))))
    _, valid, metrics = judged([[1, EOS], [2, EOS]], mixture)
    assert valid.tolist() == [True, False]
    assert metrics["rewards/two/mean"] == 1


@pytest.mark.parametrize("needs_prefixes", [False, True])
def test_a_credit_that_loses_reward_is_caught(needs_prefixes: bool) -> None:
    with pytest.raises(UserError, match=r"Lossy does not conserve the score: .* by test_scoring is"):
        judged([[1, EOS]], Told(lengths), Lossy(needs_prefixes))


@pytest.mark.parametrize("given", ["one number a text", "no tensor"])
def test_a_credit_gives_one_number_a_token(given: str) -> None:
    class Odd(Terminal):
        def __call__(self, scores: Any, mask: Any, ended: Any) -> Any:
            return scores if given == "one number a text" else super().__call__(scores, mask, ended).tolist()

    with pytest.raises(UserError, match="must be a tensor of rewards of shape"):
        judged([[1, EOS]], Told(lengths), Odd())


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
@pytest.mark.parametrize("score", [math.inf, -math.inf])
def test_an_infinite_score_is_refused(score: float, credit: Any) -> None:
    with pytest.raises(UserError, match="infinite"):
        judged([[1, EOS], [2, EOS]], Told(is_not("b", score)), credit)


def test_a_number_a_token_has_no_score_of_a_prefix() -> None:
    reward = Told(lambda texts: texts.mask.astype(float))
    assert judged([[1, EOS], [2, 2, 2]], reward)[0].tolist() == [[0, 2, 0], [0, 0, 3]]
    with pytest.raises(UserError, match="credit=terminal"):
        judged([[1, EOS], [2, 2, 2]], reward, Delta())


def test_only_sampled_rows_are_reported() -> None:
    sequences = [[1, EOS], [1, 1, 1], [2, EOS]]
    rollout = rollout_from(sequences)
    rollout = replace(rollout, role=torch.tensor([SAMPLED, SAMPLED, DEMONSTRATION], dtype=torch.int8))
    metrics = judge(rollout, batch_of(1), TOKENIZER, Told(lengths), Terminal())[1].metrics
    assert metrics["reward"] == (1 + 3) / 16
    assert metrics["completions/mean_length"] == 2.5
    assert metrics["rewards/test_scoring/mean"] == metrics["reward"]


def test_sources_without_a_difference_are_counted() -> None:
    batch = numbered(3)
    rollout = rollout_from([[1, EOS], [1, EOS], [1, EOS], [1, 1, EOS], [1, EOS], [2, EOS]], batch)
    metrics = judge(rollout, batch, NUMBERS, Told(lengths), Terminal())[1].metrics
    assert metrics["frac_reward_zero_std"] == pytest.approx(2 / 3)


def test_a_source_with_one_sample_has_no_difference_to_miss() -> None:
    batch = numbered(2)
    metrics = judge(rollout_from([[1, EOS], [2, EOS]], batch), batch, NUMBERS, Told(lengths), Terminal())[1].metrics
    assert metrics["frac_reward_zero_std"] == 0


def test_a_tokenizer_that_knows_its_prefixes_is_asked_for_them() -> None:
    sequences, quick = every_text(5, 3), Quick(["a", "b", "ab", " "])
    done = [
        judge(rollout_from(sequences), batch_of(1), tokenizer, Told(lengths), Delta())[0].rewards
        for tokenizer in (TOKENIZER, quick)
    ]
    assert done[0] is not None
    assert done[1] is not None
    assert torch.equal(done[0], done[1])
    assert quick.decoded == len(sequences)  # the whole texts


@pytest.mark.parametrize("filling", [0.0, 9.0, math.nan])
def test_what_an_engine_says_past_the_end_of_a_row_does_not_matter(filling: float) -> None:
    sequences = [[1, 2, 3, EOS], [3, EOS], [EOS]]
    slow, _, plain = judged(sequences, Told(lengths), Delta())
    fast, valid, metrics = judged(sequences, Engine(lengths, filling), Delta())
    assert torch.equal(slow, fast)
    assert valid.all()
    assert metrics["reward"] == plain["reward"] == (4 + 2 + 0) / 8 / 3


@pytest.mark.parametrize("scale", [1e-6, 1e6, 1e12])
def test_rewards_of_any_size_pass_the_check_of_their_sum(scale: float) -> None:
    reward = Told(lambda texts: [scale * math.sin(1 + len(text) ** 2) for text in texts.hypotheses])
    rewards, _, _ = judged([[1, 2, 3, 3, 1, 2, 1, EOS]], reward, Delta())
    assert rewards.abs().max() > scale / 10


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
@pytest.mark.parametrize("scores", [[1.0], [[1.0], [1.0]], 1.0, [[1.0] * 9] * 2])
def test_scores_of_another_shape_are_named(scores: Any, credit: Any) -> None:
    reward = Told(lambda texts: scores)
    with pytest.raises(UserError, match=r"reward: test_scoring gave scores of shape"):
        judged([[1, 2, EOS], [2, EOS]], reward, credit)


def test_a_rollout_without_sampled_rows_says_what_its_demonstrations_earned() -> None:
    rollout = replace(rollout_from([[1, EOS]]), role=torch.tensor([DEMONSTRATION], dtype=torch.int8))
    metrics = judge(rollout, batch_of(1), TOKENIZER, Told(lengths), Terminal())[1].metrics
    assert metrics == {"demonstrations/reward": 0.125, "rewards/invalid": 0.0}


ROLES = [SAMPLED, GREEDY, SAMPLED, DEMONSTRATION, SAMPLED, CONTINUATION, SAMPLED]
SAID = [[1, EOS], [1, 1, 1, 1, 1], [1, 1, EOS], [2, 2, 2, 2, EOS], [3, 3, EOS], [1, 1, 1, EOS], [2, EOS]]  # 3 is "ab"


def of_all_kinds(credit: Any, part: Part) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Lengths of 1, 5, 2, 4, 4, 3 and NaN eighths; the sampled ones are 1, 2 and 4."""
    rollout = replace(rollout_from(SAID), role=torch.tensor(ROLES, dtype=torch.int8))
    mixture = Mixture()
    mixture.parts = [part]
    done, scores = judge(rollout, batch_of(1), TOKENIZER, mixture, credit)
    assert done.rewards is not None
    return done.rewards, done.valid, scores.metrics


@pytest.mark.parametrize("credit", [Terminal(), Delta()])
def test_what_normalises_a_part_is_the_sampled_texts_alone(credit: Any) -> None:
    """Companions, demonstrations, continuations and texts without a score are scaled as well, and not counted."""

    def score(texts: Texts) -> list[float]:
        return [math.nan if text == "b" else len(text) / 8 for text in texts.hypotheses]

    rewards, valid, metrics = of_all_kinds(credit, Part("it", Told(score), -2.0, 9.0, 9.0, True))
    mean, deviation = 7 / 24, math.sqrt((1**2 + 2**2 + 4**2) / 3 - (7 / 3) ** 2) / 8
    own = [1, 5, 2, 4, 4, 3]
    start = 0.0 if isinstance(credit, Terminal) else mean  # nothing is said, and scores 0 before it is normalised
    known = [i for i in range(7) if i != 6 and (isinstance(credit, Terminal) or i != 3)]  # "b" is on the way to "bbbb"
    assert valid.nonzero().flatten().tolist() == known
    for i in known:
        wanted = -2 * (own[i] / 8 - mean) / deviation - (2 * start / deviation if start else 0.0)
        assert float(rewards[i].sum()) == pytest.approx(wanted, abs=1e-12)
    assert metrics["rewards/it/mean"] == pytest.approx(mean)
    assert metrics["rewards/it/std"] == pytest.approx(deviation)
    assert metrics["reward"] == pytest.approx(0, abs=1e-12)
    assert metrics["reward_std"] == pytest.approx(2)
    assert metrics["rewards/invalid"] == 7 - len(known)
    assert metrics["completions/mean_length"] == pytest.approx(10 / 4)
    assert metrics["completions/clipped_ratio"] == 0
    if isinstance(credit, Terminal):
        assert metrics["demonstrations/reward"] == pytest.approx(-2 * (4 / 8 - mean) / deviation)


def test_a_part_is_scaled_shifted_and_weighed_by_hand() -> None:
    rewards, valid, metrics = of_all_kinds(Terminal(), Part("it", Told(lengths), 3.0, -2.0, 0.5, False))
    own = [1, 5, 2, 4, 4, 3, 1]
    assert rewards.sum(-1).tolist() == pytest.approx([3 * (-2 * n / 8 + 0.5) for n in own])
    assert valid.all()
    assert metrics["rewards/it/mean"] == pytest.approx((1 + 2 + 4 + 1) / 32)  # before it is scaled
    assert metrics["reward"] == pytest.approx(3 * (-2 * 8 / 32 + 0.5))
    assert metrics["demonstrations/reward"] == pytest.approx(3 * (-2 * 4 / 8 + 0.5))


def test_where_all_sampled_texts_score_the_same_only_the_mean_is_taken() -> None:
    part = Part("it", Told(lambda texts: [0.25] * len(texts.hypotheses)), 2.0, 9.0, 9.0, True)
    assert not of_all_kinds(Terminal(), part)[0].any()


def test_the_spread_of_a_batch_and_of_its_sources_by_hand() -> None:
    batch = numbered(3)
    said = [[1, EOS], [1, 1, EOS], [1, EOS], [1, EOS], [2, 2, 2, EOS], [1, EOS]]
    rollout = rollout_from(said, batch)
    metrics = judge(rollout, batch, TOKENIZER, Told(lengths), Terminal())[1].metrics
    scores = torch.tensor([1.0, 2, 1, 1, 3, 1]) / 8
    assert metrics["reward"] == pytest.approx(float(scores.mean()))
    assert metrics["reward_std"] == pytest.approx(float(scores.std(correction=0)))
    assert metrics["frac_reward_zero_std"] == pytest.approx(1 / 3)  # of 1 2, 1 1 and 3 1


def test_a_source_with_one_sample_is_not_among_those_that_could_differ() -> None:
    batch = numbered(3)
    rollout = rollout_from([[1, EOS], [1, 1, EOS], [1, EOS], [2, EOS], [1, EOS], [1, EOS]], batch)
    rollout = rollout.rows(torch.tensor([0, 1, 2, 4, 5]))  # of the second source one is left
    metrics = judge(rollout, batch, TOKENIZER, Told(lengths), Terminal())[1].metrics
    assert metrics["frac_reward_zero_std"] == pytest.approx(1 / 2)


def test_a_batch_may_have_more_sources_than_a_byte_can_count() -> None:
    batch = numbered(300)
    texts = texts_of(rollout_from([[1, EOS]] * 300, batch), batch, TOKENIZER)
    assert texts.sources == batch.sources
    assert texts.columns == batch.columns


def test_only_the_whole_text_has_ended_and_none_that_was_cut() -> None:
    """Its prefixes have not, the one that reads the same included."""
    ended = Told(lambda texts: texts.ended.astype(float))
    rewards, _, _ = judged([[1, 2, EOS], [1, 2, 2], [EOS]], ended, Delta())
    assert rewards.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


class Unreadable:
    """A data set of which only the splits in `there` can be read; each has another column."""

    def __init__(self, *there: str) -> None:
        self.there = there

    def size(self, split: str) -> int:
        if split not in self.there:
            raise UserError(split, "cannot be read")
        return 1

    def example(self, split: str, index: int) -> Example:
        return Example("0", "a", [], [], {split: 1})


class Reads(Told):
    def __init__(self) -> None:
        super().__init__(lengths)
        self.columns: list[list[str]] = []

    def check_columns(self, columns: Collection[str]) -> None:
        self.columns.append(list(columns))


@pytest.mark.parametrize("there", [["test"], ["train"], ["train", "test"], []])
def test_columns_are_checked_of_the_splits_that_can_be_read(there: list[str]) -> None:
    reward = Reads()
    check_columns([reward], Unreadable(*there))  # type: ignore[arg-type]
    assert reward.columns == [[split] for split in there]


class Overwriting(Told):
    """Writes into the prefixes that it gets."""

    def prefix_scores(self, texts: Texts, prefixes: list[list[str]]) -> np.ndarray:
        scores = np.array([[float(len(string)) for string in strings] for strings in prefixes])
        for strings in prefixes:
            strings[:] = [""] * len(strings)
        return scores


def test_what_a_part_writes_into_its_prefixes_reaches_no_other() -> None:
    texts = texts_of(rollout_from([[1, EOS]]), batch_of(1), TOKENIZER)
    prefixes = [["", "a", "ab"]]
    mixture = Mixture(("first", 1.0, Overwriting(lengths)), ("second", 1.0, Overwriting(lengths)))
    assert prefix_scores(mixture, texts, prefixes).tolist() == [[0, 2, 4]]
    assert prefixes == [["", "a", "ab"]]
