"""A rollout holds each source once, and whatever reads it finds the source of every episode."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.presets import preset
from tests.world import EOS
from tokenrl_cli.episodes.replay import Replay
from tokenrl_cli.episodes.sampling import Decoding, Samples, concatenate, generate, recite, rollout_of
from tokenrl_cli.interfaces import GREEDY, PER_SOURCE, SAMPLED, Batch, Rollout
from tokenrl_cli.model.recurrent import Recurrent

PACKAGE = Path(__file__).parents[2] / "tokenrl_cli"


def turned(rollout: Rollout) -> Rollout:
    """With the sources in the opposite order."""
    back = {name: getattr(rollout, name).flip(0) for name in PER_SOURCE}
    return replace(rollout, **back, source_row=len(rollout.source) - 1 - rollout.source_row)


class Tokens:
    """Seven tokens; EOS is 0."""

    size, eos_id, unknown_id = 7, EOS, None


def batch_of(step: int, sources: int = 3, width: int = 4) -> Batch:
    """Every source, demonstration and reference is another one, of another length."""
    draws = torch.Generator().manual_seed(step)
    ids, masks = [], []
    for size in (width, 5, 6):
        lengths = torch.arange(sources).roll(size) % (size - 1) + 1
        masks.append(torch.arange(size) < lengths.unsqueeze(1))
        ids.append(torch.randint(1, 7, (sources, size), generator=draws).masked_fill(~masks[-1], 0))
    words = ["?"] * sources
    example = 1000 * (10 * step + sources) + 10 * width + torch.arange(sources)
    texts = [[word] for word in words]
    return Batch(
        step, ids[0], masks[0], ids[1], masks[1], ids[2], masks[2], words, texts, {}, example, read_again,
    )  # fmt: skip


def read_again(example: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sources of `batch_of` by their numbers in the split."""
    found = []
    for number in example.tolist():
        batch, row = batch_of(number // 10_000, number // 1000 % 10, number % 1000 // 10), number % 10
        found.append((batch.source[row], batch.source_mask[row]))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad([ids for ids, _ in found], batch_first=True), pad([mask for _, mask in found], batch_first=True)


def said(rows: int, seed: int = 0, length: int = 3) -> Samples:
    """Full episodes."""
    draws = torch.Generator().manual_seed(seed)
    actions, full = torch.randint(1, 7, (rows, length), generator=draws), torch.ones(rows, length, dtype=torch.bool)
    return Samples(actions, full, torch.zeros(rows, length), None, torch.ones(rows, dtype=torch.bool))


def belongings(rollout: Rollout) -> list[tuple[Any, ...]]:
    """Of each episode its tokens and, where their masks are, its source, demonstration and reference."""
    found = []
    for actions, n in zip(rollout.actions.tolist(), rollout.source_row.tolist(), strict=True):
        pairs = zip(PER_SOURCE[:-1:2], PER_SOURCE[1::2], strict=True)
        found.append((actions, *(getattr(rollout, ids)[n][getattr(rollout, mask)[n]].tolist() for ids, mask in pairs)))
    return found


def repeated(rollout: Rollout) -> Rollout:
    """With a copy of its source for every episode."""
    copies = {name: getattr(rollout, name)[rollout.source_row] for name in PER_SOURCE}
    return replace(rollout, **copies, source_row=torch.arange(len(rollout)))


@pytest.mark.parametrize("index", [torch.tensor([5, 1, 0, 5]), slice(2, 5), torch.zeros(0, dtype=torch.int64)])
def test_rows_take_the_sources_they_read_each_once_and_number_them_anew(index: Any) -> None:
    rollout = rollout_of(batch_of(0), said(6), SAMPLED)
    taken, every = rollout.rows(index), belongings(rollout)
    assert belongings(taken) == [every[i] for i in torch.arange(6)[index].tolist()]
    assert len(taken.source) == len(set(rollout.source_row[index].tolist()))


def test_a_joined_rollout_holds_the_sources_of_all_its_parts_each_once() -> None:
    """Samples, companions and demonstrations of one batch, and rows of another one, as wide as another batch is."""
    batch, other = batch_of(0), rollout_of(batch_of(7, 2, 9), said(4, 1), SAMPLED)
    parts = [rollout_of(batch, said(6), SAMPLED), rollout_of(batch, said(3, 2), GREEDY), recite(batch, EOS),
             other.rows(torch.tensor([3, 1]))]  # fmt: skip
    whole = concatenate(parts)
    wide = [(row + [0] * (5 - len(row)), *rest) for part in parts for row, *rest in belongings(part)]
    assert belongings(whole) == wide
    assert len(whole.source) == 5
    assert whole.source.shape[1] == 9


def test_a_replay_gives_each_episode_its_own_source_and_each_source_once() -> None:
    """Drawn in any order, twice, from several batches, after the rings have gone round."""
    replay, known = Replay(40), {}
    for step in range(6):
        rollout = rollout_of(batch_of(step, width=4 + step), said(6, step), SAMPLED)
        replay.add(replace(rollout, rewards=torch.zeros(6, 3)))
        known |= {6 * step + i: each for i, each in enumerate(belongings(rollout))}
    numbers = torch.tensor([35, 25, 30, 35, 24, 31])
    kept = replay.episodes(numbers, rollout)
    assert belongings(kept) == [known[number] for number in numbers.tolist()]
    assert len(kept.source) == len(kept.group.unique()) < len(numbers)


def test_a_replay_has_room_for_each_source_once_and_keeps_no_episode_whose_source_was_written_over() -> None:
    """Six episodes of a token each, of three sources with 6 tokens: a copy for each episode would take 12. Where those
    of one source do not stand together, the last of them goes with all before it."""
    replay, order, known = Replay(12), torch.tensor([4, 0, 2, 1, 5, 3]), []
    for step in range(2):
        rollout = replace(rollout_of(batch_of(step), said(6, step, 1), SAMPLED), rewards=torch.zeros(6, 1)).rows(order)
        replay.add(rollout)
        known += belongings(rollout)
        assert len(replay) == len(known) == 6 * (step + 1)
        assert belongings(replay.episodes(torch.arange(len(known)), rollout)) == known
    lone = replace(rollout_of(batch_of(2, 1), said(1, 2, 1), SAMPLED), rewards=torch.zeros(1, 1))
    replay.add(lone)  # over the first token of the first source, which the rows at 1 and 3 read
    assert belongings(replay.episodes(torch.arange(4, 13), rollout)) == [*known[4:], *belongings(lone)]
    assert replay.first == 4


def test_episodes_are_sampled_for_each_row_that_names_a_source() -> None:
    model, batch, row = lstm(), batch_of(0), torch.tensor([2, 0, 2])
    sampling = Decoding(5, 1.0, 0, 1.0, 0.0, [], 1, 0.0)
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    once = generate(model, batch.source, batch.source_mask, sampling, 2, EOS, draws[0], None, row)
    copies = generate(model, batch.source[row], batch.source_mask[row], sampling, 2, EOS, draws[1])
    assert torch.equal(once.actions, copies.actions)
    assert len(once.actions) == 6
    assert (once.logprobs - copies.logprobs).abs().max() < 1e-12


def lstm() -> Any:
    torch.manual_seed(0)
    model = Recurrent(Tokens(), Tokens(), "lstm", 6, 8, 1, 0.0, False, False)  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.double()


PRESETS = {
    "rloo": [f"algorithm.{key}" for key in ("nll_mix=0.5", "kl_loss_coef=0.1", "minibatches=2", "micro_batches=2")],
    "mixer": ["algorithm.samples_per_source=2"],
    "vine": ["algorithm.samples_per_source=2"],
    "ocd": ["algorithm.samples_per_source=2"],
    "dqn": ["algorithm.data.minibatch_size=6", "algorithm.micro_batches=2"],
    "soft_q": ["algorithm.data.minibatch_size=6"],
    "tba": ["algorithm.data.minibatch_size=8"],
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", PRESETS)
def test_an_algorithm_learns_the_same_however_the_sources_are_held(name: str) -> None:
    """After two steps, with other rewards, each of a batch of its own; plain gradient descent hides nothing."""
    weights = []
    for held in (lambda rollout: rollout, repeated, turned):
        model = lstm()
        descent = ["optimizer@algorithm.optimizer=sgd", "algorithm.optimizer.lr=0.1"]
        algorithm = preset(name, model, Tokens(), 6, *descent, *PRESETS[name])  # type: ignore[arg-type]
        for step in range(2):
            rollout = algorithm.collect(batch_of(step))
            assert len(rollout.source) == 3 < len(rollout)
            draws = torch.Generator().manual_seed(step)
            rewards = torch.rand(rollout.mask.shape, generator=draws, dtype=torch.float64) * rollout.mask
            algorithm.update(held(replace(rollout, rewards=rewards)))
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    assert any((one - other).abs().max() > 1e-6 for one, other in zip(weights[0], lstm().parameters(), strict=True))
    for one, copies, back in zip(*weights, strict=True):
        assert (one - copies).abs().max() < 1e-12
        assert (one - back).abs().max() < 1e-12


def test_whoever_hands_the_sources_of_a_rollout_to_a_model_says_which_row_reads_which() -> None:
    """Forgotten, it would go unnoticed wherever there are as many sources as episodes."""
    found = []
    for path in set(PACKAGE.rglob("*.py")) - set((PACKAGE / "model").iterdir()):  # a model's state has its own rows
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call):
                given = [ast.unparse(argument) for argument in call.args]
                owners = [text.removesuffix(".source_mask") for text in given if text.endswith(".source_mask")]
                missing = [f"{owner}.source_row" for owner in owners if owner != "batch"]
                found += [f"{path.name}:{call.lineno} {text}" for text in missing if text not in given]
    assert found == []
