"""What holds for every preset that learns values, as its YAML composes it, around a GRU."""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.algorithm.test_presets import gru, padded
from tests.presets import CONF, GRADIENTS, PRESETS, preset, targets
from tests.running import QUICK, TINY, lines, train
from tests.values import around as tabular
from tests.values import chances, every_text, expected, loss_of, minibatch_of, q_of, solve
from tests.world import RECORDED, SEQUENCES, Letters, TableReward, TabularPolicy, batch_of, samples_of
from tokenrl_cli import streams
from tokenrl_cli.algorithm.networks import Composed, move, moving_copy
from tokenrl_cli.algorithm.parts.acting import greedy
from tokenrl_cli.algorithm.parts.data import Experience, Minibatch
from tokenrl_cli.algorithm.parts.exploration import NoExploration
from tokenrl_cli.algorithm.parts.head import Linear
from tokenrl_cli.algorithm.value_based import Collector, LossOutput, ValueBased, ValueNetwork
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.episodes.sampling import Decoding, generate, recite, rollout_of
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional.returns import reward_to_go
from tokenrl_cli.interfaces import DEMONSTRATION, SAMPLED, Credit, Rollout, UserError
from tokenrl_cli.optim import adam, gradient_step

CLASSES = ("Dqn", "SoftQ", "PathConsistency", "Ilql")
VALUES = [name for name in PRESETS if targets(name).rsplit(".", 1)[-1] in CLASSES]
GREEDY = ["dqn", "double_dqn", "dueling_dqn", "cql"]  # begin anew
TARGETS = [*GREEDY, "soft_q", "ilql"]
VARIANTS = {  # preset and parts that change how it begins
    **{name: name for name in VALUES if name not in GREEDY},
    "logits": "soft_q algorithm/prior=uniform algorithm/head=logits",
    "dueling": "soft_q algorithm/head=dueling",
    "tied": "pcl algorithm/state_value=tied",
    "tied, no prior": "pcl algorithm/state_value=tied algorithm/prior=uniform",
    "tilted": "double_dqn algorithm/acting=tilted",
}


def around(words: str, *overrides: str, model: Any = None) -> Any:
    name, *rest = words.split()
    chosen = [word if word.startswith("algorithm") else f"algorithm.{word}" for word in (*rest, *overrides)]
    torch.manual_seed(11)
    return preset(name, model or gru(), Letters(), 3, *chosen)


def judged(policy: Any, sources: int = 4, samples: int = 3) -> Rollout:
    """Episodes that a policy said, and what each token earned."""
    batch = batch_of(sources)
    decoding, draws = Decoding(3, 1.0, 0, 1.0, 0.0, [], 1, 0.0), streams.generator(0, "rollout", 0)
    said = generate(policy, batch.source, batch.source_mask, decoding, samples, 0, draws)
    return judge(rollout_of(batch, said, SAMPLED), batch, Letters(), TableReward(RECORDED.table), Delta())[0]


def disturb(algorithm: Any) -> Any:
    """Heads that have learned something, and a target network that has not yet."""
    for number, parameter in enumerate(algorithm.network.heads.parameters()):
        draw = torch.Generator().manual_seed(number)
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=draw).to(parameter.dtype)
    return algorithm


