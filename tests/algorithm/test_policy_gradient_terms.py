"""Each term of the policy gradient's loss by its sign and its denominator; which rows count, how often, and when."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.algorithm.test_critics import with_critic
from tests.algorithm.test_policy_gradient import algorithm_with, estimated
from tests.world import (
    EOS,
    RECORDED,
    Capture,
    Letters,
    TableReward,
    TabularPolicy,
    batch_of,
    samples_of,
)
from tokenrl_cli.algorithm.gradient.episodes import EpisodesWithAdvantages
from tokenrl_cli.algorithm.parts.baseline import MovingAverage
from tokenrl_cli.algorithm.parts.critic import Continuations, ValueHead
from tokenrl_cli.algorithm.policy_gradient import PolicyGradient
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import concatenate, rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import advantages, aggregation, normalisation, schedules, surrogates
from tokenrl_cli.interfaces import GREEDY, SAMPLED, Credit, Rollout
from tokenrl_cli.model.recurrent import Recurrent

SAID = [[1, 0], [2, 1, 0], [1, 2, 2], [0], [2, 2, 0], [2, 0]]


def rewarded(
    algorithm: PolicyGradient, said: list[list[int]], sources: int = 1, credit: Credit | None = None
) -> Rollout:
    """Given texts as if the policy had sampled them."""
    batch = batch_of(sources)
    rollout = rollout_of(batch, samples_of(said, algorithm.model), SAMPLED)
    return judge(rollout, batch, Letters(), TableReward(RECORDED.table), credit or Terminal())[0]


def gradient_after(algorithm: PolicyGradient, rollout: Rollout) -> Tensor:
    """Of the loss, in the logits."""
    algorithm.update(rollout)
    return algorithm.optimizer.gradient.clone()  # type: ignore[attr-defined, union-attr, no-any-return]


def states_of(said: list[list[int]]) -> list[int]:
    return [RECORDED.states[tuple(text[:t])] for text in said for t in range(len(text))]


@pytest.mark.parametrize("minibatches", [1, 2])
def test_the_entropy_bonus_raises_the_mean_entropy_of_the_states_visited(minibatches: int) -> None:
    """Of the tokens of the optimiser step: gradient of the loss = -eta d mean H."""
    algorithms = [
        algorithm_with(advantages.no_baseline, 6, entropy_coef=each, minibatches=minibatches) for each in (0.0, 0.3)
    ]
    parts: list[list[list[int]]] = []
    step = algorithms[1]._step

    def watched(part: EpisodesWithAdvantages) -> dict[str, float]:
        episodes = part.episodes
        parts.append([row[mask].tolist() for row, mask in zip(episodes.actions, episodes.mask, strict=True)])
        return step(part)

    algorithms[1]._step = watched  # type: ignore[method-assign]
    found = [gradient_after(algorithm, rewarded(algorithm, SAID)) for algorithm in algorithms]
    table = torch.tensor(RECORDED.policy, dtype=torch.float64, requires_grad=True)
    logprobs = table.log_softmax(-1)
    visited = states_of(parts[-1])  # what is captured is the gradient of the last step
    mean = -(logprobs.exp() * logprobs).sum(-1)[visited].mean()
    (wanted,) = torch.autograd.grad(-0.3 * mean, table)
    assert (found[1] - found[0] - wanted).abs().max() < 1e-12
    assert wanted.abs().max() > 1e-3


def test_cross_entropy_is_added_and_is_a_mean_over_the_tokens_of_the_demonstrations() -> None:
    """Once a source, however often that was sampled."""
    found = []
    for mix in (0.0, 0.4):
        algorithm = algorithm_with(advantages.no_baseline, 3, nll_mix=mix)
        found.append(gradient_after(algorithm, rewarded(algorithm, SAID, sources=2)))
    table = torch.tensor(RECORDED.policy, dtype=torch.float64, requires_grad=True)
    logprobs = table.log_softmax(-1)
    target = [1, 2, EOS]
    nll = -torch.stack([logprobs[RECORDED.states[tuple(target[:t])], token] for t, token in enumerate(target)]).mean()
    (wanted,) = torch.autograd.grad(0.4 * nll, table)
    assert (found[1] - found[0] - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("train", ["policy", "value"])
def test_the_value_head_goes_towards_the_returns_and_leaves_the_network_alone(train: str) -> None:
    """Through a network, whose hidden states have a gradient: d/dw of coef * mean (V - G)^2 / 2, and nothing else."""
    torch.manual_seed(3)
    network = Recurrent(Letters(), Letters(), "gru", 5, 7, 1, 0.5, False, False).double()
    found: list[list[Tensor]] = []
    for coef in (0.0, 0.5):
        critic = ValueHead(coef, 0.0, 1.0)
        template = with_critic(None, 1.0, 6, critic=critic)
        (head,) = critic.attach(network)  # instead of the head on the template's own policy
        with torch.no_grad():
            head.parameters[0].fill_(0.3)
        template.model = network
        network.eval()
        batch = batch_of(1)
        rollout = rollout_of(batch, samples_of(SAID, TabularPolicy(RECORDED.policy)), SAMPLED)
        rollout, _ = judge(rollout, batch, Letters(), TableReward(RECORDED.table), Delta())
        output = network(rollout.source, rollout.source_mask, rollout.actions, rollout.source_row)
        logprobs = output.logits.log_softmax(-1).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1).detach()
        rollout = replace(rollout, logprobs=logprobs.masked_fill(~rollout.mask, 0.0))
        everything = [*network.parameters(), *head.parameters]
        template.optimizer = Capture(everything)  # type: ignore[assignment]
        template.update(rollout)
        found.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in everything])
    if train == "policy":
        for with_value, without in zip(found[1][:-2], found[0][:-2], strict=True):
            assert torch.equal(with_value, without)
        assert max(float(each.abs().max()) for each in found[0][:-2]) > 1e-3
        return
    assert rollout.rewards is not None
    hidden, mask = output.hidden.detach(), rollout.mask
    returns = rollout.rewards.flip(-1).cumsum(-1).flip(-1)
    error = (hidden.sum(-1) * 0.3 + head.parameters[1].detach() - returns)[mask]
    wanted = 0.5 * (error.unsqueeze(-1) * hidden[mask]).mean(0)
    assert (found[1][-2].squeeze(0) - wanted).abs().max() < 1e-12
    assert wanted.abs().max() > 1e-2
    assert not found[0][-2].any()


def passes_of(algorithm: PolicyGradient, rollout: Rollout) -> list[list[tuple[float, ...]]]:
    """The rows of each optimiser step of an update: a row by its log-probabilities, followed by its advantages."""
    seen: list[list[tuple[float, ...]]] = []
    step = algorithm._step

    def watched(part: EpisodesWithAdvantages) -> dict[str, float]:
        rows = torch.cat([part.episodes.logprobs, part.advantages], 1)
        seen.append([tuple(row) for row in rows.tolist()])
        return step(part)

    algorithm._step = watched  # type: ignore[method-assign]
    algorithm.update(rollout)
    return seen


@pytest.mark.parametrize(("epochs", "minibatches"), [(4, 2), (3, 3), (2, 4), (3, 1)])
def test_every_pass_reads_each_row_once_with_the_same_advantage_in_an_order_of_its_own(
    epochs: int, minibatches: int
) -> None:
    orders = []
    for number in range(2):
        algorithm = algorithm_with(advantages.leave_one_out, 6, epochs=epochs, minibatches=minibatches)
        seen = passes_of(algorithm, replace(rewarded(algorithm, SAID), step=number))
        assert len(seen) == epochs * minibatches
        each = [seen[at : at + minibatches] for at in range(0, len(seen), minibatches)]
        whole = sorted(row for part in each[0] for row in part)
        assert len(set(whole)) == len(SAID)
        for parts in each:
            assert sorted(row for part in parts for row in part) == whole
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
        orders += [tuple(row for part in parts for row in part) for parts in each]
    if minibatches > 1:
        assert len(set(orders)) == len(orders)


def test_each_minibatch_has_the_denominators_of_its_own_rows() -> None:
    algorithm = algorithm_with(advantages.no_baseline, 6, minibatches=2, aggregation=aggregation.token_mean)
    sums: list[float] = []
    step = algorithm._step
    algorithm._step = lambda part: sums.append(float(part.weights.sum())) or step(part)  # type: ignore[method-assign]
    algorithm.update(rewarded(algorithm, SAID))
    assert sums == pytest.approx([1, 1])


def test_what_is_learned_in_later_passes_is_weighed_against_the_policy_that_sampled() -> None:
    """The ratio's denominator stays while the policy moves: by autograd at the policy after the first step."""
    wide = {"clip_low": 1.0, "clip_high": 1e9}
    algorithm = algorithm_with(
        advantages.no_baseline, 6, epochs=2, surrogate=partial(surrogates.clipped_ratio, **wide), optimizer=Descent
    )
    rollout = rewarded(algorithm, SAID)
    before = algorithm.model.table.detach().clone()

    def loss(table: Tensor) -> Tensor:
        new, old = table.log_softmax(-1), before.log_softmax(-1)
        total = torch.zeros((), dtype=torch.float64)
        for said in SAID:
            reward = RECORDED.table[Letters().decode(said)]
            for state, token in zip(states_of([said]), said, strict=True):
                total = total - (new - old)[state, token].exp() * reward / len(SAID)
        return total

    algorithm.update(rollout)
    table = before.clone()
    for _ in range(2):
        at = table.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(at), at)
        table = table - 0.5 * slope
    assert (algorithm.model.table.detach() - table).abs().max() < 1e-12


