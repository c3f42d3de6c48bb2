"""Token-level Q-learning against backward induction, and what must not leak into it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.world import (
    EOS,
    LENGTH,
    REWARDS,
    SEQUENCES,
    STATES,
    WORLD,
    Letters,
    TableReward,
    TabularPolicy,
    batch_of,
    samples_of,
)
from tokenrl_cli import optim
from tokenrl_cli.algorithm.dqn import Dqn, Mixture
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.functional.value import last_steps, max_value, td_targets
from tokenrl_cli.interfaces import SAMPLED, Credit, Rollout, UserError
from tokenrl_cli.sampling import rollout_of
from tokenrl_cli.scoring import judge

SGD = partial(optim.sgd, lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.0, schedule=lambda step: 1.0)
TOKENIZER = Letters()


def dqn(**changes: object) -> Dqn:
    values = dict(
        samples_per_source=1, replay_size=15, minibatch_size=15, updates_per_step=1, target_every=1, double=True,
        bootstrap_truncated=False, train_trunk=False, epsilon_start=1.0, epsilon_end=0.1, epsilon_steps=10,
        optimizer=SGD,
    )  # fmt: skip
    policy = TabularPolicy(WORLD["policy_logits"])
    return Dqn(policy, TOKENIZER, LENGTH, 0, **(values | changes))  # type: ignore[arg-type]


def every_episode(credit: Credit, step: int = 0) -> Rollout:
    policy = TabularPolicy(WORLD["policy_logits"])
    rollout = rollout_of(batch_of(1, step), samples_of(SEQUENCES, policy), SAMPLED)
    return judge(rollout, batch_of(1, step), TOKENIZER, TableReward(REWARDS), credit)[0]


def backward_induction(credit: str) -> Tensor:
    """Q*(s, a), by hand from the end: what is still to be earned after a in s."""

    def best(prefix: tuple[int, ...]) -> float:
        return 0.0 if len(prefix) == LENGTH or EOS in prefix else max(q(prefix, a) for a in range(3))

    def q(prefix: tuple[int, ...], action: int) -> float:
        after = (*prefix, action)
        text, longer = TOKENIZER.decode(prefix), TOKENIZER.decode(after)
        over = len(after) == LENGTH or action == EOS
        reward = REWARDS[longer] - REWARDS[text] if credit == "delta" else REWARDS[longer] * over
        return reward + best(after)

    return torch.tensor([[q(prefix, a) for a in range(3)] for prefix in STATES], dtype=torch.float64)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("credit", ["terminal", "delta"])
def test_q_learning_reaches_the_table_of_backward_induction(credit: str, double: bool) -> None:
    """O23, n = 1."""
    algorithm = dqn(double=double)
    for step in range(1500):
        algorithm.update(every_episode({"terminal": Terminal(), "delta": Delta()}[credit], step))
    learned = algorithm.head.weight[:, :-1].T + algorithm.head.bias
    exact = backward_induction(credit)
    assert (learned - exact).abs().max() < 1e-6
    states = torch.arange(len(STATES))
    greedy = algorithm.policy()._extract(torch.eye(len(STATES) + 1, dtype=torch.float64)[states])  # type: ignore[attr-defined]
    assert torch.equal(greedy.argmax(-1), exact.argmax(-1))


def test_the_target_network_is_a_copy_that_never_learns_by_gradient() -> None:
    """Trap 29: no alias, no gradient, not in the optimiser; it follows every `target_every` updates and is saved."""
    algorithm = dqn(train_trunk=True, target_every=2)
    frozen = [*algorithm.target_model.parameters(), *algorithm.target_head.parameters()]
    learning = {id(p) for group in algorithm.optimizer.inner.param_groups for p in group["params"]}
    assert all(not p.requires_grad and id(p) not in learning for p in frozen)
    algorithm.update(every_episode(Terminal()))
    assert not torch.equal(algorithm.head.weight, algorithm.target_head.weight)
    assert all(p.grad is None for p in frozen)
    state = {
        name: value.clone() if isinstance(value, Tensor) else value for name, value in algorithm.state_dict().items()
    }
    again = dqn(train_trunk=True, target_every=2)
    again.load_state_dict(state)
    assert not torch.equal(again.head.weight, again.target_head.weight)
    for each in (algorithm, again):
        each.model.load_state_dict(algorithm.model.state_dict())
        each.update(every_episode(Terminal(), 1))
        assert torch.equal(each.head.weight, each.target_head.weight)
    assert torch.equal(algorithm.head.weight, again.head.weight) and algorithm.updates == again.updates == 2


def test_an_episode_cut_at_the_limit_ends_or_goes_on_as_asked() -> None:
    """Trap 7: `ended` says how an episode was over, and drives the bootstrap."""
    rollout = every_episode(Terminal())
    lengths, ended = rollout.mask.sum(1), rollout.ended
    scores = torch.tensor(WORLD["rewards"], dtype=torch.float64)
    for goes_on in (False, True):
        algorithm = dqn(bootstrap_truncated=goes_on)
        algorithm.target_head.bias.data.fill_(10.0)  # what every successor is worth
        successors = lengths - 1 + (~ended & goes_on).long()
        by_hand = (scores + 10.0 * successors).sum() / lengths.sum()  # Q is 0, so the error is the target
        assert algorithm._loss(rollout)[1]["td_error"] == pytest.approx(by_hand.item())


def test_padding_is_neither_learned_from_nor_bootstrapped() -> None:
    """Trap 30: junk in padded columns changes no number."""
    plain, junk = dqn(), dqn()
    rollout = every_episode(Terminal())
    plain.update(rollout)
    dirty = rollout.actions.masked_fill(~rollout.mask, 2)
    junk.update(replace(rollout, actions=dirty))
    assert torch.equal(plain.head.weight, junk.head.weight)


def test_targets_by_hand() -> None:
    rewards, mask = torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[True, True, False]])
    following = torch.tensor([[0.5, 7.0, 7.0]], requires_grad=True)
    target = td_targets(rewards, following, last_steps(mask))
    assert target[mask].tolist() == [0.5, 1.0] and not target.requires_grad
    q, chooser = torch.tensor([1.0, 5.0, 3.0]), torch.tensor([0.0, 1.0, 2.0])
    assert max_value(q, q).item() == 5.0 and max_value(q, chooser).item() == 3.0


def test_with_identical_networks_double_q_learning_is_q_learning() -> None:
    """O31."""
    q = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(max_value(q, q), q.max(-1).values)


def test_exploration_goes_from_the_warm_start_to_the_best_value() -> None:
    algorithm, batch = dqn(), batch_of(2)
    assert algorithm.epsilon == 1.0
    explorer = algorithm.explorer(batch.source, batch.source_mask, batch.targets).logits.softmax(-1)
    acting = Mixture(algorithm.policy(), algorithm.explorer, 1.0)(batch.source, batch.source_mask, batch.targets)
    assert torch.allclose(acting.logits.exp(), explorer)
    half = Mixture(algorithm.policy(), algorithm.explorer, 0.5)(batch.source, batch.source_mask, batch.targets)
    assert torch.allclose(half.logits.exp()[..., 0], 0.5 + explorer[..., 0] / 2)  # a zero head takes token 0
    for step in range(12):
        algorithm.collect(batch_of(2, step))
    assert algorithm.epsilon == pytest.approx(0.1)


@pytest.mark.parametrize(("name", "value"), [("replay_size", 0), ("epsilon_end", 1.5), ("target_every", 0)])
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"algorithm.{name}: must be"):
        dqn(**{name: value})
