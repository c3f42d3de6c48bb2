"""Episodes come back as they went in."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.world import SEQUENCES, WORLD, TabularPolicy, batch_of, samples_of
from tokenrl_cli.interfaces import SAMPLED, Rollout
from tokenrl_cli.replay import Replay
from tokenrl_cli.sampling import rollout_of


def episodes(sequences: list[list[int]], step: int) -> Rollout:
    rollout = rollout_of(batch_of(1, step), samples_of(sequences, TabularPolicy(WORLD["policy_logits"])), SAMPLED)
    return replace(rollout, rewards=torch.full(rollout.actions.shape, 0.5).masked_fill(~rollout.mask, 0.0))


def test_rows_return_whole_trimmed_and_with_rewards_that_are_no_integers() -> None:
    """Trap 24."""
    replay = Replay(10)
    replay.add(episodes([[1, 0], [2, 0]], 0))
    replay.add(episodes([[1, 2, 0]], 1))
    drawn = replay.sample(50, torch.Generator().manual_seed(0), episodes([[0]], 2))
    texts = {tuple(row[:n]) for row, n in zip(drawn.actions.tolist(), drawn.mask.sum(1).tolist(), strict=True)}
    assert texts == {(1, 0), (2, 0), (1, 2, 0)} and drawn.step == 2
    assert drawn.rewards is not None and set(drawn.rewards[drawn.mask].tolist()) == {0.5}


def test_the_oldest_episode_makes_room_and_invalid_ones_are_not_kept() -> None:
    replay = Replay(3)
    rollout = episodes([[1, 0]], 0)
    replay.add(replace(rollout, valid=torch.zeros_like(rollout.valid)))
    assert len(replay) == 0
    for number, sequence in enumerate(SEQUENCES[:5]):
        replay.add(episodes([sequence], number))
    assert len(replay) == 3 and sorted(replay.kept["group"].tolist()) == [2 << 32, 3 << 32, 4 << 32]


def test_more_episodes_than_it_holds_leave_the_last_ones() -> None:
    replay = Replay(4)
    replay.add(episodes(SEQUENCES, 0))
    assert len(replay) == 4
    kept = {tuple(row) for row in replay.kept["actions"].tolist()}
    assert {tuple(s) for s in SEQUENCES[-3:]} <= kept


def test_a_replay_goes_through_its_state_unchanged() -> None:
    replay, again = Replay(4), Replay(4)
    replay.add(episodes(SEQUENCES[:6], 0))
    again.load_state_dict(replay.state_dict())
    for each in (replay, again):
        each.add(episodes(SEQUENCES[6:7], 1))
    like, draws = episodes([[0]], 2), [torch.Generator().manual_seed(5) for _ in range(2)]
    one, two = replay.sample(8, draws[0], like), again.sample(8, draws[1], like)
    assert torch.equal(one.actions, two.actions) and torch.equal(one.mask, two.mask) and len(again) == 4