def gradients(algorithm: Any, rows: Any, parts: int = 1) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Of a minibatch learned in so many parts."""
    algorithm.optimizer.zero_grad()
    whole = algorithm.prepare(rows)
    metrics: dict[str, Tensor] = {}
    for index in torch.arange(len(rows)).tensor_split(parts):
        output = algorithm.compute_loss(whole.rows(index))
        output.loss.backward()
        for name, value in output.metrics.items():
            metrics[name] = metrics.get(name, torch.zeros(())) + value.detach()
    learning = algorithm.network.trainable()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learning], metrics


def same(one: Any, other: Any, tolerance: float = 1e-12) -> bool:
    close = max(float((a - b).abs().max()) for a, b in zip(one[0], other[0], strict=True)) < tolerance
    return close and {k: float(v) for k, v in one[1].items()} == pytest.approx(
        {k: float(v) for k, v in other[1].items()}, abs=tolerance
    )


def test_no_preset_is_forgotten() -> None:
    assert set(PRESETS) - set(GRADIENTS) - set(VALUES) == {"actor_critic", "gold", "gold_s", "mle", "ocd", "raml"}


@pytest.mark.sample(3)
@pytest.mark.parametrize("words", [*GREEDY, *VARIANTS.values()])
def test_parts_padding_and_order_change_no_gradient_and_no_metric(words: str) -> None:
    """O28, O29, traps 2 to 4, 9, 22 and 30: nor does what padding says, or would be paid."""
    algorithm = disturb(around(words, "samples_per_source=3"))
    rows = minibatch_of(
        judged(algorithm.model), torch.rand(12, generator=torch.Generator().manual_seed(5)).double() + 0.5
    )
    assert not bool(rows.episodes.mask.all())
    whole = gradients(algorithm, rows)
    assert max(float(g.abs().max()) for g in whole[0]) > 1e-6
    assert same(whole, gradients(algorithm, rows, 4))
    assert same(whole, gradients(algorithm, rows, 3))
    for junk in (1, 2):
        assert same(whole, gradients(algorithm, replace(rows, episodes=padded(rows.episodes, junk))))
    assert same(whole, gradients(algorithm, rows.rows(torch.arange(11, -1, -1))))


@pytest.mark.sample(5)
@pytest.mark.parametrize("words", [*GREEDY, *VARIANTS.values()])
def test_an_episode_counts_as_much_as_it_weighs(words: str) -> None:
    """What priorities drew too often is taken back: the gradient is linear in the weights."""
    algorithm = disturb(around(words, "samples_per_source=3"))
    rollout, draw = judged(algorithm.model), torch.Generator().manual_seed(7)
    one, other = (torch.rand(len(rollout), generator=draw, dtype=torch.float64) for _ in range(2))
    parts = [gradients(algorithm, minibatch_of(rollout, weights))[0] for weights in (one, other, one + other)]
    assert max(float((a + b - c).abs().max()) for a, b, c in zip(*parts, strict=True)) < 1e-12
    assert max(float((a - b).abs().max()) for a, b in zip(parts[0], parts[1], strict=True)) > 1e-6


@pytest.mark.sample(4)
@pytest.mark.parametrize("words", VARIANTS.values(), ids=VARIANTS)
def test_at_the_switch_it_is_the_warm_start(words: str) -> None:
    """In every state, and on the way through `step`, too."""
    model = gru()
    algorithm, batch = around(words, "samples_per_source=2", model=model), batch_of(5)
    policy = algorithm.policy()
    said = torch.tensor([[1, 2, 0], [2, 2, 1], [1, 1, 2], [0, 0, 0], [2, 0, 0]])
    warm = model(batch.source, batch.source_mask, said).logits.log_softmax(-1)
    assert (policy(batch.source, batch.source_mask, said).logits.log_softmax(-1) - warm).abs().max() < 1e-12
    state, previous = policy.start(batch.source, batch.source_mask), None
    for t in range(3):
        output, state = policy.step(state, previous)
        assert (output.logits[:, 0].log_softmax(-1) - warm[:, t]).abs().max() < 1e-12
        previous = said[:, t]


@pytest.mark.parametrize("name", GREEDY)
def test_what_is_greedy_on_a_new_head_begins_anew(name: str) -> None:
    """And says so in its docstring."""
    batch = batch_of(2)
    said = around(name).policy()(batch.source, batch.source_mask, batch.targets).logits
    assert (said.argmax(-1) == 0).all()


@pytest.mark.parametrize("words", [*GREEDY, *VARIANTS.values()])
def test_acting_step_by_step_is_reading_the_whole(words: str) -> None:
    algorithm, batch = disturb(around(words, "samples_per_source=2")), batch_of(5)
    said = torch.tensor([[1, 2, 0], [2, 2, 1], [1, 1, 2], [0, 0, 0], [2, 0, 0]])
    policy = algorithm.collector.exploration.acting(algorithm.policy(), 0)
    whole = policy(batch.source, batch.source_mask, said).logits.softmax(-1)
    state, previous = policy.start(batch.source, batch.source_mask), None
    for t in range(3):
        output, state = policy.step(state, previous)
        assert (output.logits[:, 0].softmax(-1) - whole[:, t]).abs().max() < 1e-12
        previous = said[:, t]


@pytest.mark.parametrize("name", TARGETS)
def test_the_target_is_a_copy_that_never_learns_by_gradient(name: str) -> None:
    """Trap 29: no alias, no gradient, not in the optimiser."""
    algorithm = disturb(around(name))
    frozen = list(algorithm.target.parameters())
    learning = {id(p) for group in algorithm.optimizer.inner.param_groups for p in group["params"]}
    assert {id(p) for p in algorithm.network.parameters()} == learning
    places = {p.data_ptr() for p in algorithm.network.parameters()}
    assert all(not p.requires_grad and id(p) not in learning and p.data_ptr() not in places for p in frozen)
    gradients(algorithm, minibatch_of(judged(algorithm.model)))
    assert all(p.grad is None for p in frozen)


@pytest.mark.parametrize(
    ("name", "words"), [("dqn", ["target.every=3"]), ("soft_q", ["target.rate=0.1"]), ("ilql", ["target.rate=0.1"])]
)
def test_the_clock_of_the_target_goes_on_where_it_was(name: str, words: list[str]) -> None:
    """Trap 29: saved in the middle of a wait, it still comes at the third update, and gives the same bits."""
    once = ["algorithm/data=on_policy", "data.updates=1", "data.minibatch_size=12", *words]
    algorithm = disturb(around(name, *once))
    rollout = judged(algorithm.model)
    algorithm.update(rollout)
    algorithm.update(rollout)
    state = copy.deepcopy(algorithm.state_dict() | {"model": algorithm.model.state_dict()})
    again = around(name, *once)
    again.model.load_state_dict(state.pop("model"))
    again.load_state_dict(state)
    assert again.updates == 2
    for parameter, other in zip(again.network.parameters(), again.target.parameters(), strict=True):
        assert parameter.data_ptr() != other.data_ptr()
    before = [p.clone() for p in algorithm.target.parameters()]
    for each in (algorithm, again):
        each.update(rollout)
    pairs = zip(algorithm.target.parameters(), again.target.parameters(), algorithm.network.parameters(), strict=True)
    for one, other, online in pairs:
        assert torch.equal(one, other)
        assert name != "dqn" or torch.equal(one, online)
    assert any(not torch.equal(a, b) for a, b in zip(before, algorithm.target.parameters(), strict=True))


@pytest.mark.parametrize("words", [*TARGETS, "pcl", "shiq", "oreo"])
def test_an_episode_cut_at_the_limit_ends_or_goes_on_as_asked(words: str) -> None:
    """Trap 7: of episodes that were over nothing changes; of those that were cut the end is worth what V says."""
    found = {}
    for goes_on in (False, True):
        algorithm = tabular(words, f"bootstrap_truncated={str(goes_on).lower()}")
        for network in (algorithm.network, algorithm.target or algorithm.network):
            for name, parameter in network.heads.named_parameters():
                if name.endswith("bias"):  # of V, or of every Q
                    parameter.data.fill_(2.0)
        found[goes_on] = loss_of(algorithm, minibatch_of(every_text()))
    rollout = every_text()
    changed = (found[True].td_errors - found[False].td_errors).abs() > 1e-9
    cut = ~rollout.ended.unsqueeze(-1) & rollout.mask
    assert not changed[rollout.ended].any()
    last = cut & (rollout.mask.cumsum(-1) == rollout.mask.sum(-1, keepdim=True))
    assert changed[last].all()
    assert 0 < int(last.sum()) < len(rollout)


@pytest.mark.parametrize("credit", [Terminal(), Delta()], ids=["terminal", "delta"])
def test_a_reward_of_a_half_goes_through_everything(credit: Credit) -> None:
    """Trap 24: collected, judged, kept, drawn again and learned from, it is still a half."""
    algorithm, batch = tabular("mc_q", "samples_per_source=5", "data.minibatch_size=40"), batch_of(8)
    rollout = algorithm.collect(batch)
    table = TableReward(dict.fromkeys(RECORDED.table, 0.5) | {"": 0.0})
    rollout = judge(rollout, batch, Letters(), table, credit)[0]
    said = rollout.rows((rollout.mask.sum(-1) > 1).nonzero().squeeze(-1))
    replay = algorithm.data.replay
    replay.add(said)
    again = replay.episodes(torch.arange(len(said)), said)
    output = loss_of(algorithm, minibatch_of(again))
    assert output.td_errors[:, 0].tolist() == [0.5] * len(said)  # Q is 0, the return is a half


def test_enormous_advantages_are_finite_and_counted() -> None:
    """Trap 32."""
    algorithm = tabular("ilql", "advantage_beta=10.0", "advantage_limit=20.0")
    for linear in algorithm.target.heads["q"].outputs:
        linear.bias.data.fill_(1e3)
    rows = minibatch_of(every_text())
    output = loss_of(algorithm, rows)
    output.loss.backward()
    assert output.loss.isfinite()
    assert output.metrics["adv/clipped"] == 1
    assert output.metrics["adv/mean"] == 1000
    assert all(p.grad.isfinite().all() for p in algorithm.network.trainable() if p.grad is not None)


def test_the_weights_of_cloning_teach_no_value() -> None:
    """Advantages weigh the behaviour's loss, and carry no gradient to V or Q."""
    found = []
    for beta in (0.0, 1.0):
        torch.manual_seed(0)  # two heads have random layers
        algorithm = disturb(tabular("ilql", f"advantage_beta={beta}"))
        rows = minibatch_of(every_text())
        loss_of(algorithm, rows).loss.backward()
        found.append([p.grad.clone() for p in algorithm.network.heads.parameters()])
        found.append([algorithm.model.table.grad.clone()])
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[2], strict=True))
    assert not torch.equal(found[1][0], found[3][0])


