"""The policy gradient against the exact gradient of the expected reward, by listing everything that can be sampled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.world import (
    RECORDED,
    REWARDS,
    WORLD,
    Capture,
    Letters,
    TableReward,
    TabularPolicy,
    batch_of,
    draws,
    exact_gradient,
    probabilities,
    samples_of,
)
from tokenrl_cli.algorithm.gradient.episodes import EpisodesWithAdvantages
from tokenrl_cli.algorithm.parts.baseline import MovingAverage
from tokenrl_cli.algorithm.parts.critic import NoCritic
from tokenrl_cli.algorithm.policy_gradient import PolicyGradient
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import concatenate, generate, rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import advantages, aggregation, kl, normalisation, schedules, surrogates
from tokenrl_cli.functional.returns import padded_reward_to_go
from tokenrl_cli.interfaces import GREEDY, SAMPLED, Credit, Rollout

TOKENIZER, REWARD = Letters(), TableReward(REWARDS)


def algorithm_with(baseline: Callable[..., Tensor], samples: int, **changes: object) -> PolicyGradient:
    values = {
        "samples_per_source": samples, "hypotheses": "samples", "temperature": 1.0, "top_k": 0, "top_p": 1.0,
        "epsilon": 0.0, "baseline": baseline, "kl_coef": 0.0, "entropy_coef": 0.0, "nll_mix": 0.0, "micro_batches": 1,
        "optimizer": Capture, "kl_loss_coef": 0.0, "drop_equal_groups": False, "epochs": 1, "minibatches": 1,
        "normalisation": normalisation.unscaled, "surrogate": surrogates.score_function,
        "aggregation": aggregation.sequence_sum, "divergence": kl.k2, "forced_prefix": schedules.all_tokens,
        "critic": NoCritic(), "add_reference": False, "deduplicate": False, "overlong_share": 0.0,
        "returns": padded_reward_to_go, "kl_target": 0.0, "kl_rate": 0.1, "reference": schedules.frozen,
    }  # fmt: skip
    world = changes.pop("world", RECORDED)
    policy = TabularPolicy(world.policy, world)  # type: ignore[attr-defined, arg-type]
    return PolicyGradient(policy, Letters(world.size), 3, 0, **(values | changes))  # type: ignore[attr-defined, arg-type]


def estimated(algorithm: PolicyGradient, rollout: Rollout) -> EpisodesWithAdvantages:
    """What an update computes of a rollout before its first optimiser step."""
    rollout, _ = algorithm.penalties(rollout)
    return algorithm.estimator(rollout, algorithm.model)[0]


def gradient_of(algorithm: PolicyGradient, sequences: list[list[int]], credit: Credit) -> Tensor:
    """Of the reward, as the algorithm estimates it from these episodes of one source."""
    batch = batch_of(1)
    rollout = rollout_of(batch, samples_of(sequences, algorithm.model), SAMPLED)
    if algorithm.sampler.greedy_baseline:
        greedy = algorithm.sampler.greedy
        said = generate(algorithm.model, batch.source, batch.source_mask, greedy, 1, 0, torch.Generator())
        rollout = concatenate([rollout, rollout_of(batch, said, GREEDY)])
    rollout, _ = judge(rollout, batch, TOKENIZER, TableReward(algorithm.model.world.table), credit)
    algorithm.update(rollout)
    return -algorithm.optimizer.gradient  # type: ignore[attr-defined]


def expected_gradient(algorithm: PolicyGradient, samples: int, credit: Credit) -> Tensor:
    chances = probabilities(algorithm.model).detach()
    total = torch.zeros_like(algorithm.model.table)
    sequences = algorithm.model.world.sequences
    for chosen, orders in draws(samples, len(sequences)):
        weight = orders * chances[list(chosen)].prod()
        total += weight * gradient_of(algorithm, [sequences[i] for i in chosen], credit)
    return total.detach()


def remembered(value: float) -> MovingAverage:
    """A moving average that holds `value` and, for the enumeration, does not move."""
    baseline = MovingAverage(0.9)
    baseline.load_state_dict({"average": value * (1 - 0.9), "weight": 1 - 0.9})
    baseline.observe = lambda returns, valid: None  # type: ignore[method-assign]
    return baseline


def test_the_world_is_read_as_it_was_written() -> None:
    rewards = torch.tensor(WORLD["rewards"], dtype=torch.float64)
    gradient = exact_gradient(TabularPolicy(WORLD["policy_logits"]), rewards)
    written = torch.tensor(WORLD["exact_gradient_of_expected_reward"], dtype=torch.float64)
    assert torch.allclose(gradient, written, rtol=0, atol=1e-15)


@pytest.mark.sample(3)
@pytest.mark.parametrize("credit", [Terminal(), Delta()], ids=["terminal", "delta"])
@pytest.mark.parametrize(
    ("name", "baseline", "samples"),
    [
        ("reinforce", advantages.no_baseline, 1),
        ("reinforce_average", remembered(0.7), 1),
        ("scst", advantages.greedy, 1),
        ("rloo", advantages.leave_one_out, 2),
        ("rloo", advantages.leave_one_out, 3),
    ],
)
def test_the_expected_estimate_is_the_exact_gradient(
    name: str, baseline: Callable[..., Tensor], samples: int, credit: Credit
) -> None:
    algorithm = algorithm_with(baseline, samples)
    rewards = torch.tensor(WORLD["rewards"], dtype=torch.float64)
    exact = exact_gradient(algorithm.model, rewards)
    estimate = expected_gradient(algorithm, samples, credit)
    assert (estimate - exact).abs().max() < 1e-10, name
