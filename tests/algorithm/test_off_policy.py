"""Estimators that are wrong in a known way, wrong by exactly that: old episodes, minimum risk, other worlds; and by
sampling instead of by listing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.algorithm.test_critics import values_of, with_critic
from tests.algorithm.test_policy_gradient import algorithm_with, expected_gradient, gradient_of
from tests.world import (
    RECORDED,
    Capture,
    Letters,
    TableReward,
    TabularPolicy,
    World,
    another,
    batch_of,
    exact_gradient,
    probabilities,
    samples_of,
)
from tokenrl_cli.algorithm.policy_gradient import PolicyGradient
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import advantages, aggregation, kl, normalisation, surrogates
from tokenrl_cli.interfaces import SAMPLED, ModelOutput, Texts

CREDITS = pytest.mark.parametrize("credit", [Terminal(), Delta()], ids=["terminal", "delta"])
WIDE = {"clip_low": 1.0, "clip_high": 1e9}
OWN = another()
WORLDS = pytest.mark.parametrize("world", [RECORDED, OWN], ids=["recorded", "own"])


def exact(world: World = RECORDED) -> Tensor:
    return exact_gradient(TabularPolicy(world.policy, world), world.rewards)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten(), b.flatten(), 0))


def from_old_episodes(surrogate: Callable[..., Any], credit: Any, world: World) -> Tensor:
    """Expected estimate from single episodes of another policy."""
    algorithm = algorithm_with(advantages.no_baseline, 1, surrogate=surrogate, world=world)
    sampler, batch = TabularPolicy(world.behaviour, world), batch_of(1)
    total = torch.zeros_like(algorithm.model.table)
    for chance, said in zip(probabilities(sampler).detach(), world.sequences, strict=True):
        rollout = rollout_of(batch, samples_of([said], sampler), SAMPLED)
        rollout, _ = judge(rollout, batch, Letters(world.size), TableReward(world.table), credit)
        algorithm.updates = 1  # the first ratio is not 1, and is known not to be
        algorithm.update(rollout)
        total += chance * -algorithm.optimizer.gradient  # type: ignore[attr-defined]
    return total.detach()


def of_prefix(logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted by the ratio of the episode so far: what a terminal reward is not paid for."""
    ratio = (logprobs - sampled_logprobs).cumsum(-1).exp().detach()
    return ratio * advantages * logprobs, torch.zeros_like(logprobs, dtype=torch.bool)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_old_episodes_weighted_token_by_token_are_biased_as_printed() -> None:
    """O12."""
    found = [
        relative_error(from_old_episodes(surrogate, Terminal(), RECORDED), exact())
        for surrogate in (surrogates.score_function, partial(surrogates.clipped_ratio, **WIDE), of_prefix)
    ]
    assert found == pytest.approx([0.924, 0.154, 0.141], abs=6e-4)


@WORLDS
@CREDITS
def test_old_episodes_weighted_decision_by_decision_are_exact(credit: Any, world: World) -> None:
    """O12, O37: with a terminal reward the weight is that of the whole episode."""
    found = from_old_episodes(partial(surrogates.per_decision, limit=0.0), credit, world)
    assert (found - exact(world)).abs().max() < 1e-12
    bounded = from_old_episodes(partial(surrogates.per_decision, limit=1.0), credit, world)
    assert relative_error(bounded, exact(world)) > 1e-2


@pytest.mark.sample(3)
@WORLDS
@CREDITS
@pytest.mark.parametrize(
    ("baseline", "samples"), [(advantages.no_baseline, 1), (advantages.greedy, 1), (advantages.leave_one_out, 2)]
)
def test_unbiased_baselines_are_unbiased_in_any_world(baseline: Any, samples: int, credit: Any, world: World) -> None:
    """O1, O2, O4, O13, O38: leave-one-out of returns to go, token by token, with dense rewards too."""
    algorithm = algorithm_with(baseline, samples, world=world)
    assert (expected_gradient(algorithm, samples, credit) - exact(world)).abs().max() < 1e-10


def test_a_sample_worse_than_the_greedy_text_becomes_less_likely() -> None:
    """O2, by its sign."""
    order = RECORDED.rewards.argsort().tolist()
    for index, sign in ((order[0], -1), (order[-1], 1)):
        said = RECORDED.sequences[index]
        gradient = gradient_of(algorithm_with(advantages.greedy, 1), [said], Terminal())
        assert float(gradient[RECORDED.states[()], said[0]]) * sign > 0


