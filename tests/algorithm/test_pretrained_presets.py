"""Every preset around a model from a pretrained checkpoint, of both kinds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.model.test_pretrained import home as home
from tests.model.test_pretrained import read, saved
from tests.presets import GRADIENTS, PRESETS, preset
from tests.world import RECORDED, Letters, TableReward, batch_of
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.episodes.scoring import judge


class OfCheckpoint(Letters):
    """The three tokens of the world as three of the twenty that a tiny checkpoint has."""

    theirs = (2, 5, 7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns_and_its_first_ratio_is_1(home: Path, name: str, kind: str) -> None:
    tokenizer = OfCheckpoint()
    model = read(saved(home, kind), kind, tokenizer)
    given = ["algorithm.epochs=1", "algorithm.minibatches=1"] if name in GRADIENTS else []
    given += ["algorithm.critic_steps=0"] if name == "actor_critic" else []  # before these the actor waits
    algorithm = preset(name, model, tokenizer, 3, *given)
    before = {key: value.clone() for key, value in algorithm.state_dict().items() if isinstance(value, torch.Tensor)}
    before |= {f"model {key}": value.clone() for key, value in model.state_dict().items()}
    for step in range(3):
        batch = batch_of(4, step)
        rollout = algorithm.collect(batch)
        if algorithm.needs_rewards:
            rollout, _ = judge(rollout, batch, tokenizer, TableReward(RECORDED.table), Delta())
        logged = algorithm.update(rollout)
        assert all(math.isfinite(value) for value in logged.values()), logged
        if name in GRADIENTS:
            assert logged["sampling/logp_difference/max"] < 1e-4
            assert step or logged["approx_kl"] < 1e-4
    after = algorithm.state_dict() | {f"model {key}": value for key, value in model.state_dict().items()}
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert any(key.startswith("model ") for key in changed) or any(key.startswith("policy.") for key in changed)