def test_logged_scalars_are_those_of_the_minibatch() -> None:
    algorithm = disturb(tabular("dqn"))
    rows = minibatch_of(every_text("delta"))
    output, mask = loss_of(algorithm, rows), rows.episodes.mask
    episodes = rows.episodes
    hidden = algorithm.model(episodes.source, episodes.source_mask, episodes.actions, episodes.source_row).hidden
    q = algorithm.network.heads["q"](hidden, None)[0]
    delayed = algorithm.target.heads["q"](hidden, None)[0]
    chosen, before = (each.gather(-1, rows.episodes.actions.unsqueeze(-1)).squeeze(-1) for each in (q, delayed))
    assert output.metrics["q/mean"].item() == pytest.approx(chosen[mask].mean().item())
    assert output.metrics["v/mean"].item() == pytest.approx(delayed.amax(-1)[mask].mean().item())
    assert torch.equal(output.ranges["q"], chosen[mask])
    assert torch.equal(output.ranges["v"], delayed.amax(-1)[mask])
    assert output.metrics["target_gap"].item() == pytest.approx((chosen - before)[mask].abs().mean().item())
    assert output.metrics["td_error"].item() == pytest.approx(output.td_errors[mask].abs().mean().item())
    assert output.metrics["loss/td"].item() == pytest.approx(output.td_errors[mask].square().mean().item() / 2)