class Descent(Capture):
    """Goes half the gradient down."""

    def step(self) -> dict[str, float]:
        with torch.no_grad():
            self.parameters[0] -= 0.5 * self.parameters[0].grad  # type: ignore[operator]
        return super().step()


def test_the_reference_moves_after_the_update_and_to_the_policy_as_it_is_then() -> None:
    follow = partial(schedules.moving_average, rate=0.25)
    algorithm = algorithm_with(
        advantages.no_baseline, 6, epochs=2, kl_coef=0.1, kl_loss_coef=0.1, reference=follow, optimizer=Descent
    )
    before = algorithm.model.table.detach().clone()
    during: list[Tensor] = []
    step = algorithm._step

    def watched(part: EpisodesWithAdvantages) -> dict[str, float]:
        during.append(algorithm.reference.model.table.clone())
        return step(part)

    algorithm._step = watched  # type: ignore[method-assign]
    with torch.no_grad():
        algorithm.model.table += 1.0  # an update before this one: the reference is another
    algorithm.update(rewarded(algorithm, SAID))
    assert len(during) == 2
    assert all(torch.equal(each, before) for each in during)
    after = algorithm.model.table.detach()
    assert (after - 1 - before).abs().max() > 1e-3
    assert ((algorithm.reference.model.table - before) - 0.25 * (after - before)).abs().max() < 1e-12


PARTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deduplicate": {"deduplicate": True},
    "drop_equal_groups": {"drop_equal_groups": True},
    "leave_one_out": {"baseline": advantages.leave_one_out},
    "group_std": {"baseline": advantages.group_mean, "normalisation": normalisation.group_std},
    "whiten": {"normalisation": normalisation.whiten},
    "token_mean": {"aggregation": aggregation.token_mean},
    "risk": {"normalisation": partial(normalisation.self_normalised, alpha=0.7)},
    "terms": {"entropy_coef": 0.3, "kl_loss_coef": 0.2, "kl_coef": 0.1},
    "state_value": {"baseline": advantages.state_value, "critic": ValueHead(0.5, 0.0, 1.0)},
}


@pytest.mark.parametrize("parts", PARTS)
def test_an_episode_without_a_reward_weighs_nothing(parts: str) -> None:
    """As if it had not been sampled, whatever the text, and whatever else would count or leave out texts."""
    found = []
    for failed in ([], [[2, 2, 2]]):
        algorithm = algorithm_with(**({"baseline": advantages.no_baseline, "samples": 3 + len(failed)} | PARTS[parts]))
        if algorithm.reference.model is not None:
            algorithm.reference.model = TabularPolicy(RECORDED.reference)
        rollout = rewarded(algorithm, [*failed, *SAID[:3]])
        rollout.valid[: len(failed)] = False
        assert rollout.rewards is not None
        rollout.rewards[: len(failed)] += 7.0
        found.append(gradient_after(algorithm, rollout))
    assert (found[0] - found[1]).abs().max() < 1e-12
    assert found[0].abs().max() > 1e-3


