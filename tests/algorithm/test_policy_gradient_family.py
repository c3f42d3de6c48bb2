"""Every estimator of the family against the exact gradient: equal, scaled, or bent, as it is known to be."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.algorithm.test_policy_gradient import REWARD, TOKENIZER, algorithm_with, expected_gradient, gradient_of
from tests.world import (
    EOS,
    LENGTH,
    SEQUENCES,
    STATES,
    WORLD,
    TabularPolicy,
    batch_of,
    exact_gradient,
    probabilities,
    samples_of,
)
from tokenrl_cli.algorithm.policy_gradient import PolicyGradient
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import advantages, aggregation, kl, normalisation, surrogates
from tokenrl_cli.interfaces import SAMPLED, Rollout, SettingError

REWARDS = torch.tensor(WORLD["rewards"], dtype=torch.float64)
CLIP = {"clip_low": 0.2, "clip_high": 0.2}


def exact(rewards: Tensor = REWARDS) -> Tensor:
    return exact_gradient(TabularPolicy(WORLD["policy_logits"]), rewards).flatten()


def estimate(samples: int, baseline: Callable[..., Tensor] = advantages.group_mean, **changes: Any) -> Tensor:
    return expected_gradient(algorithm_with(baseline, samples, **changes), samples, Terminal()).flatten()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, 0))


@pytest.mark.parametrize("samples", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_group_mean_with_its_own_sample_is_the_gradient_times_k_less_1_over_k(samples: int) -> None:
    """O5, trap 11; O6: and Dr. GRPO that over the length."""
    scaled = exact() * (samples - 1) / samples
    assert (estimate(samples) - scaled).abs().max() < 1e-12
    dr_grpo = estimate(samples, aggregation=aggregation.constant_length)
    assert (dr_grpo - scaled / LENGTH).abs().max() < 1e-12


def test_a_batch_mean_of_one_source_is_a_group_mean() -> None:
    assert torch.allclose(estimate(2, advantages.batch_mean), estimate(2), rtol=0, atol=1e-15)


def test_the_mean_over_the_length_of_an_episode_bends_the_gradient() -> None:
    """O7, trap 8: with the reward centred at its mean .8987, raw .8379; where all lengths are equal it only scales."""
    mean = aggregation.sequence_mean
    assert cosine(estimate(1, advantages.no_baseline, aggregation=mean), exact()) == pytest.approx(0.8379, abs=5e-5)
    assert cosine(estimate(2, aggregation=mean), exact()) == pytest.approx(0.8987, abs=5e-5)
    full = torch.ones(4, 3, dtype=torch.bool)
    assert torch.allclose(mean(full), aggregation.sequence_sum(full) / 3)


@pytest.mark.slow
def test_the_mean_over_all_tokens_bends_it_less_the_more_samples_there_are() -> None:
    """O8."""
    found = [cosine(estimate(samples, aggregation=aggregation.token_mean), exact()) for samples in (2, 3)]
    assert found == pytest.approx([0.9830, 0.9923], abs=5e-5)


def test_the_standard_deviation_of_a_group_bends_it_and_equal_groups_are_exactly_nothing() -> None:
    """O9, trap 10."""
    found = [cosine(estimate(samples, normalisation=normalisation.group_std), exact()) for samples in (2, 3)]
    assert found == pytest.approx([0.9933, 0.9972], abs=6e-5)
    algorithm = algorithm_with(advantages.group_mean, 3, normalisation=normalisation.group_std)
    assert not gradient_of(algorithm, [SEQUENCES[4]] * 3, Terminal()).any()


@pytest.mark.parametrize(
    "surrogate",
    [
        partial(surrogates.clipped_ratio, **CLIP),
        partial(surrogates.sequence_ratio, **CLIP),
        partial(surrogates.detached_clip, **CLIP),
    ],
    ids=["clipped_ratio", "sequence_ratio", "detached_clip"],
)
def test_at_a_ratio_of_1_every_surrogate_has_the_gradient_of_the_score_function(surrogate: Any) -> None:
    """O19, O20."""
    assert (estimate(2, advantages.leave_one_out, surrogate=surrogate) - exact()).abs().max() < 1e-10


@pytest.mark.parametrize("coefficient", [0.3, 1.0])
def test_kl_in_the_reward_to_go_is_the_gradient_of_the_kl_of_whole_sequences(coefficient: float) -> None:
    """O11."""
    algorithm = algorithm_with(advantages.no_baseline, 1, kl_coef=coefficient)
    algorithm.reference.model = TabularPolicy(WORLD["reference_logits"])
    policy = TabularPolicy(WORLD["policy_logits"])
    chances, others = probabilities(policy), probabilities(algorithm.reference.model).detach()
    objective = (chances * (REWARDS - coefficient * (chances / others).log())).sum()
    (wanted,) = torch.autograd.grad(objective, policy.table)
    assert (expected_gradient(algorithm, 1, Terminal()) - wanted).abs().max() < 1e-12


def divergence_gradient(divergence: Callable[..., Tensor]) -> Tensor:
    """Of the divergence in the loss, in expectation."""
    found = []
    for coefficient in (0.0, 1.0):
        algorithm = algorithm_with(advantages.no_baseline, 1, kl_loss_coef=coefficient, divergence=divergence)
        algorithm.reference.model = TabularPolicy(WORLD["reference_logits"])
        found.append(expected_gradient(algorithm, 1, Terminal()).flatten())
    return found[0] - found[1]


def state_fixed(forward: bool) -> Tensor:
    """d sum_s visits(s) KL_s with the visits held fixed, by listing: KL(pi || ref), or KL(ref || pi)."""
    policy, reference = TabularPolicy(WORLD["policy_logits"]), TabularPolicy(WORLD["reference_logits"])
    chances = probabilities(policy).detach()
    visits = torch.zeros(len(WORLD["states"]), dtype=torch.float64)
    for chance, sequence in zip(chances, SEQUENCES, strict=True):
        for t in range(len(sequence)):
            visits[WORLD["states"].index(list(sequence[:t]))] += chance
    p, q = policy.table.log_softmax(-1), reference.table.detach().log_softmax(-1)
    each = (p.exp() * (p - q)).sum(-1) if forward else (q.exp() * (q - p)).sum(-1)
    (gradient,) = torch.autograd.grad((visits * each).sum(), policy.table)
    return gradient.flatten()


def test_divergences_in_the_loss_have_the_gradients_they_are_known_for() -> None:
    """O10, traps 16 and 17: k1 none, k2 that of KL(pi || ref) at fixed states, k3 that of the other direction."""
    assert divergence_gradient(kl.k1).abs().max() < 1e-14
    for right in (kl.k2, kl.k3_with_gradient_of_k2, kl.full):
        assert (divergence_gradient(right) - state_fixed(True)).abs().max() < 1e-12
    assert (divergence_gradient(kl.k3) - state_fixed(False)).abs().max() < 1e-12
    assert cosine(state_fixed(True), state_fixed(False)) < 0.999


@pytest.mark.parametrize("name", ["sequence_sum", "sequence_mean", "token_mean", "constant_length"])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_micro_batches_change_no_gradient(name: str, parts: int) -> None:
    """O29, trap 9: denominators are those of the optimiser step."""
    ragged = [SEQUENCES[i] for i in (0, 5, 14, 2)]
    found = []
    for micro_batches in (1, parts):
        changes: dict[str, Any] = {"aggregation": getattr(aggregation, name), "micro_batches": micro_batches}
        changes |= {"entropy_coef": 0.1, "nll_mix": 0.2, "kl_loss_coef": 0.3}
        algorithm = algorithm_with(advantages.leave_one_out, 4, **changes)
        algorithm.reference.model = TabularPolicy(WORLD["reference_logits"])
        found.append(gradient_of(algorithm, ragged, Terminal()))
    assert (found[0] - found[1]).abs().max() < 1e-12


def test_groups_that_are_all_alike_can_be_left_out_of_the_denominators() -> None:
    kept = algorithm_with(advantages.group_mean, 2, drop_equal_groups=True)
    assert not gradient_of(kept, [SEQUENCES[3]] * 2, Terminal()).any()
    differ = [SEQUENCES[3], SEQUENCES[9]]
    plain = algorithm_with(advantages.group_mean, 2)
    assert torch.equal(gradient_of(kept, differ, Terminal()), gradient_of(plain, differ, Terminal()))


def risk(alpha: float) -> dict[str, Any]:
    return {"baseline": advantages.no_baseline, "normalisation": partial(normalisation.self_normalised, alpha=alpha)}


def test_minimum_risk_over_all_texts_is_the_gradient_of_the_expected_reward() -> None:
    """O17: alpha = 1 with every text in the set once."""
    algorithm = algorithm_with(samples=len(SEQUENCES), **risk(1.0))
    assert (gradient_of(algorithm, SEQUENCES, Terminal()).flatten() - exact()).abs().max() < 1e-12


def test_minimum_risk_over_samples_is_biased_by_alpha_and_little_where_alpha_is_small() -> None:
    """O17, trap 20: the direction bends with alpha; alpha near 0 is alpha (K - 1) / K of the gradient."""
    found = {alpha: estimate(2, **risk(alpha)) for alpha in (1.0, 0.005)}
    assert 0.98 < cosine(found[1.0], exact()) < 0.9999
    assert cosine(found[0.005], exact()) > 1 - 1e-6
    scale = float(found[0.005].norm() / exact().norm())
    assert scale == pytest.approx(0.005 / 2, rel=1e-2)


def test_the_risk_is_that_of_its_definition() -> None:
    """By autograd through sum_k Q_k R_k itself."""
    chosen = [2, 7, 11]
    policy = TabularPolicy(WORLD["policy_logits"])
    likelihoods = probabilities(policy)[chosen].log()
    expected = ((0.7 * likelihoods).softmax(0) * REWARDS[chosen]).sum()
    (wanted,) = torch.autograd.grad(expected, policy.table)
    algorithm = algorithm_with(samples=3, **risk(0.7))
    assert (gradient_of(algorithm, [SEQUENCES[i] for i in chosen], Terminal()) - wanted).abs().max() < 1e-12


# --------------------------------------------------------------------------------- minimum word error rate training


def mwer(count: int, **changes: Any) -> PolicyGradient:
    """As conf/algorithm/mwer.yaml has it."""
    changes = {"hypotheses": "beam", "deduplicate": True, "nll_mix": 0.01} | changes
    return algorithm_with(samples=count, **(risk(1.0) | changes))


def formula(chosen: list[int], coefficient: float = 0.01) -> Tensor:
    """d/d logits of sum_i p_hat_i (W_i - W_bar) + lambda CE, by autograd: Prabhavalkar et al. 2018. W = 1 - reward; CE
    a mean over the three tokens of the demonstration."""
    policy = TabularPolicy(WORLD["policy_logits"])
    chances, errors = probabilities(policy), 1 - REWARDS[chosen]
    renormalised = chances[chosen] / chances[chosen].sum()
    cross_entropy = -chances[SEQUENCES.index([1, 2, EOS])].log() / 3
    loss = (renormalised * (errors - errors.mean())).sum() + coefficient * cross_entropy
    (gradient,) = torch.autograd.grad(loss, policy.table)
    return gradient


def descended(algorithm: PolicyGradient, sources: int = 2) -> tuple[Tensor, Rollout]:
    """The gradient of the loss on episodes that the algorithm collects itself, and these episodes, rewarded."""
    batch = batch_of(sources)
    rollout, _ = judge(algorithm.collect(batch), batch, TOKENIZER, REWARD, Terminal())
    logged = algorithm.update(rollout)
    assert logged["sampling/logp_difference/max"] < 1e-12  # the beam's hypotheses are scored before the update
    return algorithm.optimizer.gradient, rollout  # type: ignore[attr-defined]


@pytest.mark.parametrize("hypotheses", [15, 17])
def test_word_errors_among_all_texts_have_the_gradient_of_the_formula(hypotheses: int) -> None:
    """Of 17 hypotheses 2 do not exist, and weigh nothing."""
    found, rollout = descended(mwer(hypotheses))
    assert rollout.valid.sum() == 2 * 15
    assert (found - formula(list(range(15)))).abs().max() < 1e-12


@pytest.mark.parametrize("hypotheses", [2, 3, 4])
def test_word_errors_among_few_beams_have_the_gradient_of_the_formula_on_these(hypotheses: int) -> None:
    found, rollout = descended(mwer(hypotheses))
    texts = [row[: int(m.sum())] for row, m in zip(rollout.actions.tolist(), rollout.mask, strict=True)]
    chosen = [SEQUENCES.index(text) for text in texts[:hypotheses]]
    assert len(set(chosen)) == hypotheses
    assert (found - formula(chosen)).abs().max() < 1e-12
    others, _ = descended(mwer(hypotheses, nll_mix=0.0))
    assert (others - formula(chosen, 0.0)).abs().max() < 1e-12
    assert (others - found).abs().max() > 1e-4


def test_of_samples_each_text_counts_once() -> None:
    drawn = mwer(4, hypotheses="samples", nll_mix=0.0)
    found = -gradient_of(drawn, [SEQUENCES[i] for i in (2, 7, 7, 11)], Terminal())
    assert (found - formula([2, 7, 11], 0.0)).abs().max() < 1e-12


def test_a_beam_goes_with_weights_of_likelihood_and_with_nothing_that_is_drawn() -> None:
    with pytest.raises(SettingError, match="self_normalised"):
        algorithm_with(advantages.no_baseline, 4, hypotheses="beam")
    for change in ({"temperature": 0.7}, {"top_k": 2}, {"top_p": 0.9}, {"epsilon": 0.1}):
        with pytest.raises(SettingError, match="beam search"):
            mwer(4, **change)
    with pytest.raises(SettingError, match="beam search"):
        mwer(4, forced_prefix=lambda rollouts: 1.0)


@pytest.mark.parametrize("baseline", [advantages.leave_one_out, advantages.group_mean])
def test_advantages_of_a_group_sum_to_nothing(baseline: Callable[..., Tensor]) -> None:
    """O27."""
    returns, valid = torch.rand(5, 4, 1, dtype=torch.float64), torch.ones(5, 4, dtype=torch.bool)
    centred = returns - baseline(returns=returns, valid=valid)
    assert centred.sum(1).abs().max() < 1e-14
    mean = returns - advantages.group_mean(returns, valid)
    assert torch.allclose(returns - advantages.leave_one_out(returns, valid), mean * 4 / 3)


def test_every_logged_number_is_recomputed_from_the_batch() -> None:
    """Trap 39: what is logged is what is optimised. By loops over the episodes, from the tables alone."""
    chosen, coefficients = [2, 7, 11, 14], {"entropy_coef": 0.1, "nll_mix": 0.2, "kl_loss_coef": 0.3}
    changes: dict[str, Any] = {
        "aggregation": aggregation.token_mean,
        "surrogate": partial(surrogates.clipped_ratio, clip_low=0.05, clip_high=0.05),
        **coefficients,
    }
    algorithm = algorithm_with(advantages.leave_one_out, 4, **changes)
    algorithm.reference.model = TabularPolicy(WORLD["reference_logits"])
    sampler = TabularPolicy(WORLD["behaviour_logits"])
    batch = batch_of(1)
    rollout, _ = judge(
        rollout_of(batch, samples_of([SEQUENCES[i] for i in chosen], sampler), SAMPLED),
        batch,
        TOKENIZER,
        REWARD,
        Terminal(),
    )
    algorithm.updates = 1  # an old rollout: its first ratio is not 1
    logged = algorithm.update(rollout)

    new, old, fixed = (
        each.table.detach().log_softmax(-1) for each in (algorithm.model, sampler, algorithm.reference.model)
    )
    sums = dict.fromkeys(("loss/policy", "entropy", "clip_ratio/low", "clip_ratio/high", "approx_kl", "kl"), 0.0)
    tokens, returns, gains = 0, [], []
    for i in chosen:
        others = [float(REWARDS[j]) for j in chosen if j != i]
        gain = float(REWARDS[i]) - sum(others) / 3
        for t, token in enumerate(SEQUENCES[i]):
            state = STATES[tuple(SEQUENCES[i][:t])]
            ratio = float((new - old)[state, token].exp())
            sums["loss/policy"] -= min(ratio * gain, min(max(ratio, 0.95), 1.05) * gain)
            sums["entropy"] -= float((new[state].exp() * new[state]).sum())
            sums["clip_ratio/high"] += gain > 0 and ratio > 1.05
            sums["clip_ratio/low"] += gain < 0 and ratio < 0.95
            sums["approx_kl"] += ratio - 1 - math.log(ratio)
            sums["kl"] += float((new[state].exp() * (new - fixed)[state]).sum())  # whatever estimate the loss takes
            tokens += 1
            returns.append(float(REWARDS[i]))
            gains.append(gain)
    expected = {name: value / tokens for name, value in sums.items()}
    demonstration = [new[STATES[()], 1], new[STATES[(1,)], 2], new[STATES[(1, 2)], 0]]
    expected["loss/nll"] = -float(sum(demonstration)) / 3
    expected["baseline/variance_reduction"] = 1 - float(np.var(gains) / np.var(returns))
    expected["sampling/logp_difference/max"] = max(
        abs(float((new - old)[STATES[tuple(SEQUENCES[i][:t])], token]))
        for i in chosen
        for t, token in enumerate(SEQUENCES[i])
    )
    assert logged == pytest.approx(expected, abs=1e-12)
    assert 0 < logged["clip_ratio/high"] + logged["clip_ratio/low"] < 1