@pytest.mark.slow
def test_relations_of_the_printed_numbers_hold_in_another_world() -> None:
    """O5 to O11, O17, O19, O30 and O39 where nothing was tuned."""
    true = exact(OWN)

    def estimate(samples: int, baseline: Any = advantages.group_mean, **changes: Any) -> Tensor:
        return expected_gradient(algorithm_with(baseline, samples, world=OWN, **changes), samples, Terminal())

    assert (estimate(2) - true / 2).abs().max() < 1e-12
    assert (estimate(2, aggregation=aggregation.constant_length) - true / 6).abs().max() < 1e-12
    assert cosine(estimate(2, aggregation=aggregation.sequence_mean), true) < 1 - 1e-3
    assert cosine(estimate(2, aggregation=aggregation.token_mean), true) < 1 - 1e-3
    assert cosine(estimate(2, normalisation=normalisation.group_std), true) < 1 - 1e-3
    for surrogate in (surrogates.clipped_ratio, surrogates.sequence_ratio, surrogates.detached_clip):
        clipped = partial(surrogate, clip_low=0.2, clip_high=0.2)
        assert (estimate(2, surrogate=clipped) - true / 2).abs().max() < 1e-12
    risk = {alpha: partial(normalisation.self_normalised, alpha=alpha) for alpha in (1.0, 0.005)}
    bent = {alpha: estimate(2, advantages.no_baseline, normalisation=part) for alpha, part in risk.items()}
    assert cosine(bent[1.0], true) < 1 - 1e-3
    assert cosine(bent[0.005], true) > 1 - 1e-6

    algorithm = algorithm_with(advantages.no_baseline, 1, kl_coef=0.5, world=OWN)
    algorithm.reference.model = TabularPolicy(OWN.reference, OWN)
    policy = TabularPolicy(OWN.policy, OWN)
    chances, others = probabilities(policy), probabilities(algorithm.reference.model).detach()
    objective = (chances * (OWN.rewards - 0.5 * (chances / others).log())).sum()
    (wanted,) = torch.autograd.grad(objective, policy.table)
    assert (expected_gradient(algorithm, 1, Terminal()) - wanted).abs().max() < 1e-12

    known = {"values": values_of(OWN, Terminal()), "gae_lambda": 0.3}
    assert (expected_gradient(with_critic(world=OWN, **known), 1, Terminal()) - true).abs().max() < 1e-10


def immediate(rewards: Tensor, mask: Tensor) -> Tensor:
    """What a token itself was paid: no return at all."""
    return rewards.masked_fill(~mask, 0.0)


@WORLDS
def test_rewards_taken_as_immediate_bend_the_gradient(world: World) -> None:
    """Traps 18 and 19: KL in the reward, and prefix rewards, without what is still to come."""
    dense = algorithm_with(advantages.no_baseline, 1, returns=immediate, world=world)
    assert cosine(expected_gradient(dense, 1, Delta()), exact(world)) < 0.99

    def of_kl(**changes: Any) -> Tensor:
        algorithms = [algorithm_with(advantages.no_baseline, 1, kl_coef=c, world=world, **changes) for c in (0.0, 1.0)]
        algorithms[1].reference.model = TabularPolicy(world.reference, world)
        estimates = [expected_gradient(algorithm, 1, Terminal()) for algorithm in algorithms]
        return estimates[0] - estimates[1]

    assert cosine(of_kl(returns=immediate), of_kl()) < 0.999


class Choshen(nn.Module):
    """P = (theta, 2 theta^2, 1 - theta - 2 theta^2) for three texts of one token (arXiv:1907.01752, appendix A)."""

    width = 1

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        two = 2 * self.theta**2
        logits = torch.stack([self.theta, two, 1 - self.theta - two]).log()
        hidden = torch.zeros(*actions.shape, 1, dtype=torch.float64)
        return ModelOutput(hidden, lambda h: logits.expand(*h.shape[:2], 3))


class Paid:
    """r = (1, 0, 1/2) of the token said."""

    def __call__(self, texts: Texts) -> Any:
        return torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)[torch.as_tensor(texts.actions[:, 0])].numpy()