def test_of_a_text_that_was_sampled_twice_the_one_with_a_reward_counts() -> None:
    found = []
    for said in ([SAID[0], SAID[1]], [SAID[0], SAID[0], SAID[1]]):
        algorithm = algorithm_with(advantages.no_baseline, len(said), deduplicate=True)
        rollout = rewarded(algorithm, said)
        rollout.valid[: len(said) - 2] = False
        found.append(gradient_after(algorithm, rollout))
    assert (found[0] - found[1]).abs().max() < 1e-12
    assert found[0].abs().max() > 1e-3


def test_groups_are_equal_by_the_samples_that_have_a_reward() -> None:
    """Two sources, three samples: where those of the first that count are alike, the second is all that is left."""
    said = [SAID[4], SAID[0], SAID[0], *SAID[1:4]]
    algorithm = algorithm_with(advantages.no_baseline, 3, drop_equal_groups=True)
    rollout = rewarded(algorithm, said, sources=2)
    rollout.valid[0] = False
    alone = algorithm_with(advantages.no_baseline, 3)
    found = [gradient_after(algorithm, rollout), gradient_after(alone, rewarded(alone, SAID[1:4]))]
    assert (found[0] - found[1]).abs().max() < 1e-12
    assert found[0].abs().max() > 1e-3


@pytest.mark.parametrize("credit", [Terminal(), Delta()], ids=["terminal", "delta"])
def test_a_greedy_baseline_is_the_return_to_go_of_the_sources_own_companion(credit: Credit) -> None:
    """Two sources with different companions, one of them shorter than the samples: it keeps its last token's return."""
    companions = [[1, 0], [2, 2, 2]]
    algorithm, batch = algorithm_with(advantages.greedy, 3), batch_of(2)
    parts = [rollout_of(batch, samples_of(said, algorithm.model), role) for said, role in
             ((SAID, SAMPLED), (companions, GREEDY))]  # fmt: skip
    rollout, _ = judge(concatenate(parts), batch, Letters(), TableReward(RECORDED.table), credit)
    weighted = estimated(algorithm, rollout)
    assert rollout.rewards is not None
    paid = [row[mask].tolist() for row, mask in zip(rollout.rewards, rollout.mask, strict=True)]
    for row, said in enumerate(SAID):
        other = paid[6 + row // 3]
        for t in range(len(said)):
            baseline = sum(other[min(t, len(other) - 1) :])
            assert float(weighted.advantages[row, t]) == pytest.approx(sum(paid[row][t:]) - baseline, abs=1e-12)


def test_a_moving_average_is_read_before_it_takes_the_batch_in() -> None:
    algorithm = algorithm_with(MovingAverage(0.9), 6)
    seen = [estimated(algorithm, rewarded(algorithm, said)).advantages[:, 0] for said in (SAID, SAID[::-1])]
    rewards = torch.tensor([RECORDED.table[Letters().decode(said)] for said in SAID], dtype=torch.float64)
    assert (seen[0] - rewards).abs().max() < 1e-12
    assert (seen[1] - (rewards.flip(0) - rewards.mean())).abs().max() < 1e-12


def test_each_rollout_and_its_continuations_are_drawn_anew() -> None:
    """Of twenty steps' first sample and its continuation from the beginning, which would say the same of one stream."""
    algorithm = with_critic(None, 0.0, 1, critic=Continuations(1, 1))
    texts = []
    for step in range(20):
        rollout = algorithm.collect(batch_of(1, step))
        texts.append([tuple(rollout.actions[row][rollout.mask[row]].tolist()) for row in (0, 1)])
    assert any(sampled != again for sampled, again in texts)
    assert len({sampled for sampled, _ in texts}) > 3
    assert len({again for _, again in texts}) > 3