def test_exploration_goes_from_the_warm_start_to_the_best_value() -> None:
    algorithm, batch = disturb(around("dqn", "exploration.steps=10")), batch_of(2)
    read = (batch.source, batch.source_mask, batch.targets)
    warm, best = (each(*read).logits.softmax(-1) for each in (algorithm.model, algorithm.policy()))
    for step, epsilon in ((0, 1.0), (5, 0.55), (10, 0.1), (99, 0.1)):
        acting = algorithm.collector.exploration.acting(algorithm.policy(), step)(*read).logits.exp()
        assert torch.allclose(acting, epsilon * warm + (1 - epsilon) * best)
        assert algorithm.collector.exploration.metrics(step) == {"epsilon": pytest.approx(epsilon)}
    for parameter in algorithm.model.parameters():
        parameter.data += 1
    again = algorithm.collector.exploration.acting(algorithm.policy(), 0)(*read).logits.exp()
    assert torch.allclose(again, warm)  # as it was, frozen


def test_boltzmann_acts_by_the_values() -> None:
    algorithm, batch = (
        disturb(around("dqn", "algorithm/exploration=boltzmann", "exploration.temperature=0.3")),
        batch_of(2),
    )
    read = (batch.source, batch.source_mask, batch.targets)
    acting = algorithm.collector.exploration.acting(algorithm.policy(), 0)(*read).logits.softmax(-1)
    hidden = algorithm.model(*read).hidden
    assert torch.allclose(acting, (algorithm.network.heads["q"](hidden, None)[0] / 0.3).softmax(-1))


def test_what_a_policy_expects_is_its_highest_value() -> None:
    algorithm, batch = disturb(around("ilql")), batch_of(3)
    policy = algorithm.policy()
    assert isinstance(policy, Composed)
    hidden = algorithm.model(batch.source, batch.source_mask, batch.targets).hidden[:, 0]
    q = algorithm.network.heads["q"](hidden, None).amin(0)
    assert torch.allclose(policy.start_value(batch.source, batch.source_mask), q.amax(-1))