def drift(theta: float, alpha: float) -> float:
    """Expected gradient of sampled minimum risk with two samples, by listing the nine pairs."""
    model, batch, total = Choshen(theta), batch_of(1), 0.0
    template = algorithm_with(
        advantages.no_baseline, 2, normalisation=partial(normalisation.self_normalised, alpha=alpha)
    )
    template.model, template.optimizer = model, Capture(model.parameters())  # type: ignore[assignment]
    chances = torch.tensor([theta, 2 * theta**2, 1 - theta - 2 * theta**2], dtype=torch.float64)
    for first in range(3):
        for second in range(3):
            said = samples_of([[first], [second]], TabularPolicy(RECORDED.policy))
            likelihoods = chances[torch.tensor([[first], [second]])].log()
            rollout = rollout_of(batch, type(said)(said.actions, said.mask, likelihoods, None, said.ended), SAMPLED)
            rollout, _ = judge(rollout, batch, Letters(), Paid(), Terminal())
            template.update(rollout)
            total -= float(chances[first] * chances[second] * template.optimizer.gradient)
    return total


@pytest.mark.sample(1)
@pytest.mark.parametrize(("alpha", "zero"), [(1.0, 0.2959), (0.5, 0.2676), (0.1, 0.2508), (0.005, 0.2500)])
def test_sampled_minimum_risk_settles_where_choshen_et_al_say(alpha: float, zero: float) -> None:
    """O18: .25 is best; alpha of order 1 goes past it."""
    low, high = 0.15, 0.45
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if drift(middle, alpha) > 0 else (low, middle)
    assert low == pytest.approx(zero, abs=1e-4)


def test_the_objective_that_sampled_minimum_risk_follows_has_its_top_elsewhere() -> None:
    """O18: E[sum_k Q_k R_k] of two samples is largest at .3229."""

    def objective(theta: float) -> float:
        chances, paid = torch.tensor([theta, 2 * theta**2, 1 - theta - 2 * theta**2]), [1.0, 0.0, 0.5]
        total = 0.0
        for i in range(3):
            for j in range(3):
                share = chances[i] / (chances[i] + chances[j])
                total += float(chances[i] * chances[j] * (share * paid[i] + (1 - share) * paid[j]))
        return total

    grid = torch.linspace(0.25, 0.4, 1501, dtype=torch.float64).tolist()
    assert max(grid, key=objective) == pytest.approx(0.3229, abs=3e-4)


RISK = {"normalisation": partial(normalisation.self_normalised, alpha=0.005)}


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("baseline", "samples", "scale", "changes"),
    [
        (advantages.no_baseline, 1, 1.0, {}),
        (advantages.greedy, 1, 1.0, {}),
        (advantages.leave_one_out, 3, 1.0, {}),
        (advantages.group_mean, 2, 0.5, {}),
        (advantages.group_mean, 2, 0.5 / 3, {"aggregation": aggregation.constant_length}),
        (advantages.leave_one_out, 2, 1.0, {"kl_loss_coef": 1e-9, "divergence": kl.full}),
        (advantages.no_baseline, 2, 0.005 / 2, RISK),
    ],
    ids=["reinforce", "scst", "rloo", "group_mean", "dr_grpo", "kl", "mrt"],
)
def test_what_the_sampler_draws_gives_the_exact_gradient_on_average(
    baseline: Any, samples: int, scale: float, changes: dict[str, Any]
) -> None:
    """collect, judge and update themselves, 120 batches of 60 sources; each coordinate by t, fixed seed."""
    algorithm: PolicyGradient = algorithm_with(baseline, samples, **changes)
    estimates = []
    for step in range(120):
        batch = batch_of(60, step)
        rollout, _ = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Terminal())
        algorithm.update(rollout)
        estimates.append(-algorithm.optimizer.gradient.flatten())  # type: ignore[attr-defined, union-attr]
    found = torch.stack(estimates)
    error = found.std(0) / len(found) ** 0.5
    z = (found.mean(0) - scale * exact().flatten()) / error
    assert z.abs().max() < 4
    assert z.square().mean() < 2
    assert float((scale * exact().flatten() / error).abs().max()) > 10  # it could tell a wrong one
