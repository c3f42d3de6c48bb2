"""Credit for what a token added: proved by listing all texts of a small vocabulary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.credit.toy import EOS, Merges, every_text, rollout_from, to_go
from tests.reward.said import error_rate, texts
from tests.world import REWARDS, SEQUENCES, WORLD, TabularPolicy, batch_of, exact_gradient
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import Reward
from tokenrl_cli.reward.bleu import Bleu
from tokenrl_cli.reward.chrf import Chrf
from tokenrl_cli.reward.exact_match import ExactMatch
from tokenrl_cli.reward.rouge import Rouge

WORLDS = [(["a", "b", "ab", " "], "ab b"), (["5", ".", "3", " "], "5.3")]
METRICS: list[Reward] = [
    Bleu(4, "exp", None, True, "13a", False),
    Chrf(6, 0, 2, False, False),
    Chrf(2, 2, 2, True, True),
    Rouge("rouge1", "fmeasure", False),
    Rouge("rougeL", "fmeasure", True),
    error_rate("words"),
    error_rate("characters"),
    ExactMatch(False, False),
]


@pytest.mark.parametrize("reward", METRICS, ids=lambda reward: type(reward).__name__)
@pytest.mark.parametrize(("pieces", "reference"), WORLDS, ids=["merges", "numbers"])
def test_a_reward_never_depends_on_a_later_token(pieces: list[str], reference: str, reward: Reward) -> None:
    tokenizer, sequences = Merges(pieces), every_text(5, 4)
    batch = replace(batch_of(1), references=[[reference]])
    rewards = judge(rollout_from(sequences, batch), batch, tokenizer, reward, Delta())[0].rewards
    assert rewards is not None
    earned: dict[tuple[int, ...], float] = {}
    for ids, row in zip(sequences, rewards.tolist(), strict=True):
        for t in range(len(ids)):
            assert earned.setdefault(tuple(ids[: t + 1]), row[t]) == row[t], (ids, t)
        assert not any(row[len(ids) :])
    whole = reward(texts([(tokenizer.decode(ids), [reference]) for ids in sequences]))
    empty = reward(texts([("", [reference])]))[0]
    assert np.abs(rewards.sum(-1).numpy() - (whole - empty)).max() < 1e-12
    assert np.ptp(whole) > 0.4
    assert sum(abs(each) > 1e-9 for each in earned.values()) >= 5


def test_half_a_word_is_scored_as_it_stands() -> None:
    """ "a" is paid at once, before it is known whether "b" makes it "ab": the text that is there is scored."""
    batch = replace(batch_of(1), references=[["ab"]])
    rollout = rollout_from([[1, 2, EOS], [3, EOS]], batch)
    rewards = judge(rollout, batch, Merges(WORLDS[0][0]), Chrf(2, 0, 2, False, False), Delta())[0].rewards
    assert rewards is not None
    assert rewards[0, 0] > 0
    assert rewards[0, 2] == 0
    assert rewards[0, :2].sum() == rewards[1, 0] == 1


def test_it_is_the_difference_of_neighbours_and_nothing_past_the_end() -> None:
    scores = torch.tensor([[0.0, 0.5, 0.25, 0.25], [0.125, 0.5, 0.5, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    rewards = Delta()(scores, mask, torch.tensor([True, False]))
    assert rewards.tolist() == [[0.5, -0.25, 0], [0.375, 0, 0]]
    assert rewards.dtype == torch.float64


def test_its_gradient_needs_all_that_is_still_to_come() -> None:
    """O13, trap 19: sum_t grad log p(a_t) G_t is exact with G_t the rewards to go; with r_t alone it is another."""
    policy = TabularPolicy(WORLD["policy_logits"])
    potential = dict(REWARDS)
    table = [[potential["".join(" ab"[i] for i in ids[:t] if i)] for t in range(len(ids) + 1)] for ids in SEQUENCES]
    exact = exact_gradient(policy, torch.tensor(WORLD["rewards"], dtype=torch.float64)).flatten()
    estimates = []
    for weigh in (to_go, lambda rewards: rewards):
        total = torch.zeros((), dtype=torch.float64)
        for ids, scores in zip(SEQUENCES, table, strict=True):
            states = [WORLD["states"].index(list(ids[:t])) for t in range(len(ids))]
            logprobs = policy.table.log_softmax(-1)[states, list(ids)]
            mask = torch.ones(1, len(ids), dtype=torch.bool)
            rewards = Delta()(torch.tensor([scores], dtype=torch.float64), mask, mask[:, -1])[0]
            total = total + logprobs.sum().exp().detach() * (logprobs * weigh(rewards)).sum()
        estimates.append(torch.autograd.grad(total, policy.table)[0].flatten())
    right, wrong = estimates
    assert (right - exact).abs().max() < 1e-14
    assert torch.cosine_similarity(wrong, exact, 0) < 0.9
