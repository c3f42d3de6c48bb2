"""What values and the policies made of them come to, in worlds where every text can be listed. float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.values import (
    CREDITS,
    around,
    chances,
    descend,
    every_text,
    expected,
    hard,
    logits_of,
    longest,
    loss_of,
    minibatch_of,
    q_of,
    soft,
    solve,
    v_of,
)
from tests.world import RECORDED, World, another, probabilities
from tokenrl_cli.algorithm.parts.state_value import Tied
from tokenrl_cli.functional.consistency import path

WORLDS = {"recorded": RECORDED, "another": another(), "deep": another(3, 4)}
TAU = 0.7
everywhere = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
small = pytest.mark.parametrize("world", [RECORDED, WORLDS["another"]], ids=["recorded", "another"])
credited = pytest.mark.parametrize("credit", CREDITS)
SMALL, PRIORS, BEHAVIOURS = ("recorded", "another"), ("reference", "uniform"), ("alike", "mixed")


def meeting(names: str, *options: Iterable[str]) -> pytest.MarkDecorator:
    """Every first option with every second, and both with the others in turn, so that any two options of any two
    names meet somewhere. All combinations would take four times as long."""
    first, second, *others = (list(each) for each in options)
    cases = [
        (one, two, *(each[(i // 2**k + j) % len(each)] for k, each in enumerate(others)))
        for i, one in enumerate(first)
        for j, two in enumerate(second)
    ]
    return pytest.mark.parametrize(names.split(), cases)


def logprobs(table: Any) -> Tensor:
    return torch.as_tensor(table, dtype=torch.float64).log_softmax(-1)


def priors(world: World) -> dict[str, Tensor]:
    """By name in algorithm/prior; the reference is the policy that the algorithms start from."""
    return {"reference": logprobs(world.policy), "uniform": torch.zeros(len(world.states), world.size).double()}


def weights(world: World, behaviour: str) -> Tensor | None:
    """How often each text was said: all alike, or half of them by the world's other policy."""
    return (1 + chances(world.behaviour, world) * len(world.sequences)) / 2 if behaviour == "mixed" else None


def apart(found: Tensor, exact: Tensor) -> float:
    """The largest KL(exact || found) of any state, from logits."""
    exact, found = exact.log_softmax(-1), found.log_softmax(-1)
    return float((exact.exp() * (exact - found)).sum(-1).max())


@everywhere
@pytest.mark.parametrize("prior", ["reference", "uniform"])
def test_the_soft_optimum_is_the_prior_tilted_by_the_reward(prior: str, world: World) -> None:
    """O14: token by token it comes to whole texts ~ prior(y) exp(R(y) / tau), and V(s_0) = tau log Z."""
    before = priors(world)[prior]
    q, policy = soft("terminal", TAU, before, world)
    said = [sum(before[world.states[tuple(s[:t])], s[t]] for t in range(len(s))) for s in world.sequences]
    tilted = torch.tensor(said, dtype=torch.float64) + world.rewards / TAU
    assert (chances(policy, world) - tilted.softmax(0)).abs().max() < 1e-14
    start = TAU * (q[world.states[()]] / TAU + before[world.states[()]]).logsumexp(-1)
    assert start.item() == pytest.approx(TAU * tilted.logsumexp(0).item(), abs=1e-13)


