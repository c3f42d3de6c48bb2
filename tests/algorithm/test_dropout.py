"""Dropout acts where demonstrations teach, and never where the probability of a sampled token counts."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.algorithm.test_actor_critic import algorithm as actor_critic
from tests.presets import PRESETS, preset
from tests.world import RECORDED, Letters, TableReward, TabularPolicy, TabularState, batch_of
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.functional import schedules
from tokenrl_cli.interfaces import ModelOutput

SUPERVISED = ("gold", "gold_s", "mle", "raml")


class Watched(TabularPolicy):
    """Keeps the mode of every pass, and whether it had a gradient; copies of it write to the same list."""

    seen: ClassVar[dict[str, set[tuple[bool, bool]]]] = defaultdict(set)

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        learns = torch.is_grad_enabled() and self.table.requires_grad
        self.seen["whole"].add((self.training, learns))
        return super().forward(source, source_mask, actions, source_row)

    def step(self, state: TabularState, previous: Tensor | None) -> tuple[ModelOutput, TabularState]:
        self.seen["step"].add((self.training, torch.is_grad_enabled() and self.table.requires_grad))
        return super().step(state, previous)


def taught(algorithm: Any) -> dict[str, set[tuple[bool, bool]]]:
    """The modes of a whole step that begins in training mode."""
    batch = batch_of(6)
    for part in vars(algorithm).values():
        if isinstance(part, Watched):
            part.train(part.table.requires_grad)
    Watched.seen.clear()
    rollout = algorithm.collect(batch)
    if algorithm.needs_rewards:
        rollout = judge(rollout, batch, Letters(), TableReward(RECORDED.table), Delta())[0]
    algorithm.update(rollout)
    return dict(Watched.seen)


@pytest.mark.sample(10)
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "actor_critic"])
def test_every_preset_drops_where_it_recites_and_nowhere_else(name: str) -> None:
    few = [] if name in (*SUPERVISED, "actor_critic") else ["algorithm.samples_per_source=4"]
    seen = taught(preset(name, Watched(RECORDED.policy), Letters(), 3, *few))
    assert not any(training for training, _ in seen.get("step", set()))
    learning = {training for training, learns in seen["whole"] if learns}
    assert learning == {name in SUPERVISED}
    assert not any(training for training, learns in seen["whole"] if not learns)  # weights, targets, references


def test_the_actor_and_its_critic_drop_nothing() -> None:
    actor = actor_critic(model=Watched(RECORDED.policy), critic=Watched(RECORDED.policy), nll_mix=0.5)
    actor.critic.network.train()
    seen = taught(actor)
    assert {training for modes in seen.values() for training, _ in modes} == {False}


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_histories_are_sampled_without_dropout_and_targets_read_with_it(share: float) -> None:
    algorithm = preset("mle", Watched(RECORDED.policy), Letters(), 3)
    algorithm.scheduled_sampling = (lambda step: share) if share else schedules.never
    seen = taught(algorithm)
    assert seen["whole"] == {(True, True)}
    assert seen.get("step", {(False, False)}) == {(False, False)}
    assert ("step" in seen) == bool(share)