ITSELF = "algorithm/acting=tilted algorithm/backup=expected algorithm/exploration=none algorithm/data=on_policy"
OWN = f"dqn horizon=2 {ITSELF}"
REFUSED = {
    "horizon": ("dqn horizon=2", r"algorithm.horizon=2: .*another policy than the valued one chose"),
    "horizon on replay": (f"{OWN} algorithm/data=replay", "algorithm.horizon=2: .*another policy than the valued one"),
    "horizon, explored": (f"{OWN} algorithm/exploration=warm_start", "another policy than the valued one"),
    "horizon of twice": (f"{OWN} data.updates=2", "another policy than the valued one"),
    "horizon, the best": (f"{OWN} algorithm/backup=maximum", "another policy than the valued one"),
    "horizon of nothing": ("dqn horizon=0", "algorithm.horizon=0: must be int, at least 1"),
    "one way": ("dqn algorithm/exploration=none", "algorithm/exploration=none: the best token of a new head"),
    "never acts": ("ilql algorithm/exploration=warm_start", "algorithm/exploration: says how the policy acts while"),
    "no replay": (
        "soft_q algorithm/data=on_policy data.priority=1",
        "algorithm.data.priority: must be 0 where nothing",
    ),
    "no room": (
        "dqn data.capacity=2",
        r"algorithm.data.capacity: must hold a text of decode.max_length=3 tokens, got 2",
    ),
    "no episode": (
        "soft_q data.minibatch_size=2",
        "algorithm.data.minibatch_size: leaves no episode to a share of 0.25",
    ),
    "cut returns": ("mc_q bootstrap_truncated=true", "algorithm.bootstrap_truncated=true: needs the value of where"),
    "cut group": ("tba bootstrap_truncated=true", "algorithm.bootstrap_truncated=true: asks what the state is worth"),
    "logits as Q": ("dqn algorithm/head=logits", "algorithm/head=logits: log-probabilities are no values here"),
    "logits tilted": ("ilql algorithm/head=logits", "algorithm/head=logits: log-probabilities are no values here"),
    "logits twice": ("soft_q algorithm/head=logits", "algorithm/head=logits: makes a policy of the model's own logits"),
    "logits frozen": (
        "soft_q algorithm/head=logits algorithm/prior=uniform train_trunk=false",
        "algorithm/head=logits: .*train_trunk=false would leave it as it is",
    ),
    "frozen behaviour": ("ilql train_trunk=false", "algorithm.behaviour_coef=1.0: the behaviour is the model itself"),
    "no path": ("pcl consistency.span=0", "algorithm.consistency.span=0: must be int, at least 1"),
    "short paths": ("tba consistency.span=1", "algorithm.every_state=false: leaves all tokens but the first to paths"),
    "own tokens": ("oreo every_state=false", "algorithm.every_state=false: leaves all tokens but the first to paths"),
    "speed": ("pcl state_value.lr_factor=0", "algorithm.state_value.lr_factor=0: must be above 0"),
    "share": (
        "soft_q data.fresh=0.9 data.demonstrated=0.2",
        "algorithm.data.demonstrated: must with",
    ),
    "capacity": ("dqn data.capacity=0", "algorithm.data.capacity=0: must be at least 1"),
    "epsilon": ("dqn exploration.end=1.5", "algorithm.exploration.end=1.5: must be at least 0 and at most 1"),
    "twins": ("dqn head.count=2", "algorithm.head.layer: must be"),
    "temperature": ("soft_q temperature=0", "algorithm.temperature=0: must be above 0"),
    "expectile": ("ilql expectile=1", "algorithm.expectile=1: must be above 0 and below 1"),
    "inside": ("tba every_state=true", "algorithm/state_value=group_mean: tells what a source is worth"),
    "shown alone": ("tba algorithm/data=offline", "algorithm.data.fresh=0: leaves demonstrations alone"),
    "one by one": ("tba algorithm/data=prioritised", "algorithm.data.priority: draws episodes one by one"),
    "alone": ("tba samples_per_source=1", "algorithm.samples_per_source: must be at least 2"),
    "beta": ("mc_q acting.beta=-1", "algorithm.acting.beta=-1: must be at least 0"),
    "conservatism": ("cql conservatism=-1", "algorithm.conservatism=-1: must be at least 0"),
    "no values": ("pcl algorithm/exploration=boltzmann", "boltzmann: acts by Q-values, and this algorithm has none"),
    "rate": ("ilql target.rate=2", "algorithm.target.rate=2: must be at least 0 and at most 1"),
    "wait": ("dqn target.every=0", "algorithm.target.every=0: must be"),
}


