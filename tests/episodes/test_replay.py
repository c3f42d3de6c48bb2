"""Episodes come back as they went in, from memory that does not grow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.world import SEQUENCES, WORLD, TabularPolicy, batch_of, samples_of
from tokenrl_cli.episodes.replay import Replay
from tokenrl_cli.episodes.sampling import rollout_of
from tokenrl_cli.interfaces import SAMPLED, Rollout, UserError


def episodes(sequences: list[list[int]], step: int, sources: int = 1) -> Rollout:
    policy = TabularPolicy(WORLD["policy_logits"])
    rollout = rollout_of(batch_of(sources, step), samples_of(sequences, policy), SAMPLED)
    return replace(rollout, rewards=torch.full(rollout.actions.shape, 0.5).masked_fill(~rollout.mask, 0.0))


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(rollout: Rollout) -> list[tuple[int, ...]]:
    lengths = rollout.mask.sum(1).tolist()
    return [tuple(row[:n]) for row, n in zip(rollout.actions.tolist(), lengths, strict=True)]


def everything(replay: Replay) -> Rollout:
    return replay.episodes(torch.arange(replay.first, replay.added), episodes([[0]], 9))


def test_rows_return_whole_trimmed_and_with_rewards_that_are_no_integers() -> None:
    """Trap 24."""
    replay = Replay(10)
    replay.add(episodes([[1, 0], [2, 0]], 0))
    replay.add(episodes([[1, 2, 0]], 1))
    kept = everything(replay)
    assert texts(kept) == [(1, 0), (2, 0), (1, 2, 0)]
    assert kept.step == 9
    assert kept.rewards is not None
    assert set(kept.rewards[kept.mask].tolist()) == {0.5}
    assert kept.logprobs[kept.mask].tolist() == pytest.approx(
        torch.cat([e.logprobs[e.mask] for e in (episodes([[1, 0], [2, 0]], 0), episodes([[1, 2, 0]], 1))]).tolist()
    )
    short = replay.episodes(torch.tensor([0, 1]), episodes([[0]], 2))
    assert short.actions.shape == (2, 2)  # no wider than they need


def test_the_oldest_make_room_for_as_many_tokens_as_come_and_invalid_ones_are_not_kept() -> None:
    replay = Replay(7)
    rollout = episodes([[1, 0]], 0)
    replay.add(replace(rollout, valid=torch.zeros_like(rollout.valid)))
    assert len(replay) == 0
    assert replay.tokens == 0
    assert replay.age(5) == 0
    for number, sequence in enumerate([[1, 0], [2, 0], [1, 1, 0], [1, 2, 0]]):
        replay.add(episodes([sequence], number))
        assert replay.tokens <= 7
    assert texts(everything(replay)) == [(1, 1, 0), (1, 2, 0)]
    assert replay.tokens == 6
    assert replay.age(5) == 2.5


def test_sources_and_references_need_room_too() -> None:
    """Each "ab<eos>" demonstration is three tokens: of nine, three episodes fit, however short what was said."""
    replay = Replay(9)
    for number in range(5):
        replay.add(episodes([[0]], number))
    assert len(replay) == 3
    assert replay.tokens == 3
    kept = everything(replay)
    assert torch.equal(kept.targets[kept.target_mask], torch.tensor([1, 2, 0] * 3))


def test_more_episodes_than_it_holds_leave_the_last_ones() -> None:
    replay = Replay(12)
    replay.add(episodes(SEQUENCES, 0, len(SEQUENCES)))
    assert texts(everything(replay)) == [tuple(s) for s in SEQUENCES[-len(replay) :]]
    assert len(replay) == 4


def test_an_episode_that_cannot_be_kept_at_all_is_refused() -> None:
    with pytest.raises(UserError, match=r"algorithm.data.capacity: must hold the longest episode"):
        Replay(2).add(episodes([[1, 2, 0]], 0))


def test_memory_is_taken_once() -> None:
    replay, places = Replay(9), set()
    for number in range(20):
        replay.add(episodes([SEQUENCES[number % len(SEQUENCES)]], number))
        places.add((replay.bytes, *(each.data_ptr() for each in (*replay.rings.values(), *replay.table.values()))))
    assert len(places) == 1


def test_priorities_are_drawn_by_and_what_is_gone_is_not_set() -> None:
    replay = Replay(100)
    replay.add(episodes([[1, 0], [2, 0], [1, 1, 0]], 0))
    replay.prioritise(torch.tensor([0, 1, 2]), torch.tensor([1.0, 3.0, 0.0]))
    numbers, share = replay.draw(4000, draws(), 1.0)
    often = torch.bincount(numbers, minlength=3).double() / 4000
    assert torch.allclose(often, torch.tensor([0.25, 0.75, 0.0]).double(), atol=0.03)
    assert torch.allclose(share[numbers == 1], torch.tensor(0.75).double())
    numbers, share = replay.draw(4000, draws(), 2.0)
    assert (numbers == 0).double().mean().item() == pytest.approx(0.1, abs=0.02)
    numbers, share = replay.draw(4000, draws())
    assert (numbers == 2).double().mean().item() == pytest.approx(1 / 3, abs=0.03)
    assert set(share.tolist()) == {1 / 3}
    small = Replay(4)
    for number in range(3):
        small.add(episodes([[1, 1, 0]], number))
    before = small.table["priority"].clone()
    small.prioritise(torch.tensor([0]), torch.tensor([50.0]))
    assert torch.equal(small.table["priority"], before)
    assert len(small) == 1


def test_what_is_new_is_drawn_like_the_most_surprising() -> None:
    replay = Replay(100)
    replay.add(episodes([[1, 0], [2, 0]], 0))
    replay.prioritise(torch.tensor([0, 1]), torch.tensor([1.0, 4.0]))
    replay.add(episodes([[1, 1, 0]], 1))
    _, share = replay.draw(1000, draws(), 1.0)
    assert sorted(set(share.tolist())) == pytest.approx([1 / 9, 4 / 9])


def test_an_episode_that_is_gone_does_not_say_how_surprising_new_ones_are() -> None:
    """Room for two: what the surprising one left behind, in its slot or in those that came after it, counts no more."""
    replay = Replay(6)
    for number, error in enumerate((50.0, 2.0)):
        replay.add(episodes([[1, 1, 0]], number))
        replay.prioritise(torch.tensor([number]), torch.tensor([error]))
    replay.add(episodes([[1, 2, 0]], 2))  # over the first
    assert sorted(set(replay.draw(500, draws(), 1.0)[1].tolist())) == [0.5]
    replay.prioritise(torch.tensor([1, 2]), torch.tensor([6.0, 2.0]))
    replay.add(episodes([[2, 1, 0]], 3))  # over the second, which had 6
    assert sorted(set(replay.draw(500, draws(), 1.0)[1].tolist())) == [0.5]
    replay.prioritise(torch.tensor([3]), torch.tensor([8.0]))
    assert sorted(set(replay.draw(500, draws(), 1.0)[1].tolist())) == pytest.approx([0.2, 0.8])
    replay.add(episodes([[1, 1, 0], [2, 2, 0]], 4))  # over all there was
    assert sorted(set(replay.draw(500, draws(), 1.0)[1].tolist())) == [0.5]
    assert len(replay) == 2


def test_an_episode_that_lost_a_single_token_is_gone() -> None:
    replay = Replay(8)
    for number in range(3):
        replay.add(episodes([[1, 2, 0]], number))
    assert len(replay) == 2
    assert texts(everything(replay)) == [(1, 2, 0)] * 2


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_only_episodes_that_are_kept_are_drawn(exponent: float) -> None:
    replay = Replay(9)
    for number in range(7):
        replay.add(episodes([[1, 1, 0]], number))
    assert set(replay.draw(300, draws(), exponent)[0].tolist()) == {4, 5, 6}


def test_what_is_kept_is_the_episode_with_all_that_belongs_to_it() -> None:
    """Masks, facts and numbers a token, after the rings have gone round; drawn again in another order."""
    replay, kinds = Replay(20), [[1, 2, 0], [2, 2, 1], [1, 0], [0]]
    for step in range(6):
        rollout = episodes(kinds, step, 4)
        told = torch.arange(12.0).view(4, 3) + 100 * step
        replay.add(replace(rollout, rewards=told, logprobs=-told, chosen=rollout.mask & (told % 2 == 0)))
    newest = torch.tensor([replay.added - 1, replay.added - 4, replay.added - 3])
    kept = replay.episodes(newest, episodes([[0]], 9))
    assert texts(kept) == [(0,), (1, 2, 0), (2, 2, 1)]
    assert kept.ended.tolist() == [True, True, False]
    assert kept.group.tolist() == [(5 << 32) + row for row in (3, 0, 1)]
    assert kept.rewards is not None
    assert kept.rewards.tolist() == [[509, 0, 0], [500, 501, 502], [503, 504, 505]]
    assert kept.chosen.tolist() == [[False] * 3, [True, False, True], [False, True, False]]
    assert torch.equal(kept.logprobs, -kept.rewards)
    assert kept.valid.all()
    assert kept.parent.tolist() == [0, 1, 2]
    assert kept.targets.tolist() == [[1, 2, 0]] * 3
    assert kept.source_mask.all()
    assert kept.role.tolist() == [SAMPLED] * 3


def test_the_samples_of_a_source_come_together() -> None:
    replay = Replay(100)
    replay.add(episodes([[1, 0], [2, 0], [1, 1, 0], [1, 2, 0]], 0, 2))
    replay.add(episodes([[0], [2, 2, 0]], 1))
    assert replay.same_group(torch.tensor([3, 4])).tolist() == [2, 3, 4, 5]


def test_a_replay_goes_through_its_state_unchanged() -> None:
    replay, again = Replay(8), Replay(8)
    replay.add(episodes(SEQUENCES[:6], 0, 6))
    again.load_state_dict({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in replay.state_dict().items()})
    for each in (replay, again):
        each.add(episodes(SEQUENCES[6:7], 1))
    assert torch.equal(replay.draw(8, draws(5))[0], again.draw(8, draws(5))[0])
    assert texts(everything(replay)) == texts(everything(again))
    assert replay.tokens == again.tokens > 0
