"""RAML: how targets are damaged, and that its optimum is that of RL with an entropy bonus."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from tests.algorithm.test_policy_gradient import algorithm_with
from tests.world import EOS, RECORDED, Capture, Letters, TableReward, TabularPolicy, batch_of, samples_of
from tokenrl_cli.algorithm.raml import Raml
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import advantages
from tokenrl_cli.functional.demonstrations import replaced_share
from tokenrl_cli.interfaces import SAMPLED

TEXTS = [[first, second, EOS] for first in (1, 2) for second in (1, 2)]  # of the length of the demonstration, 1 2


class Four(Letters):
    """Four letters, an unknown token and EOS."""

    def __init__(self) -> None:
        self.size, self.unknown_id = 6, 1


def raml(logits: Any = RECORDED.policy, tau: float = 0.85, tokenizer: Any = None) -> Raml:
    return Raml(TabularPolicy(logits), tokenizer or Letters(), 3, tau, 0.0, 1, Capture)  # type: ignore[arg-type]


def test_the_share_is_that_of_the_exponentiated_reward() -> None:
    """By listing every text of 3 tokens out of 4 letters, q = exp(R / tau) / Z."""
    tau, n = 0.7, 3
    texts = list(itertools.product(range(4), repeat=3))
    weight = {text: math.exp(-(1 + math.log(n)) * sum(t != 0 for t in text) / tau) for text in texts}
    share = sum(w for text, w in weight.items() if text[1] != 0) / sum(weight.values())
    assert replaced_share(n, tau) == pytest.approx(share, abs=1e-12)


def test_tokens_are_replaced_as_often_and_by_what_they_should_be() -> None:
    algorithm, batch = raml(tokenizer=Four()), batch_of(6000)
    rollout = algorithm.collect(batch)
    p, said = replaced_share(3, 0.85), rollout.actions
    assert algorithm.allowed == [2, 3, 4, 5]
    found = float((said[:, 1] != 2).double().mean())  # demonstration 1 2 EOS: 1 is the unknown token here
    assert abs(found - p) < 4 * (p * (1 - p) / 6000) ** 0.5
    for token in (3, 4, 5):
        share = float((said[:, 1] == token).double().mean())
        assert abs(share - p / 3) < 4 * (p / 3 * (1 - p / 3) / 6000) ** 0.5
    assert (said[:, 2] == EOS).all()
    assert not (said[:, :2] == EOS).any()
    assert torch.equal(rollout.targets, said)
    assert torch.equal(rollout.mask, batch.target_mask)
    assert torch.equal(algorithm.collect(batch).actions, said)
    assert not torch.equal(algorithm.collect(batch_of(6000, 1)).actions, said)


def likelihood_gradient(logits: Any, tau: float) -> torch.Tensor:
    """Expected over q, from the algorithm's own loss."""
    algorithm, total = raml(logits, tau), torch.zeros(len(RECORDED.states), 3, dtype=torch.float64)
    weight = torch.tensor([math.exp(-((text[0] != 1) + (text[1] != 2)) / tau) for text in TEXTS], dtype=torch.float64)
    for share, text in zip(weight / weight.sum(), TEXTS, strict=True):
        batch = batch_of(1)
        rollout = Raml.__bases__[0].collect(algorithm, batch)  # type: ignore[attr-defined]
        rollout.actions[:] = torch.tensor(text)
        rollout.targets[:] = torch.tensor(text)
        algorithm.update(rollout)
        total += share * algorithm.optimizer.gradient  # type: ignore[attr-defined]
    return total


def reward_gradient(logits: Any, tau: float) -> torch.Tensor:
    """Of E[R] - tau KL(pi || uniform over the four texts), expected over the policy, from the policy gradient."""
    never = -60.0
    table = dict.fromkeys(RECORDED.table, -9.0)
    for text in TEXTS:
        table[Letters().decode(text)] = -float((text[0] != 1) + (text[1] != 2))
    algorithm = algorithm_with(advantages.no_baseline, 1, kl_coef=tau)
    algorithm.model = TabularPolicy(logits)
    algorithm.optimizer = Capture(algorithm.model.parameters())  # type: ignore[assignment]
    algorithm.reference.model = TabularPolicy([[0.0, 0.0, 0.0]] * len(RECORDED.states))
    with torch.no_grad():
        for prefix, state in RECORDED.states.items():
            algorithm.reference.model.table[state] = torch.tensor(
                [0.0, never, never] if len(prefix) == 2 else [never, 0.0, 0.0], dtype=torch.float64
            )
    total = torch.zeros(len(RECORDED.states), 3, dtype=torch.float64)
    logprobs = algorithm.model.table.detach().log_softmax(-1)
    for text in TEXTS:
        chance = sum(logprobs[RECORDED.states[tuple(text[:t])], token] for t, token in enumerate(text)).exp()
        batch = batch_of(1)
        rollout = rollout_of(batch, samples_of([text], algorithm.model), SAMPLED)
        algorithm.update(judge(rollout, batch, Letters(), TableReward(table), Terminal())[0])
        total += chance * algorithm.optimizer.gradient  # type: ignore[attr-defined]
    return total


@pytest.mark.parametrize("tau", [0.4, 0.85, 2.0])
def test_its_optimum_is_that_of_reinforcement_with_an_entropy_bonus(tau: float) -> None:
    """O33: pi proportional to exp(R / tau) satisfies both, and a policy beside it neither."""
    never, right = -60.0, [[0.0, 0.0, 0.0] for _ in RECORDED.states]
    for prefix, state in RECORDED.states.items():
        wanted = (1, 2)[len(prefix)] if len(prefix) < 2 else 0
        right[state] = [never, never, never]
        for token in (1, 2) if len(prefix) < 2 else (0,):
            right[state][token] = 0.0 if token == wanted else -1 / tau
    beside = [[logit + 0.3 * (token == 1) for token, logit in enumerate(row)] for row in right]
    for gradient in (likelihood_gradient, reward_gradient):
        assert gradient(right, tau).abs().max() < 1e-9
        assert gradient(beside, tau).abs().max() > 1e-3