def along(world: World, credit: str, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """V [N, T + 1], r, log(pi / prior) and mask [N, T] of every text, by tables."""
    rollout = every_text(credit, world)
    width = longest(world)
    values, divergences = torch.zeros(len(rollout), width + 1).double(), torch.zeros(len(rollout), width).double()
    policy = (q / TAU + prior).log_softmax(-1)
    for i, sequence in enumerate(world.sequences):
        for t, action in enumerate(sequence):
            state = world.states[tuple(sequence[:t])]
            values[i, t] = TAU * (q[state] / TAU + prior[state]).logsumexp(-1)
            divergences[i, t] = policy[state, action] - prior[state, action]
    assert rollout.rewards is not None
    return values, rollout.rewards.double(), divergences, rollout.mask


@everywhere
@credited
def test_at_the_soft_optimum_no_stretch_is_inconsistent(credit: str, world: World) -> None:
    """O15, trap 30: 0 of every length from every state; not where Q is disturbed, or padding is looked at."""
    prior = priors(world)["reference"]
    q, _ = soft(credit, TAU, prior, world)
    values, rewards, divergences, mask = along(world, credit, prior, q)
    for span in (*range(1, longest(world) + 1), None):
        assert path(values, rewards, divergences, mask, TAU, span)[1].abs().max() < 1e-13
    disturbed = q.clone()
    disturbed[0, 1] += 1.0
    values, rewards, divergences, mask = along(world, credit, prior, disturbed)
    for span in (1, 2, None):
        assert path(values, rewards, divergences, mask, TAU, span)[1].abs().max() > 0.1


@pytest.mark.sample(8)
@everywhere
@credited
@pytest.mark.parametrize("state_value", ["head", "tied"])
@pytest.mark.parametrize("prior", ["reference", "uniform"])
def test_whole_paths_of_fresh_samples_give_the_gradient_of_the_shaped_objective(
    prior: str, state_value: str, credit: str, world: World
) -> None:
    """O16, the bridge: -tau d/d theta (E[R] - tau KL(pi || prior)), for any V of s_0 that is held fixed."""
    words = [f"temperature={TAU}", "every_state=false", f"algorithm/prior={prior}"]
    algorithm = around("pcl", *words, f"algorithm/state_value={state_value}", world=world)
    start = logprobs(world.policy) + 0.3 * torch.randn(len(world.states), world.size, generator=seeded()).double()
    algorithm.model.table.data.copy_(start)  # away from the prior, where KL has no gradient
    algorithm.state_value = Constant()
    whole = minibatch_of(every_text(credit, world), probabilities(algorithm.model).detach() * len(world.sequences))
    loss_of(algorithm, whole).loss.backward()
    found = algorithm.model.table.grad.clone()

    algorithm.model.table.grad = None
    own, before = algorithm.model.table.log_softmax(-1), priors(world)[prior]
    chance = probabilities(algorithm.model)
    apart = [
        sum(own[world.states[tuple(s[:t])], s[t]] - before[world.states[tuple(s[:t])], s[t]] for t in range(len(s)))
        for s in world.sequences
    ]
    shaped = (chance * (world.rewards - TAU * torch.stack(apart))).sum()  # type: ignore[arg-type]
    (exact,) = torch.autograd.grad(-TAU * shaped, algorithm.model.table)
    assert exact.abs().max() > 0.01
    assert (found - exact).abs().max() < 1e-12


class Constant:
    """V(s_0) = 0.4, whatever one reads."""

    compares_samples = False

    def __call__(self, hidden: Tensor, logit_values: Tensor, source_values: Tensor) -> Tensor:
        return torch.full_like(logit_values, 0.4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.sample(3)
@meeting("name behaviour credit world", ["dqn", "double_dqn", "dueling_dqn"], BEHAVIOURS, CREDITS, SMALL)
def test_q_learning_comes_to_backward_induction_whoever_acted(
    name: str, behaviour: str, credit: str, world: str
) -> None:
    """O23, n = 1: Q(s, a) = Q*(s, a) of every state and token, off-policy."""
    here = WORLDS[world]
    algorithm = around(name, world=here)
    solve(algorithm, minibatch_of(every_text(credit, here), weights(here, behaviour)), 3 * longest(here))
    exact = hard(credit, here)
    assert (q_of(algorithm, here) - exact).abs().max() < 1e-6
    assert torch.equal(logits_of(algorithm.policy(), here).argmax(-1), exact.argmax(-1))


@pytest.mark.sample(1)
@pytest.mark.parametrize(("credit", "world"), [("delta", RECORDED), ("terminal", WORLDS["another"])], ids=CREDITS)
def test_two_heads_agree_in_the_end(credit: str, world: World) -> None:
    """The lower of two counts while they differ; on a table both come to Q*."""
    algorithm = around("double_dqn", "algorithm/head=two", world=world)
    algorithm.network.heads["q"].layers[0][0].weight.data.normal_(generator=seeded(1))
    algorithm.network.heads["q"].layers[1][0].weight.data.normal_(generator=seeded(2))
    solve(algorithm, minibatch_of(every_text(credit, world)), 3 * longest(world))
    assert (q_of(algorithm, world) - hard(credit, world)).abs().max() < 1e-5


@small
@credited
def test_monte_carlo_values_are_those_of_who_acted(credit: str, world: World) -> None:
    algorithm = around("mc_q", world=world)
    assert algorithm.target is None
    acted = chances(world.behaviour, world) * len(world.sequences)
    solve(algorithm, minibatch_of(every_text(credit, world), acted))
    exact = expected(credit, world.behaviour, world)
    assert (q_of(algorithm, world) - exact).abs().max() < 1e-6
    assert (exact - hard(credit, world)).abs().max() > 0.1


@small
@pytest.mark.parametrize("horizon", [2, 4])
def test_summing_rewards_another_policy_earned_is_biased(horizon: int, world: World) -> None:
    """O23, n = 2 and 4: why that is refused off-policy."""
    algorithm = around("dqn", world=world)
    algorithm.horizon = horizon
    solve(algorithm, minibatch_of(every_text("delta", world), weights(world, "mixed")), 3 * longest(world))
    assert (q_of(algorithm, world) - hard("delta", world)).abs().max() > 0.1


ITSELF = ["algorithm/acting=tilted", "algorithm/backup=expected"]


@pytest.mark.sample(2)
@small
@credited
@pytest.mark.parametrize("behaviour", ["alike", "mixed"])
def test_expected_values_are_those_of_the_policy_that_acts(behaviour: str, credit: str, world: World) -> None:
    """Q = Q^pi of pi ~ warm start exp(beta Q), whoever said the texts."""
    algorithm = around("dqn", *ITSELF, "acting.beta=2", world=world)
    solve(algorithm, minibatch_of(every_text(credit, world), weights(world, behaviour)), 6 * longest(world))
    exact = expected(credit, logits_of(algorithm.policy(), world), world)
    assert (q_of(algorithm, world) - exact).abs().max() < 1e-6
    assert (exact - hard(credit, world)).abs().max() > 0.1


@pytest.mark.sample(3)
@small
@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_of_its_own_texts_the_rewards_of_several_steps_may_be_summed(horizon: int, world: World) -> None:
    """Every horizon comes to the same, where the policy that is valued said them; with another's texts it does not."""
    own = ["algorithm/exploration=none", "algorithm/data=on_policy", f"horizon={horizon}", "acting.beta=0"]
    exact, rollout = expected("delta", world.policy, world), every_text("delta", world)
    for policy in (world.policy, world.behaviour):
        algorithm = around("dqn", *ITSELF, *own, world=world)
        solve(algorithm, minibatch_of(rollout, chances(policy, world) * len(world.sequences)), 3 * longest(world))
        error = (q_of(algorithm, world) - exact).abs().max()
        assert error > 0.05 if horizon > 1 and policy is world.behaviour else error < 1e-6


@pytest.mark.sample(4)
@meeting(
    "prior_and_head behaviour credit world",
    ["reference-linear", "uniform-linear", "uniform-logits", "reference-dueling"],
    BEHAVIOURS,
    CREDITS,
    SMALL,
)
def test_soft_q_learning_comes_to_the_soft_optimum_whoever_acted(
    prior_and_head: str, behaviour: str, credit: str, world: str
) -> None:
    """O21."""
    (prior, head), here = prior_and_head.split("-"), WORLDS[world]
    words = [f"temperature={TAU}", f"algorithm/prior={prior}", f"algorithm/head={head}"]
    algorithm = around("soft_q", *words, world=here)
    solve(algorithm, minibatch_of(every_text(credit, here), weights(here, behaviour)), 2 * longest(here), rest=1e-8)
    q, policy = soft(credit, TAU, priors(here)[prior], here)
    assert apart(logits_of(algorithm.policy(), here), policy) < 1e-9
    assert (q_of(algorithm, here) - q).abs().max() < 1e-3


CONSISTENT = (
    "pcl",
    "pcl consistency.span=1",
    "pcl consistency.span=2",
    "pcl algorithm/state_value=tied",
    "pcl algorithm/state_value=tied consistency.span=1",
    "pcl every_state=false",
    "tba samples_per_source={}",
    "shiq",
)


@pytest.mark.sample(5)
@meeting("words prior behaviour credit world", CONSISTENT, PRIORS, BEHAVIOURS, CREDITS, SMALL)
def test_path_consistency_comes_to_the_soft_optimum_whoever_acted(
    words: str, prior: str, behaviour: str, credit: str, world: str
) -> None:
    """O21: of every length, with a head or tied."""
    here = WORLDS[world]
    name, *rest = words.format(len(here.sequences)).split()
    algorithm = around(name, f"temperature={TAU}", f"algorithm/prior={prior}", *rest, world=here)
    solve(algorithm, minibatch_of(every_text(credit, here), weights(here, behaviour)), rest=1e-7)
    _, policy = soft(credit, TAU, priors(here)[prior], here)
    assert apart(logits_of(algorithm.policy(), here), policy) < 1e-6


class Bare:
    """V(s) = tau log sum exp of the policy's own logits: with a gradient, or of a copy that follows without one."""

    compares_samples, head = False, None

    def __init__(self, table: Tensor, follow: Callable[[int], float] | None) -> None:
        self.table, self.kept, self.target_update, self.step = table, table.detach().clone(), follow, 0

    def __call__(self, hidden: Tensor, logit_values: Tensor, source_values: Tensor) -> Tensor:
        if self.target_update is None:
            return logit_values
        self.kept.lerp_(self.table.detach(), self.target_update(self.step))
        self.step += 1
        return TAU * (hidden[..., :-1] @ self.kept).logsumexp(-1)


LAGS = {"none": lambda _: 1.0, "polyak": lambda _: 0.01, "hard": lambda step: float((step + 1) % 100 == 0)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lag", "span", "world"),
    [
        pytest.param("none", "1", RECORDED, marks=pytest.mark.slow),
        pytest.param("polyak", "null", RECORDED, marks=pytest.mark.slow),
        ("none", "null", WORLDS["another"]),
    ],
    ids=["none", "polyak", "another"],
)
def test_a_value_that_only_targets_see_does_not_get_there(lag: str, span: str, world: World) -> None:
    """O22: the logits' level is V; losses that leave it untrained are content with another policy.

    One optimiser for both, which has come to rest: without a gradient through V far away, with it at the optimum.
    """
    _, policy = soft("terminal", TAU, priors(world)["uniform"], world)
    found, left = [], []
    rollout = minibatch_of(every_text("terminal", world), weights(world, "mixed"))
    for follow in (None, LAGS[lag]):
        words = [f"temperature={TAU}", "algorithm/prior=uniform", f"consistency.span={span}"]
        algorithm = around("pcl", *words, world=world)
        algorithm.state_value = Bare(algorithm.model.table, follow)
        descend(algorithm, rollout, 2000, 0.1)
        found.append(apart(logits_of(algorithm.policy(), world), policy))
        algorithm.model.table.grad = None
        loss_of(algorithm, rollout).loss.backward()
        left.append(float(algorithm.model.table.grad.abs().max()))
    assert found[0] < 1e-12
    assert found[1] > 0.09
    assert max(left) < 1e-6


@pytest.mark.sample(1)
@pytest.mark.parametrize(("credit", "world"), [("terminal", RECORDED), ("delta", WORLDS["another"])], ids=CREDITS)
def test_each_token_by_itself_comes_to_the_soft_optimum(credit: str, world: World) -> None:
    """OREO, off-policy; at the optimum no gradient is left."""
    algorithm = around("oreo", f"temperature={TAU}", world=world)
    descend(algorithm, minibatch_of(every_text(credit, world), weights(world, "mixed")), 1000, 0.05)
    _, policy = soft(credit, TAU, priors(world)["reference"], world)
    assert apart(logits_of(algorithm.policy(), world), policy) < 1e-4


ILQL = ["conservatism=0", "algorithm/head=linear", "value_lr_factor=1"]


def implicit(expectile: float, world: World) -> Any:
    algorithm = around("ilql", f"expectile={expectile}", "target.rate=0.05", *ILQL, world=world)
    sampled = chances(world.behaviour, world) * len(world.sequences)
    descend(algorithm, minibatch_of(every_text("terminal", world), sampled), 500, 0.1)
    return algorithm


@pytest.mark.slow
def test_the_expectile_goes_from_what_was_done_to_the_best_of_it() -> None:
    """O24: exactly the behaviour's value at 1/2; higher with every expectile; never above the best.

    O25: near the best no advantage is above 0, all are nearly alike, and the same beta may make a worse policy of them.
    """
    world, found, earned = RECORDED, [], []
    start = world.states[()]
    for expectile in (0.5, 0.7, 0.9, 0.99):
        algorithm = implicit(expectile, world)
        found.append(float(v_of(algorithm, world)[start]))
        earned.append(float((chances(logits_of(algorithm.policy(), world), world) * world.rewards).sum()))
        if expectile == 0.5:
            exact = expected("terminal", world.behaviour, world)
            assert (q_of(algorithm, world) - exact).abs().max() < 0.01
            shares = torch.tensor(world.behaviour, dtype=torch.float64).softmax(-1)
            assert (v_of(algorithm, world) - (shares * exact).sum(-1)).abs().max() < 0.01
        cloned = logits_of(algorithm.model, world)
        assert apart(cloned, torch.tensor(world.behaviour, dtype=torch.float64)) < 1e-3
    best = hard("terminal", world)[start].max().item()
    assert found[0] < found[1] < found[2] < found[3] < best + 0.01
    assert found[3] > found[0] + 0.5 * (best - found[0])
    assert earned[1] > earned[3] > found[0]


@pytest.mark.sample(2)
@small
@credited
def test_without_conservatism_cql_is_q_learning_and_with_much_of_it_cloning(credit: str, world: World) -> None:
    """O32."""
    rollout = minibatch_of(every_text(credit, world), weights(world, "mixed"))
    plain, off = around("double_dqn", world=world), around("cql", "conservatism=0", world=world)
    for algorithm in (plain, off):
        solve(algorithm, rollout, 2, rest=1e-7)
    assert torch.equal(q_of(plain, world), q_of(off, world))

    strong = around("cql", "conservatism=100", world=world)
    solve(strong, rollout, 2, rest=1e-7)
    said = torch.zeros(len(world.states), world.size, dtype=torch.float64)
    for sequence, weight in zip(world.sequences, rollout.weights.tolist(), strict=True):
        for t, action in enumerate(sequence):
            said[world.states[tuple(sequence[:t])], action] += weight
    assert torch.equal(logits_of(strong.policy(), world).argmax(-1), said.argmax(-1))
    assert not torch.equal(logits_of(plain.policy(), world).argmax(-1), said.argmax(-1))


@pytest.mark.sample(3)
@meeting(
    "words credit world",
    ["soft_q", "soft_q algorithm/prior=uniform algorithm/head=logits", "pcl", "shiq"],
    CREDITS,
    SMALL,
)
def test_only_the_ratio_of_reward_and_temperature_counts(words: str, credit: str, world: str) -> None:
    """Trap 31: ten times the reward at ten times the temperature is the same policy."""
    (name, *rest), here = words.split(), WORLDS[world]
    found = []
    for scale in (1, 10):
        algorithm = around(name, f"temperature={TAU * scale}", *rest, world=here)
        rollout = every_text(credit, here)
        assert rollout.rewards is not None
        solve(algorithm, minibatch_of(replace(rollout, rewards=scale * rollout.rewards)), longest(here), rest=1e-8)
        found.append(logits_of(algorithm.policy(), here))
    assert apart(found[1], found[0]) < 1e-7 < 0.01 < apart(found[0], torch.as_tensor(here.policy).double())


@pytest.mark.parametrize("prior", ["reference", "uniform"])
def test_the_level_of_tied_values_is_trained(prior: str) -> None:
    """The gauge: softmax does not see it, V is it."""
    algorithm = around("pcl", f"temperature={TAU}", "algorithm/state_value=tied", f"algorithm/prior={prior}")
    assert isinstance(algorithm.state_value, Tied)
    rollout = minibatch_of(every_text())
    loss_of(algorithm, rollout).loss.backward()
    level = algorithm.state_value.head.linear.weight.grad
    assert level is not None
    assert level.abs().max() > 1e-3


@small
def test_with_one_network_double_q_learning_is_q_learning(world: World) -> None:
    """O31, through the whole loss, at the first step."""
    rollout = minibatch_of(every_text("delta", world))
    found = [loss_of(around(name, world=world), rollout) for name in ("dqn", "double_dqn")]
    assert torch.equal(found[0].loss, found[1].loss)
    assert torch.equal(found[0].td_errors, found[1].td_errors)


@small
def test_a_horizon_as_long_as_the_episode_is_monte_carlo(world: World) -> None:
    """O31."""
    steps, whole = around("dqn", world=world), around("mc_q", world=world)
    steps.horizon = 9
    rollout = minibatch_of(every_text("delta", world))
    for parameter in steps.target.heads.parameters():
        parameter.data.fill_(3.0)  # is never asked
    assert torch.equal(loss_of(steps, rollout).loss, loss_of(whole, rollout).loss)