@pytest.mark.sample(12)
@pytest.mark.parametrize(("words", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_by_name(words: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        around(words)


@pytest.mark.parametrize("words", [OWN, "cql algorithm/data=mixed"], ids=["own", "offline to online"])
def test_what_is_right_is_not_refused(words: str) -> None:
    """Two steps of one's own episodes; greedy values that demonstrations show other tokens. Both learn from a batch."""
    algorithm, batch = around(words), batch_of(12)
    before = copy.deepcopy(algorithm.network.heads.state_dict())
    rollout = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Delta())[0]
    assert algorithm.update(rollout)["td_error"] > 0
    assert any(not torch.equal(value, before[name]) for name, value in algorithm.network.heads.state_dict().items())


def test_values_train_no_trunk_where_they_are_told_not_to() -> None:
    """Path consistency's V reads hidden states and leaves them alone; so does every head without the trunk."""
    algorithm = disturb(around("pcl"))
    rows = minibatch_of(judged(algorithm.model))
    hidden = algorithm.network.read(rows.episodes).hidden
    algorithm.state_value(hidden, torch.zeros(hidden.shape[:2]), torch.zeros(len(rows))).square().sum().backward()
    assert all(p.grad is None for p in algorithm.model.parameters())
    assert all(p.grad.abs().max() > 0 for p in algorithm.network.heads.parameters())


@pytest.mark.parametrize("words", ["dqn", "soft_q", "ilql behaviour_coef=0"])
def test_without_the_trunk_only_heads_learn(words: str) -> None:
    """The model keeps its bits, and no gradient is left on it to pile up."""
    algorithm = disturb(around(words, "train_trunk=false", "data.updates=3"))
    before = [copy.deepcopy(part.state_dict()) for part in (algorithm.model, algorithm.network.heads)]
    rollout = judged(algorithm.model)
    algorithm.update(
        replace(rollout, role=torch.full_like(rollout.role, DEMONSTRATION)) if "ilql" in words else rollout
    )
    after = [part.state_dict() for part in (algorithm.model, algorithm.network.heads)]
    assert all(torch.equal(value, before[0][name]) for name, value in after[0].items())
    assert any(not torch.equal(value, before[1][name]) for name, value in after[1].items())
    assert all(p.grad is None for p in algorithm.model.parameters())


@pytest.mark.parametrize("every", ["true", "false"])
def test_priorities_are_means_over_the_equations_of_an_episode(every: str) -> None:
    """Long texts are not more surprising for having more tokens, nor less where only their start counts."""
    words = ["algorithm/data=prioritised", "data.updates=1", f"every_state={every}", "data.priority=1"]
    algorithm = disturb(around("pcl", *words))
    rollout = judged(algorithm.model)
    again = disturb(around("pcl", *words))
    algorithm.update(rollout)
    kept = again.data.replay
    kept.add(rollout)
    whole = minibatch_of(kept.episodes(torch.arange(len(kept)), rollout))
    errors = loss_of(again, whole).td_errors.abs()
    mean = errors[:, 0] if every == "false" else errors.sum(-1) / whole.episodes.mask.sum(-1)
    found = algorithm.data.replay.table["priority"][: len(kept)]
    seen = found != found.max()  # what was not drawn is as surprising as the most
    assert int(seen.sum()) > 3
    assert torch.allclose(found[seen], mean[seen].detach())


def test_what_is_logged_of_a_step_with_several_updates() -> None:
    """Means, but the least and the greatest; epsilon is what was acted with."""
    algorithm = disturb(around("dqn", "data.updates=1", "exploration.steps=4"))
    batch, epsilons = batch_of(4), []
    for _ in range(2):
        rollout = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Delta())[0]
        epsilons.append(algorithm.update(rollout)["epsilon"])
    assert epsilons == [1.0, pytest.approx(0.775)]
    rollout = judged(algorithm.model)
    twice = disturb(around("dqn", "data.updates=2"))
    once = disturb(around("dqn", "data.updates=1"))
    both, first = twice.update(rollout), once.update(rollout)
    assert both["q/min"] <= first["q/min"]
    assert both["q/max"] >= first["q/max"]
    assert both["td_error"] != first["td_error"]


@pytest.mark.parametrize("name", ["ilql", "soft_q"])
def test_in_mixed_precision_an_update_reads_what_the_one_before_wrote(name: str) -> None:
    """Autocast keeps copies of weights; a stale one would be learned from again."""
    losses = []
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(11)
        model = gru().float()
        algorithm = preset(name, model, Letters(), 3, "algorithm/data=on_policy", "algorithm.optimizer.lr=0.05")
        rows = minibatch_of(judged(model), torch.ones(12))
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            found = []
            for _ in range(4):
                gradient_step(algorithm.optimizer, rows, lambda part, of=algorithm: (loss_of(of, part).loss, {}), 1)
                found.append(float(loss_of(algorithm, rows).loss.detach()))
        losses.append(found)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert len(set(losses[1])) == 4


@pytest.mark.slow
def test_where_nothing_is_said_nothing_is_logged_of_it(tmp_path: Path) -> None:
    """Offline there is no sample, and no reward of one; there is what demonstrations earned."""
    assert train(tmp_path / "run", *QUICK, "algorithm=ilql", "credit=delta") == 0
    logged = [
        line["metrics"] for line in lines(tmp_path / "run") if line["stage"] == "train" and line["split"] == "train"
    ]
    assert logged
    assert all("reward" not in line and "completions/mean_length" not in line for line in logged)
    assert all(line["demonstrations/reward"] > 0 for line in logged)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["double_dqn", "mc_q", "soft_q", "pcl", "tba", "ilql"])
def test_each_class_of_presets_trains_from_a_transformer_too(name: str, tmp_path: Path) -> None:
    small = [word for word in TINY if not word.startswith("model")] + ["model.width=16", "model.feedforward=16"]
    goes_on = str(name not in ("mc_q", "tba")).lower()  # those know no value of where a text was cut
    chosen = [f"algorithm={name}", "model=transformer", "credit=delta", f"algorithm.bootstrap_truncated={goes_on}"]
    assert train(tmp_path / "run", *small, *QUICK, *chosen, tiny=False) == 0
    logged = [line["metrics"] for line in lines(tmp_path / "run") if line["stage"] == "train"]
    assert any("q/mean" in metrics for metrics in logged)
    pages = [(CONF.parent / "docs" / f"{name}.md").read_text("utf-8") for name in ("metrics", "rewards")]
    explained = set(re.findall(r"`([\w/]+)`", "".join(pages)))
    own = {key for line in lines(tmp_path / "run") for key in line["metrics"] if not key.startswith("rewards/")}
    assert own <= explained, own - explained


