"""Histories that are not the policy's own: MIXER's forced prefix, scheduled sampling, an added reference."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.algorithm.test_policy_gradient import algorithm_with, gradient_of
from tests.world import (
    EOS,
    RECORDED,
    Capture,
    Letters,
    TableReward,
    TabularPolicy,
    batch_of,
    probabilities,
    samples_of,
)
from tokenrl_cli.algorithm.mle import Mle
from tokenrl_cli.algorithm.policy_gradient import PolicyGradient
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import Decoding, concatenate, generate, recite, rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import advantages, normalisation, schedules
from tokenrl_cli.interfaces import DEMONSTRATION, SAMPLED, Rollout

TARGET = [1, 2, EOS]  # the demonstration of every source of `batch_of`


def mle(share: Any = schedules.never) -> Mle:
    return Mle(TabularPolicy(RECORDED.policy), Letters(), 7, 0.0, share, 1, Capture)  # type: ignore[arg-type]


def mixer(free: float, **changes: Any) -> PolicyGradient:
    prefix = partial(schedules.annealed, start=free, increment=0, every=1)
    return algorithm_with(advantages.no_baseline, 1, forced_prefix=prefix, nll_mix=1.0, **changes)


def updated(algorithm: Any, rollout: Rollout) -> Tensor:
    algorithm.update(rollout)
    return algorithm.optimizer.gradient.clone()


def test_mixer_without_a_token_of_its_own_is_maximum_likelihood() -> None:
    """O34, s = T."""
    algorithm, batch = mixer(0), batch_of(4)
    rollout = algorithm.collect(batch)
    assert torch.equal(rollout.actions, batch.targets)
    assert not rollout.chosen.any()
    rollout, _ = judge(rollout, batch, Letters(), TableReward(RECORDED.table), Terminal())
    likelihood = mle()
    assert torch.allclose(updated(algorithm, rollout), updated(likelihood, likelihood.collect(batch)), atol=1e-15)


def test_mixer_with_every_token_its_own_is_reinforce() -> None:
    """O34, s = 0."""
    batch = batch_of(4)
    found = []
    for algorithm in (mixer(3), algorithm_with(advantages.no_baseline, 1)):
        rollout, _ = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Terminal())
        found.append(updated(algorithm, rollout))
    assert torch.equal(found[0], found[1])
    assert found[0].abs().max() > 0


@pytest.mark.parametrize("free", [1, 2])
def test_after_a_forced_prefix_the_gradient_is_that_of_what_follows_it(free: int) -> None:
    """Expected reward of the texts that begin like the demonstration, and cross-entropy on that beginning."""
    algorithm = mixer(free)
    chances = probabilities(algorithm.model)
    kept = TARGET[: 3 - free]
    begin = [i for i, said in enumerate(RECORDED.sequences) if said[: len(kept)] == kept]
    share = chances[begin] / chances[begin].sum()
    logprobs = algorithm.model.table.log_softmax(-1)
    nll = -sum(logprobs[RECORDED.states[tuple(kept[:t])], token] for t, token in enumerate(kept)) / len(kept)
    (wanted,) = torch.autograd.grad((share * RECORDED.rewards[begin]).sum() - nll, algorithm.model.table)

    batch, total = batch_of(1), torch.zeros_like(wanted)
    for i, chance in zip(begin, share.detach(), strict=True):
        rollout = rollout_of(batch, samples_of([RECORDED.sequences[i]], algorithm.model), SAMPLED)
        own = rollout.mask & (torch.arange(rollout.mask.shape[1]) >= len(kept))
        rollout = replace(rollout, chosen=own, logprobs=rollout.logprobs * own)
        rollout, _ = judge(rollout, batch, Letters(), TableReward(RECORDED.table), Terminal())
        total -= chance * updated(algorithm, rollout)
    assert (total - wanted).abs().max() < 1e-12


def test_episodes_begin_as_the_demonstration_and_go_on_as_the_policy_says() -> None:
    forced = partial(schedules.annealed, start=2, increment=0, every=1)
    algorithm = algorithm_with(advantages.leave_one_out, 3, forced_prefix=forced)
    rollout = algorithm.collect(batch_of(40))
    assert (rollout.actions[:, 0] == TARGET[0]).all()
    assert not rollout.chosen[:, 0].any()
    assert (rollout.logprobs[:, 0] == 0).all()
    assert torch.equal(rollout.chosen[:, 1:], rollout.mask[:, 1:])
    assert len(rollout.actions[:, 1].unique()) == 3


def test_the_prefix_shrinks_by_the_schedule() -> None:
    free = partial(schedules.annealed, start=2, increment=3, every=10)
    assert [free(step) for step in (0, 9, 10, 25)] == [2, 2, 5, 8]
    growing = partial(schedules.annealed, start=0, increment=1, every=1)
    algorithm = algorithm_with(advantages.no_baseline, 1, forced_prefix=growing, nll_mix=1.0)
    for own in range(4):
        batch = batch_of(20, own)
        rollout = algorithm.collect(batch)
        assert int((rollout.mask & ~rollout.chosen).sum(-1).max()) == 3 - own
        algorithm.update(judge(rollout, batch, Letters(), TableReward(RECORDED.table), Terminal())[0])


def test_forced_tokens_are_said_and_nothing_else_changes() -> None:
    model, one = TabularPolicy(RECORDED.policy), torch.ones(200, 1, dtype=torch.int64)
    decoding = Decoding(3, 1.0, 0, 1.0, 0.0, [], 1, 0.0)

    def said(forced: Any = None) -> Any:
        draws = torch.Generator().manual_seed(1)
        return generate(model, one, one.bool(), decoding, 1, EOS, draws, forced)

    free = said()
    nothing = (torch.zeros(200, 2, dtype=torch.int64), torch.zeros(200, 2, dtype=torch.bool))
    assert torch.equal(said(nothing).actions, free.actions)
    second = (torch.full((200, 2), 2), torch.tensor([[False, True]]).expand(200, 2))
    forced = said(second)
    assert torch.equal(forced.actions[:, 0], free.actions[:, 0])
    going = forced.actions[:, 0] != EOS
    assert (forced.actions[going, 1] == 2).all()
    assert (forced.logprobs[going, 1] == 0).all()
    assert torch.equal(forced.logprobs[:, 0], free.logprobs[:, 0])
    assert bool(forced.mask[going, 2].all())


def test_without_a_share_scheduled_sampling_is_maximum_likelihood() -> None:
    algorithm, batch = mle(), batch_of(3)
    assert torch.equal(algorithm.collect(batch).actions, recite(batch, EOS).actions)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_label_smoothing_pulls_every_state_of_the_demonstration_towards_uniform(smoothing: float) -> None:
    """The gradient for a logit is p - (1 - e) [the token] - e / V, over the number of tokens."""
    algorithm, batch = mle(), batch_of(2)
    algorithm.label_smoothing = smoothing
    wanted = torch.zeros_like(algorithm.model.table)
    for t, token in enumerate(TARGET):
        state = RECORDED.states[tuple(TARGET[:t])]
        wanted[state] = (algorithm.model.table[state].detach().softmax(-1) - smoothing / 3) / 3
        wanted[state, token] -= (1 - smoothing) / 3
    assert (updated(algorithm, algorithm.collect(batch)) - wanted).abs().max() < 1e-12


def test_the_share_of_sampled_histories_follows_the_steps_of_the_optimiser() -> None:
    algorithm, asked = mle(lambda step: asked.append(step) or 0.0), list[int]()  # type: ignore[func-returns-value]
    for number in (0, 3, 7):
        algorithm.optimizer.steps = number
        algorithm.collect(batch_of(1))
    assert asked == [0, 3, 7]


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_histories_are_sampled_and_targets_stay(share: float) -> None:
    algorithm, batch = mle(lambda step: share), batch_of(400)
    rollout = algorithm.collect(batch)
    assert torch.equal(rollout.targets, batch.targets)
    assert torch.equal(rollout.mask, batch.target_mask)
    assert (rollout.actions[:, 2] == EOS).all()
    assert not (rollout.actions[:, :2] == EOS).any()
    probs = algorithm.model.table.detach().softmax(-1)[0]
    other = share * float(probs[2] / (probs[1] + probs[2]))  # of the first token
    found = float((rollout.actions[:, 0] == 2).double().mean())
    assert abs(found - other) < 4 * (other * (1 - other) / 400) ** 0.5
    assert torch.equal(algorithm.collect(batch).actions, rollout.actions)

    logprobs = algorithm.model.table.log_softmax(-1)
    histories = [tuple(row[:t]) for row in rollout.actions.tolist() for t in range(3)]
    nll = -sum(logprobs[RECORDED.states[history], TARGET[len(history)]] for history in histories) / 1200
    (wanted,) = torch.autograd.grad(nll, algorithm.model.table)
    assert (updated(algorithm, rollout) - wanted).abs().max() < 1e-12


def test_the_share_grows_as_asked() -> None:
    linear = partial(schedules.linear, final=0.3, over=10)
    assert [linear(step) for step in (0, 5, 10, 99)] == pytest.approx([0, 0.15, 0.3, 0.3])
    sigmoid = partial(schedules.inverse_sigmoid, k=20.0)
    assert sigmoid(0) == pytest.approx(1 / 21)
    assert sigmoid(60) == pytest.approx(0.5, abs=0.01)
    assert sigmoid(10**6) == 1.0


def test_a_reference_is_one_of_the_samples_with_the_likelihood_it_has() -> None:
    """Minimum risk with the reference added: by autograd through the definition."""
    parts: dict[str, Any] = {"normalisation": partial(normalisation.self_normalised, alpha=0.7)}
    algorithm = algorithm_with(advantages.no_baseline, 2, add_reference=True, **parts)
    batch, chosen = batch_of(2), [[2, 7], [11, 3]]
    sampled = rollout_of(
        batch, samples_of([RECORDED.sequences[i] for pair in chosen for i in pair], algorithm.model), 0
    )
    rollout = concatenate([sampled, algorithm.sampler.demonstrations(algorithm.model, batch)])
    assert (rollout.role == DEMONSTRATION).sum() == 2
    rollout, _ = judge(rollout, batch, Letters(), TableReward(RECORDED.table), Terminal())
    found = -updated(algorithm, rollout)
    chances, reference = probabilities(algorithm.model), RECORDED.sequences.index(TARGET)
    risk = sum(
        ((0.7 * chances[[*pair, reference]].log()).softmax(0) * RECORDED.rewards[[*pair, reference]]).sum()
        for pair in chosen
    )
    (wanted,) = torch.autograd.grad(risk / 2, algorithm.model.table)
    assert (found - wanted).abs().max() < 1e-12


def test_a_text_that_was_said_twice_counts_once() -> None:
    """Of sources with two and three different texts: each source still weighs the same."""
    parts: dict[str, Any] = {"normalisation": partial(normalisation.self_normalised, alpha=0.7)}
    algorithm = algorithm_with(advantages.no_baseline, 3, deduplicate=True, **parts)
    batch, chosen = batch_of(2), [[2, 7, 2], [11, 3, 5]]
    said = [RECORDED.sequences[i] for each in chosen for i in each]
    rollout = rollout_of(batch, samples_of(said, algorithm.model), SAMPLED)
    rollout, _ = judge(rollout, batch, Letters(), TableReward(RECORDED.table), Terminal())
    found = -updated(algorithm, rollout)
    chances = probabilities(algorithm.model)
    risk = sum(
        ((0.7 * chances[different].log()).softmax(0) * RECORDED.rewards[different]).sum()
        for different in ([2, 7], [11, 3, 5])
    )
    (wanted,) = torch.autograd.grad(risk / 2, algorithm.model.table)
    assert (found - wanted).abs().max() < 1e-12
    alone = algorithm_with(advantages.no_baseline, 3, deduplicate=True)
    assert torch.equal(
        gradient_of(alone, [RECORDED.sequences[4]] * 3, Terminal()),
        gradient_of(algorithm_with(advantages.no_baseline, 1), [RECORDED.sequences[4]], Terminal()),
    )
