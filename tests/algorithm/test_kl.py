"""KL(q || reference), where q is the distribution that is sampled from and the reference is a plain softmax.

One quantity in the reward, in the loss and in the log, however tokens are sampled, by listing every text. What q is, is
written down here a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.algorithm.test_policy_gradient import algorithm_with, estimated
from tests.world import RECORDED, Letters, TableReward, TabularPolicy, World, another, batch_of, samples_of
from tokenrl_cli.algorithm.parts.critic import Continuations
from tokenrl_cli.algorithm.policy_gradient import PolicyGradient
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import concatenate, distribution, rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import advantages, chunks, kl
from tokenrl_cli.functional.returns import lambda_returns
from tokenrl_cli.interfaces import CONTINUATION, SAMPLED, Rollout, UserError

WAYS: dict[str, dict[str, Any]] = {
    "cold": {"temperature": 0.5},
    "hot": {"temperature": 2.0},
    "explored": {"epsilon": 0.3},
    "hot_explored": {"temperature": 2.0, "epsilon": 0.3},
    "nucleus": {"top_p": 0.9, "temperature": 0.5},
    "two_explored": {"top_k": 2, "epsilon": 0.3},
    "all": {"top_k": 2, "top_p": 0.8, "temperature": 2.0, "epsilon": 0.3},
}
CUT = ("nucleus", "two_explored", "all")
OWN = another()
WORLDS = pytest.mark.parametrize("world", [RECORDED, OWN], ids=["recorded", "own"])
EVERY_WAY = pytest.mark.parametrize("way", WAYS)


def sampler(
    table: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, epsilon: float = 0.0
) -> Tensor:
    """q of every state, [S, V], differentiable: cut, heat, renormalise, mix with the uniform one over what is left."""
    rows = []
    for logits in table / temperature:
        best = sorted(range(len(logits)), key=lambda token: -float(logits[token].detach()))[: top_k or None]
        weight = logits.exp()
        mass, left = 0.0, []
        for token in best:
            if mass < top_p:
                left.append(token)
            mass += float((weight[token] / weight[best].sum()).detach())
        kept = torch.zeros_like(logits).index_fill(0, torch.tensor(left), 1.0)
        rows.append((1 - epsilon) * weight * kept / (weight * kept).sum() + epsilon * kept / len(left))
    return torch.stack(rows)


def visited(world: World, said: list[int]) -> Iterator[tuple[int, int]]:
    """State and token of every step of a text."""
    for t, token in enumerate(said):
        yield world.states[tuple(said[:t])], token


def texts(q: Tensor, world: World) -> Tensor:
    """The probability of every text under token probabilities q [S, V]."""
    return torch.stack([torch.stack([q[step] for step in visited(world, said)]).prod() for said in world.sequences])


def divergence_of_texts(q: Tensor, world: World) -> Tensor:
    """KL(q || reference) of whole texts."""
    own, other = texts(q, world), texts(torch.tensor(world.reference, dtype=torch.float64).softmax(-1), world)
    possible = own > 0
    return (own[possible] * (own[possible] / other[possible]).log()).sum()


def of_states(q: Tensor, world: World, forward: bool = True) -> Tensor:
    """KL(q || reference) of every state, or KL(reference || q): [S]."""
    other = torch.tensor(world.reference, dtype=torch.float64).softmax(-1)
    if not forward:
        return (other * (other / q).log()).sum(-1)
    return torch.where(q > 0, q * (q.clamp(min=1e-300) / other).log(), 0.0).sum(-1)


def algorithm_of(world: World, way: str, samples: int = 1, **changes: Any) -> PolicyGradient:
    algorithm = algorithm_with(
        **({"baseline": advantages.no_baseline, "samples": samples, "world": world} | WAYS[way] | changes)
    )
    if algorithm.reference.model is not None:
        algorithm.reference.model = TabularPolicy(world.reference, world)
    return algorithm


def rollout_by(algorithm: PolicyGradient, said: list[list[int]], sources: int = 1) -> Rollout:
    """Given texts as if the algorithm had sampled them, with what its sampler would keep of them; rewarded."""
    batch, world = batch_of(sources), algorithm.model.world
    samples = samples_of(said, algorithm.model)
    one = torch.ones(len(said), 1, dtype=torch.int64)
    with torch.no_grad():
        logprobs, support = distribution(algorithm.model(one, one.bool(), samples.actions).logits, algorithm.decoding)
    taken = logprobs.gather(-1, samples.actions.unsqueeze(-1)).squeeze(-1).masked_fill(~samples.mask, 0.0)
    rollout = rollout_of(batch, replace(samples, logprobs=taken, support=support), SAMPLED)
    return judge(rollout, batch, Letters(world.size), TableReward(world.table), Terminal())[0]


def recited_by(algorithm: PolicyGradient) -> Rollout:
    """The demonstration of one source as an added sample, rewarded."""
    batch = batch_of(1)
    shown = algorithm.sampler.demonstrations(algorithm.model, batch)
    return judge(shown, batch, Letters(), TableReward(RECORDED.table), Terminal())[0]


def expectation(algorithm: PolicyGradient, way: str) -> tuple[Tensor, float]:
    """Of the gradient (upwards) and of the logged `kl` summed over tokens, over single texts as q says them."""
    world = algorithm.model.world
    chances = texts(sampler(algorithm.model.table.detach(), **WAYS[way]), world)
    assert float(chances.sum()) == pytest.approx(1, abs=1e-12)
    total, logged = torch.zeros_like(algorithm.model.table), 0.0
    for chance, said in zip(chances, world.sequences, strict=True):
        if chance > 0:
            metrics = algorithm.update(rollout_by(algorithm, [said]))
            total -= chance * algorithm.optimizer.gradient  # type: ignore[attr-defined]
            logged += float(chance) * len(said) * metrics.get("kl", 0.0)
    return total.detach(), logged


def gradient(value: Callable[[Tensor], Tensor], world: World, way: str) -> tuple[Tensor, float]:
    """d value(q) / d logits, and the value."""
    table = torch.tensor(world.policy, dtype=torch.float64, requires_grad=True)
    result = value(sampler(table, **WAYS[way]))
    (found,) = torch.autograd.grad(result, table)
    return found, float(result.detach())


@WORLDS
@EVERY_WAY
def test_kl_in_the_reward_has_the_gradient_and_the_mean_of_the_kl_of_whole_texts(way: str, world: World) -> None:
    algorithm = algorithm_of(world, way, kl_coef=0.7)
    found, logged = expectation(algorithm, way)
    wanted, _ = gradient(
        lambda q: (texts(q, world) * world.rewards).sum() - 0.7 * divergence_of_texts(q, world), world, way
    )
    exact = float(divergence_of_texts(sampler(algorithm.model.table.detach(), **WAYS[way]), world))
    assert (found - wanted).abs().max() < 1e-10
    assert logged == pytest.approx(exact, abs=1e-10)
    assert exact > 0.01


@EVERY_WAY
def test_what_is_a_cut_here_leaves_out_some_tokens_and_leaves_some_choice(way: str) -> None:
    for world in (RECORDED, OWN):
        left = (sampler(torch.tensor(world.policy, dtype=torch.float64), **WAYS[way]) > 0).sum(-1)
        assert bool((left < world.size).any()) == (way in CUT)
        assert bool((left > 1).any())


@cache
def of_reward(way: str) -> Tensor:
    return expectation(algorithm_of(RECORDED, way), way)[0]


def in_loss(way: str, divergence: Callable[..., Tensor]) -> tuple[Tensor, float]:
    """What a divergence adds to the expected gradient, downwards, and the logged `kl`."""
    without = of_reward(way)
    found, logged = expectation(algorithm_of(RECORDED, way, kl_loss_coef=1.0, divergence=divergence), way)
    return without - found, logged


def at_fixed_states(way: str, forward: bool = True) -> tuple[Tensor, float]:
    """d sum_s visits(s) KL_s, the visits held fixed, and the sum."""
    chances = texts(sampler(torch.tensor(RECORDED.policy, dtype=torch.float64), **WAYS[way]), RECORDED)
    visits = torch.zeros(len(RECORDED.states), dtype=torch.float64)
    for chance, said in zip(chances, RECORDED.sequences, strict=True):
        for state, _ in visited(RECORDED, said):
            visits[state] += chance
    return gradient(lambda q: (visits * of_states(q, RECORDED, forward)).sum(), RECORDED, way)


@pytest.mark.sample(6)
@EVERY_WAY
@pytest.mark.parametrize("divergence", [kl.k2, kl.k3_with_gradient_of_k2, kl.full])
def test_kl_in_the_loss_has_the_gradient_of_the_kl_at_the_states_visited(
    divergence: Callable[..., Tensor], way: str
) -> None:
    """And what is logged is that KL: the mean of k2 itself is another number."""
    found, logged = in_loss(way, divergence)
    wanted, exact = at_fixed_states(way)
    assert (found - wanted).abs().max() < 1e-10
    assert wanted.abs().max() > 1e-3
    assert logged == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in CUT])
def test_k3_has_the_gradient_of_the_other_direction(way: str) -> None:
    found, logged = in_loss(way, kl.k3)
    assert (found - at_fixed_states(way, forward=False)[0]).abs().max() < 1e-10
    assert logged == pytest.approx(at_fixed_states(way)[1], abs=1e-10)


@pytest.mark.parametrize("cut", [{"top_k": 2}, {"top_p": 0.9}])
def test_k3_under_a_cut_is_refused_where_it_would_be_used(cut: dict[str, Any]) -> None:
    for divergence in (kl.k3, partial(kl.k3)):
        with pytest.raises(UserError, match="top_k or top_p") as caught:
            algorithm_with(advantages.no_baseline, 1, kl_loss_coef=0.1, divergence=divergence, **cut)
        assert caught.value.where == "/divergence=k3"
    algorithm_with(advantages.no_baseline, 1, kl_loss_coef=0.0, divergence=kl.k3, **cut)
    algorithm_with(advantages.no_baseline, 1, kl_loss_coef=0.1, divergence=kl.k3, temperature=2.0, epsilon=0.1)


def test_the_coefficient_follows_the_kl_of_an_episode_and_of_samples_alone() -> None:
    """Of log-ratios .9, -.2 and .5, .1, .3: 0.8 an episode, 0.32 a token. The demonstration that is added says nothing
    of it, though it pays."""
    said = [[1, 0], [2, 1, 0]]
    ratios = torch.tensor([[0.9, -0.2, 0.0], [0.5, 0.1, 0.3]], dtype=torch.float64)
    for added in (False, True):
        for target, sign in ((0.5, 1), (1.2, -1)):
            algorithm = algorithm_of(
                RECORDED, "hot", 2, kl_coef=0.1, kl_target=target, kl_rate=0.5, add_reference=added
            )
            rollout = rollout_by(algorithm, said)
            one = torch.ones(2, 1, dtype=torch.int64)
            logits = algorithm.reference.model(one, one.bool(), rollout.actions).logits.log_softmax(-1)
            reference = logits.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
            rollout = replace(rollout, logprobs=(reference + ratios).masked_fill(~rollout.mask, 0.0))
            if added:
                rollout = concatenate([rollout, recited_by(algorithm)])
            algorithm.updates = 1  # made up: the sampler would not have said so
            logged = algorithm.update(rollout)
            assert logged["kl"] == pytest.approx(1.6 / 5, abs=1e-12)
            assert algorithm.kl.coefficient == pytest.approx(0.1 * (1 + sign * 0.5 * 0.2), abs=1e-12)


def test_an_added_reference_is_no_sample_of_the_kl_in_the_loss() -> None:
    """Neither its gradient nor the logged `kl` counts the tokens of a text that nobody sampled."""
    found = []
    for coefficient in (0.0, 1.0):
        algorithm = algorithm_of(RECORDED, "hot", 2, kl_loss_coef=coefficient, add_reference=True)
        shown = recited_by(algorithm)
        logged = algorithm.update(concatenate([rollout_by(algorithm, [[1, 0], [2, 0]]), shown]))
        found.append(algorithm.optimizer.gradient.clone())  # type: ignore[attr-defined, union-attr]
    table = torch.tensor(RECORDED.policy, dtype=torch.float64, requires_grad=True)
    q, other = sampler(table, temperature=2.0), torch.tensor(RECORDED.reference, dtype=torch.float64).softmax(-1)
    steps = [step for said in ([1, 0], [2, 0]) for step in visited(RECORDED, said)]
    squares = [(q[step].log() - other[step].log()).square() / 2 for step in steps]
    (wanted,) = torch.autograd.grad(torch.stack(squares).sum() / 3, table)  # of three episodes, as all else
    assert (found[1] - found[0] - wanted).abs().max() < 1e-12
    assert wanted[RECORDED.states[1, 2]].abs().max() == 0
    mean = sum(float(of_states(q.detach(), RECORDED)[state]) for state, _ in steps) / 4
    assert logged["kl"] == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize(
    "changes", [{"kl_coef": 0.7}, {"kl_loss_coef": 0.7}, {"kl_loss_coef": 0.7, "divergence": kl.full}]
)
def test_tokens_that_were_forced_cost_nothing(changes: dict[str, Any]) -> None:
    """Of an episode that begins as the demonstration, the KL is that of what the policy said after it, even where the
    policy could not have said that beginning: under this cut nobody says 2 after 1."""
    algorithm = algorithm_of(RECORDED, "two_explored", **changes)
    rollout = rollout_by(algorithm, [[1, 2, 0]])
    forced = torch.tensor([[True, True, False]])
    q = sampler(algorithm.model.table.detach(), **WAYS["two_explored"])
    other = torch.tensor(RECORDED.reference, dtype=torch.float64).softmax(-1)
    assert q[RECORDED.states[(1,)], 2] == 0
    rollout = replace(rollout, chosen=rollout.mask & ~forced, logprobs=rollout.logprobs.masked_fill(forced, 0.0))
    logged = algorithm.update(rollout)
    last = list(visited(RECORDED, [1, 2, 0]))[-1]
    exact = float(of_states(q, RECORDED)[last[0]])
    assert logged["kl"] == pytest.approx(float((q / other)[last].log()) if "kl_coef" in changes else exact, abs=1e-12)
    assert algorithm.optimizer.gradient.isfinite().all()  # type: ignore[attr-defined, union-attr]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in_chunks"])
@pytest.mark.parametrize("divergence", [kl.k2, kl.k3_with_gradient_of_k2, kl.full])
def test_what_was_forced_from_outside_the_cut_leaves_the_kl_of_the_other_tokens_as_it_is(
    divergence: Callable[..., Tensor], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every text, after every beginning that may be forced on it: the policy has the probability 0 of some forced
    tokens, and 0 * inf would make the whole gradient no number."""
    if not whole:
        monkeypatch.setattr(chunks, "WHOLE", 0)
    outside = 0
    for world in (RECORDED, OWN):
        way = {"epsilon": 0.0, "divergence": divergence}
        found = [algorithm_of(world, "two_explored", kl_loss_coef=coefficient, **way) for coefficient in (0.0, 0.7)]
        table = torch.tensor(world.policy, dtype=torch.float64, requires_grad=True)
        q, other = sampler(table, top_k=2), torch.tensor(world.reference, dtype=torch.float64).softmax(-1)
        for said, count in [(each, count) for each in world.sequences for count in range(1, len(each))]:
            begun, chosen = list(visited(world, said))[:count], list(visited(world, said))[count:]
            if any(q[step] == 0 for step in chosen):
                continue  # the policy cannot have gone on like this
            outside += any(q[step] == 0 for step in begun)
            rollout, forced = rollout_by(found[0], [said]), torch.arange(len(said)) < count
            logprobs = rollout.logprobs.masked_fill(forced, 0.0)
            rollout = replace(rollout, chosen=rollout.mask & ~forced, logprobs=logprobs)
            logged = [algorithm.update(rollout) for algorithm in found]
            without, with_kl = (algorithm.optimizer.gradient for algorithm in found)  # type: ignore[attr-defined]
            exact = torch.stack([of_states(q, world)[state] for state, _ in chosen])
            squares = torch.stack([(q[step].log() - other[step].log()).square() / 2 for step in chosen])
            loss = 0.7 * (exact if divergence is kl.full else squares).sum()
            (wanted,) = torch.autograd.grad(loss, table, retain_graph=True)
            assert (with_kl - without - wanted).abs().max() < 1e-12
            assert logged[1]["kl"] == pytest.approx(float(exact.detach().mean()), abs=1e-12)
    assert outside >= 4


