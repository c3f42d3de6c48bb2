"""Credit by optimal completion: nothing for a token on an optimal path, the price of an error at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from tests.credit.toy import Merges, every_text, rollout_from, to_go
from tests.reward.said import error_rate, texts
from tests.values import completion_values
from tests.world import SEQUENCES, WORLD, Letters, TabularPolicy, batch_of, exact_gradient
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.delta_optimal import DeltaOptimal
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.reward.bleu import Bleu

WORDS = Merges([" a", " b", " c"])
REFERENCE = "a b a c"


def rewards_of(
    sequences: list[list[int]], references: list[str], credit: object = None, source: torch.Tensor | None = None
) -> np.ndarray:
    batch = replace(batch_of(1), references=[references])
    if source is not None:
        batch = replace(batch, source=source, source_mask=torch.ones(source.shape[:2], dtype=torch.bool))
    rollout = rollout_from(sequences, batch)
    rewards = judge(rollout, batch, WORDS, error_rate("words"), credit or DeltaOptimal())[0].rewards  # type: ignore[arg-type]
    assert rewards is not None
    return rewards.numpy()


def test_an_error_costs_at_once_and_what_is_right_costs_nothing() -> None:
    rewards = rewards_of([[1, 2, 1, 3, 0], [1, 3, 2, 1, 3, 0], [1, 2, 0], [3, 3]], [REFERENCE])
    assert rewards[0].tolist() == [0] * 6
    assert rewards[1] == pytest.approx([0, -0.25, 0, 0, 0, 0])  # one word too many, found when it was said
    assert rewards[2] == pytest.approx([0, 0, -0.5, 0, 0, 0])  # ending early is the mistake of EOS
    assert rewards[3] == pytest.approx([-0.25, -0.5, 0, 0, 0, 0])  # cut: its last token is paid the text as it is


@pytest.mark.parametrize("source", [torch.ones(1, 1, dtype=torch.int64), torch.randn(1, 5, 3)], ids=["ids", "frames"])
def test_it_is_the_advantage_of_the_optimal_policy(source: torch.Tensor) -> None:
    """r_t = Q*(s_t, a_t) - V*(s_t), with V* the best of Q*, over the length of the reference; whatever the source."""
    sequences = [ids for ids in every_text(4, 4) if ids[-1] == 0]
    rewards = rewards_of(sequences, [REFERENCE], source=source)
    for row, ids in enumerate(sequences):
        values = completion_values(ids[:-1], [1, 2, 1, 3], 4)
        best = values.max(-1)
        advantages = [(values[t, token] - best[t]) / 4 for t, token in enumerate(ids)]
        assert rewards[row, : len(ids)] == pytest.approx(advantages, abs=1e-12), ids


@pytest.mark.parametrize("references", [[REFERENCE], [REFERENCE, "b c", ""]])
def test_a_reward_never_depends_on_a_later_token_and_the_sum_is_the_score(references: list[str]) -> None:
    sequences = every_text(4, 4)
    rewards = rewards_of(sequences, references)
    earned: dict[tuple[int, ...], float] = {}
    for ids, row in zip(sequences, rewards.tolist(), strict=True):
        whole = len(ids) == 4 and ids[-1] != 0  # at the limit the text is over, not only begun
        for t in range(len(ids) - whole):
            assert earned.setdefault(tuple(ids[: t + 1]), row[t]) == row[t]
    scores = error_rate("words")(texts([(WORDS.decode(ids), references) for ids in sequences]))
    assert np.abs(rewards.sum(-1) - (scores - 1)).max() < 1e-12  # the best text there is has 1


@pytest.mark.parametrize("credit", [Delta(), DeltaOptimal()], ids=["delta", "delta_optimal"])
@pytest.mark.parametrize("unit", ["characters", "words"])
def test_either_potential_leaves_the_expected_gradient_as_it_is(
    credit: object, unit: Literal["characters", "words"]
) -> None:
    """O13: sum_t grad log p(a_t) G_t over all texts is the gradient of the expected score; with gamma < 1 it is not."""
    policy = TabularPolicy(WORLD["policy_logits"])
    batch = replace(batch_of(1), references=[["ab", "b"]])
    reward = error_rate(unit)
    rewards = judge(rollout_from(SEQUENCES, batch), batch, Letters(), reward, credit)[0].rewards  # type: ignore[arg-type]
    assert rewards is not None
    scores = torch.from_numpy(reward(texts([(Letters().decode(ids), ["ab", "b"]) for ids in SEQUENCES])))
    exact = exact_gradient(policy, scores).flatten()
    estimates = []
    for gamma in (1.0, 0.9):
        total = torch.zeros((), dtype=torch.float64)
        for ids, row in zip(SEQUENCES, rewards.double(), strict=True):
            states = [WORLD["states"].index(list(ids[:t])) for t in range(len(ids))]
            logprobs = policy.table.log_softmax(-1)[states, list(ids)]
            discount = gamma ** torch.arange(len(ids))
            returns = to_go(row[: len(ids)] * discount) / discount
            total = total + logprobs.sum().exp().detach() * (logprobs * returns).sum()
        estimates.append(torch.autograd.grad(total, policy.table)[0].flatten())
    assert (estimates[0] - exact).abs().max() < 1e-14
    assert (estimates[1] - exact).norm() / exact.norm() > 0.01


def test_a_reward_without_optimal_completion_is_refused() -> None:
    batch = batch_of(1)
    with pytest.raises(UserError, match="needs completion_scores of the reward, which bleu does not have"):
        judge(rollout_from([[1, 0]], batch), batch, WORDS, Bleu(4, "exp", None, True, "13a", False), DeltaOptimal())