def test_prioritised_rows_weigh_what_was_taken_back() -> None:
    """(N P) ** -1 over the largest, where all of it is."""
    algorithm = around("double_dqn", "algorithm/data=prioritised", "data.correction=1", "data.priority=1")
    kept = judged(algorithm.model)
    algorithm.data.replay.add(kept)
    priorities = torch.arange(1.0, len(kept) + 1)
    algorithm.data.replay.prioritise(torch.arange(len(kept)), priorities)
    found = algorithm.data._draw_replayed(200, torch.Generator().manual_seed(0), 1, kept)
    share = priorities / priorities.sum()
    expected = 1 / (len(kept) * share[found.replay_numbers])
    assert torch.allclose(found.weights, expected / expected.max())


def test_shares_of_a_minibatch_are_as_asked() -> None:
    algorithm = around("soft_q", "data.minibatch_size=20", "data.fresh=0.5", "data.demonstrated=0.25", "data.updates=1")
    batch = batch_of(12)
    rollout = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Delta())[0]
    found = next(iter(algorithm.data.minibatches(rollout, 0, 1)))
    roles = torch.bincount(found.episodes.role, minlength=3)
    assert roles[SAMPLED] == 15
    assert len(found) == 20
    assert int((found.replay_numbers >= 0).sum()) == 5


def test_samples_of_a_source_are_compared_with_its_demonstration_and_no_other() -> None:
    """A demonstration alone would have nothing to be compared with, and teach nothing."""
    words = ["samples_per_source=3", "data.minibatch_size=24", "data.updates=1", "data.fresh=0.5"]
    algorithm, batch = around("tba", *words, "data.demonstrated=0.25"), batch_of(12)
    rollout = judge(algorithm.collect(batch), batch, Letters(), TableReward(RECORDED.table), Terminal())[0]
    for step in range(3):
        found = next(iter(algorithm.data.minibatches(replace(rollout, step=step), 0, algorithm.samples_together)))
        fresh = found.episodes.rows(found.replay_numbers < 0)
        roles, groups = (getattr(fresh, name) for name in ("role", "group"))
        shown = groups[roles != SAMPLED]
        assert len(shown) == 4
        assert set(shown.tolist()) == set(groups[roles == SAMPLED].tolist())
        assert torch.bincount(groups[roles == SAMPLED] & 0xFFFF).unique().tolist() == [0, 3]


def test_unusable_episodes_teach_nothing() -> None:
    algorithm = around("dqn")
    batch = batch_of(len(SEQUENCES))
    rollout = rollout_of(batch, samples_of(SEQUENCES, tabular("dqn").model), SAMPLED)
    rollout = replace(rollout, rewards=torch.zeros(rollout.actions.shape), valid=torch.zeros_like(rollout.valid))
    before = copy.deepcopy(algorithm.model.state_dict())
    logged = algorithm.update(rollout)
    assert logged["replay/size"] == 0
    assert "td_error" not in logged
    assert all(torch.equal(value, before[name]) for name, value in algorithm.model.state_dict().items())


FACTORS = {  # preset and parts -> factor of the learning rate by head
    "dqn": {"q": 1.0},
    "dqn head.lr_factor=3": {"q": 3.0},
    "soft_q algorithm/prior=uniform algorithm/head=logits": {"q": 10.0},
    "ilql": {"q": 1.0, "v": 10.0},
    "pcl": {"v": 10.0},
    "shiq state_value.lr_factor=4": {"v": 4.0},
}


@pytest.mark.parametrize("words", FACTORS)
def test_a_head_learns_at_its_own_factor_of_the_learning_rate(words: str) -> None:
    algorithm = around(words)
    factors = {id(p): group["lr_factor"] for group in algorithm.optimizer.inner.param_groups for p in group["params"]}
    assert {factors.pop(id(p)) for p in algorithm.model.parameters()} == {1.0}
    found = {name: {factors.pop(id(p)) for p in head.parameters()} for name, head in algorithm.network.heads.items()}
    assert found == {name: {factor} for name, factor in FACTORS[words].items()}
    assert not factors