def test_continuations_pay_for_divergence_and_length_as_samples_do() -> None:
    """They are what later states are worth: of a reward paid there alone, earlier tokens would learn no cost."""
    plain = {"returns": partial(lambda_returns, gae_lambda=0.0), "baseline": advantages.state_value}
    algorithm = algorithm_of(
        RECORDED, "hot", 1, critic=Continuations(3, 1), kl_coef=0.7, kl_target=1.0, overlong_share=0.5, **plain
    )
    batch = batch_of(3)
    rollout, _ = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Terminal())
    assert rollout.rewards is not None
    q = sampler(algorithm.model.table.detach(), temperature=2.0)
    other = torch.tensor(RECORDED.reference, dtype=torch.float64).softmax(-1)
    totals: dict[tuple[int, int], list[float]] = {}
    for row in (rollout.role == CONTINUATION).nonzero().flatten().tolist():
        length = int(rollout.mask[row].sum())
        begun = int((rollout.mask & ~rollout.chosen)[row].sum())
        steps = list(visited(RECORDED, rollout.actions[row, :length].tolist()))[begun:]
        cost = 0.7 * sum(float((q[step] / other[step]).log()) for step in steps)
        penalty = {1: 0.0, 2: -1 / 3, 3: -1.0}[length]  # a buffer of 1.5 tokens before the limit of 3
        paid = RECORDED.table[Letters().decode(rollout.actions[row, :length].tolist())] - cost + penalty
        totals.setdefault((int(rollout.parent[row]), begun), []).append(paid)
    weighted = estimated(algorithm, rollout)
    assert len(totals) > 5
    for (row, t), paid_for in totals.items():
        assert float(weighted.values[row, t]) == pytest.approx(sum(paid_for) / 3, abs=1e-12)


def test_the_cut_of_a_rollout_stays_that_of_its_sampling_while_the_policy_moves() -> None:
    """The policy turned upside down would leave other tokens, and the sampled ones would have no probability."""
    algorithm = algorithm_of(RECORDED, "two_explored", kl_loss_coef=0.1)
    rollout = rollout_by(algorithm, [[1, 0]])
    with torch.no_grad():
        algorithm.model.table.neg_()
    algorithm.updates = 1  # a later step of the rollout
    logged = algorithm.update(rollout)
    assert 0 < logged["sampling/logp_difference/max"] < 5
    assert logged["kl"] > 0