class ReturnRegression(ValueBased):
    """loss = mean_t (r_t + ... + r_T - Q(s_t, a_t))^2 / 2; acts by the highest Q. All that a new method has to say."""

    def __init__(self, model: Any, tokenizer: Any, head: Any, data: Any, optimizer: Any) -> None:
        network = ValueNetwork(model, {"q": head}, train_trunk=True)
        collector = Collector(data, NoExploration(), tokenizer, samples_per_source=3, max_length=3, seed=0)
        super().__init__(network, None, collector, data, 1, False, 1, optimizer)

    def compute_loss(self, minibatch: Minibatch) -> LossOutput:
        episodes = minibatch.episodes
        output = self.network.read(episodes)
        q = self.network.q(output.hidden[:, :-1], output.project)[0]
        q_taken = q.gather(-1, episodes.actions.unsqueeze(-1)).squeeze(-1)
        error = reward_to_go(self.rewards(episodes), episodes.mask) - q_taken
        return self.mean_loss(minibatch, error.square() / 2, error, {"td_error": error.abs()}, {"q": q_taken})

    def policy(self) -> Composed:
        return Composed(self.model, None, lambda output, _: greedy(self.network.q(output.hidden, output.project)[0]))


def test_a_new_method_is_a_loss_and_a_policy() -> None:
    """It comes to the values of whoever acted, and collects, learns, is saved and goes on as any other does."""

    def made() -> ReturnRegression:
        model, data = TabularPolicy(RECORDED.policy), Experience(12, 2, 0.5, 0.0, 1000, 0.0, 0.0)
        flat = partial(adam, lr=0.1, betas=[0.9, 0.99], eps=1e-8, clip_norm=0.0, schedule=lambda step: 1.0)
        return ReturnRegression(model, Letters(), Linear(model, Letters(), 1, 0, 1.0), data, flat)

    algorithm = made()
    solve(algorithm, minibatch_of(every_text("delta"), chances(RECORDED.behaviour) * len(SEQUENCES)))
    assert (q_of(algorithm) - expected("delta", RECORDED.behaviour)).abs().max() < 1e-6
    algorithm, again = made(), made()
    first = algorithm.update(judged(algorithm.model))
    again.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    again.model.load_state_dict(algorithm.model.state_dict())
    second = judged(algorithm.model, sources=5)
    assert first["td_error"] > 0
    assert algorithm.update(second) == again.update(second)
    assert (algorithm.collect(batch_of(2)).actions == again.collect(batch_of(2)).actions).all()


def test_a_source_without_a_demonstration_gives_no_episode_to_learn_from() -> None:
    batch = replace(batch_of(2), target_mask=torch.tensor([[True, True, True], [False, False, False]]))
    rollout, _ = judge(recite(batch, 0), batch, Letters(), TableReward(RECORDED.table), Terminal())
    (found,) = Experience(4, 1, 0.0, 1.0, 0, 0.0, 0.0).minibatches(rollout, 0, 1)
    assert found.episodes.group.tolist() == [0]
    assert found.total_episodes == 1


FAMILY = [*(CONF.parent / "tokenrl_cli" / "algorithm").glob("*.py")]
FAMILY = [path for path in FAMILY if path.stem in ("value_based", "dqn", "soft_q", "ilql", "path_consistency")]
FAMILY += [
    CONF.parent / "tokenrl_cli" / "algorithm" / "parts" / f"{name}.py"
    for name in ("acting", "data", "exploration", "head", "prior", "state_value")
]


@pytest.mark.parametrize("path", FAMILY, ids=lambda path: path.stem)
def test_nothing_is_larger_than_a_reader_holds(path: Path) -> None:
    """A function has at most 60 lines, a constructor 12 parameters: a preset's hands its keys on to smaller parts."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
        if isinstance(node, ast.ClassDef) and node.name not in CLASSES:
            parameters = [len(each.args.args) for each in node.body if isinstance(each, ast.FunctionDef)]
            assert max(parameters, default=0) <= 13, node.name  # self is one


def test_a_copy_of_bfloat16_weights_that_follows_slowly_is_float32() -> None:
    """In bfloat16 it would stay: a hundredth of the way is rounded back to where it was."""
    learned = torch.nn.Linear(2, 2, dtype=torch.bfloat16)
    slow, sudden = moving_copy(learned, 0.01), moving_copy(learned, 1.0)
    assert (slow.weight.dtype, sudden.weight.dtype, learned.weight.dtype) == (torch.float32, *2 * [torch.bfloat16])
    begin = slow.weight.clone()
    learned.weight.data += 0.25
    for _ in range(5):
        move(slow, learned, 0.01)
    wanted = begin + (learned.weight.float() - begin) * (1 - 0.99**5)
    assert torch.allclose(slow.weight, wanted, rtol=1e-5)
    frozen = learned.requires_grad_(False)
    assert moving_copy(frozen, 0.01).weight is frozen.weight
