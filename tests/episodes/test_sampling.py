"""What the sampler draws is what the scorer scores, and masks come from lengths."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.world import EOS, SEQUENCES, WORLD, TabularPolicy, batch_of, numbered, probabilities, samples_of
from tokenrl_cli.episodes.sampling import Decoding, concatenate, distribution, generate, logprobs_of, recite, rollout_of
from tokenrl_cli.interfaces import CONTINUATION, DEMONSTRATION, GREEDY, PER_SOURCE, SAMPLED, Batch, Rollout

PLAIN = Decoding(3, 1.0, 0, 1.0, 0.0, [], 1, 0.0)
WAYS = {
    "plain": PLAIN,
    "temperature": replace(PLAIN, temperature=0.7),
    "top_k": replace(PLAIN, top_k=2),
    "top_p": replace(PLAIN, top_p=0.6, temperature=1.3),
    "epsilon": replace(PLAIN, epsilon=0.2),
    "everything": replace(PLAIN, temperature=0.8, top_k=2, top_p=0.9, epsilon=0.1),
    "forbidden": replace(PLAIN, forbidden=[2]),
}


def drawn(decoding: Decoding, rows: int, seed: int = 0):  # type: ignore[no-untyped-def]
    policy, batch = TabularPolicy(WORLD["policy_logits"]), batch_of(1)
    generator = torch.Generator().manual_seed(seed)
    return policy, generate(policy, batch.source, batch.source_mask, decoding, rows, EOS, generator)


@pytest.mark.parametrize("way", WAYS)
def test_sampled_and_scored_log_probabilities_are_the_same(way: str) -> None:
    """Trap 12: with the stored cut, the first-pass ratio is 1."""
    decoding = WAYS[way]
    policy, said = drawn(decoding, 500)
    source = torch.ones(500, 1, dtype=torch.int64)
    scored = logprobs_of(policy(source, source.bool(), said.actions).logits, said.actions, decoding, said.support)
    assert ((scored - said.logprobs).masked_fill(~said.mask, 0.0)).abs().max() < 1e-10


@pytest.mark.parametrize("way", WAYS)
def test_the_expected_score_is_zero_under_the_distribution_it_was_sampled_from(way: str) -> None:
    """Trap 12: E_q[grad log q] = 0 for every way of sampling; under the plain softmax it is not, once q is warped."""
    decoding, logits = WAYS[way], torch.tensor([[0.3, -0.5, 1.1, 0.2]], dtype=torch.float64, requires_grad=True)
    logprobs, _ = distribution(logits, decoding)
    chances = logprobs.detach().exp()
    possible = chances > 0
    (gradient,) = torch.autograd.grad((chances * logprobs.masked_fill(~possible, 0.0)).sum(), logits)
    assert gradient.abs().max() < 1e-12
    (plain,) = torch.autograd.grad((chances * logits.log_softmax(-1)).sum(), logits)
    assert (plain.abs().max() < 1e-12) == (way == "plain")


def test_sampled_frequencies_are_the_probabilities() -> None:
    rows = 40_000
    policy, said = drawn(PLAIN, rows)
    lengths = said.mask.sum(-1)
    said_texts = [tuple(row[:n]) for row, n in zip(said.actions.tolist(), lengths.tolist(), strict=True)]
    counts = torch.tensor([said_texts.count(tuple(sequence)) for sequence in SEQUENCES], dtype=torch.float64)
    expected = probabilities(policy).detach() * rows
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert counts.sum() == rows
    assert chi_squared < 36.1


def test_a_cut_keeps_the_best_tokens_and_only_those_are_drawn() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64))
    ways = [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.75}, {0, 1}),
        ({"top_p": 0.81}, {0, 1, 2}),
        ({"forbidden": [0]}, {1, 2, 3}),
    ]
    for way, kept in ways:
        decoding = replace(PLAIN, **way)  # type: ignore[arg-type]
        logprobs, _ = distribution(logits, decoding)
        assert {i for i, value in enumerate(logprobs[0].tolist()) if value > -math.inf} == kept
        assert math.isclose(float(logprobs.exp().sum()), 1.0, rel_tol=1e-12)


def test_the_mask_ends_with_eos_and_a_cut_row_has_none() -> None:
    """Traps 1, 3, 45: padding has the id of EOS here, so only lengths can tell."""
    _, said = drawn(PLAIN, 400)
    for row, mask, ended in zip(said.actions.tolist(), said.mask.tolist(), said.ended.tolist(), strict=True):
        length = row.index(EOS) + 1 if EOS in row else 3
        written = row[: sum(mask)]
        assert mask == [t < sum(mask) for t in range(len(mask))]
        assert ended == (EOS in written)
        assert not ended or written.index(EOS) == len(written) - 1
        assert ended or sum(mask) == 3
        assert sum(mask) == (length if ended else 3)


def test_greedy_takes_the_best_token_of_every_state() -> None:
    _policy, said = drawn(replace(PLAIN, temperature=0.0), 2)
    assert said.actions.tolist() == [[1, 1, 0]] * 2
    assert torch.equal(said.logprobs, torch.zeros_like(said.logprobs))


def test_companions_join_a_rollout_padded_and_without_a_support() -> None:
    policy, batch = TabularPolicy(WORLD["policy_logits"]), batch_of(2)
    cut, greedy = WAYS["top_k"], replace(PLAIN, temperature=0.0, max_length=2)
    parts = [
        rollout_of(batch, generate(policy, batch.source, batch.source_mask, cut, 3, EOS, torch.Generator()), SAMPLED),
        rollout_of(batch, generate(policy, batch.source, batch.source_mask, greedy, 1, EOS, torch.Generator()), GREEDY),
    ]
    whole = concatenate(parts)
    assert whole.actions.shape == (8, 3)
    assert whole.support is not None
    assert whole.support.shape == (8, 3, 2)
    assert whole.group.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert not whole.mask[6:, 2].any()
    assert whole.rows(torch.tensor([7, 0])).group.tolist() == [1, 0]


def test_joined_cuts_of_different_widths_keep_the_tokens_that_each_was_sampled_from() -> None:
    """Token 0 stands nowhere in some of them: what fills a narrow cut up adds no token to it."""
    policy, batch = TabularPolicy(WORLD["policy_logits"]), batch_of(1)
    cuts = [replace(PLAIN, top_k=1), replace(PLAIN, top_k=2), replace(PLAIN, top_p=0.9)]
    parts = [
        rollout_of(batch, generate(policy, batch.source, batch.source_mask, cut, 4, EOS, torch.Generator()), SAMPLED)
        for cut in cuts
    ]

    def tokens(rollout: Rollout) -> list[list[set[int]]]:
        assert rollout.support is not None
        rows = zip(rollout.support.tolist(), rollout.mask.sum(-1).tolist(), strict=True)
        return [[set(ids) for ids in row[:length]] for row, length in rows]

    assert any(0 not in state for row in tokens(parts[0]) for state in row)
    assert {part.support.shape[-1] for part in parts if part.support is not None} == {1, 2, 3}
    for order in (parts, parts[::-1]):
        whole = concatenate(order)
        assert tokens(whole) == [row for part in order for row in tokens(part)]


def told_apart() -> Batch:
    """Two sources; the demonstration of the second was cut, and its clean reference is another text."""
    mask = torch.tensor([[True, True, True], [True, True, False]])
    return Batch(
        5, torch.tensor([[3], [4]]), torch.ones(2, 1, dtype=torch.bool), torch.tensor([[1, 2, EOS], [2, 1, EOS]]), mask,
        torch.tensor([[1, EOS], [2, EOS]]), torch.ones(2, 2, dtype=torch.bool), ["x", "y"], [["a"], ["b"]], {},
        *numbered(torch.tensor([[3], [4]])),
    )  # fmt: skip


def test_every_episode_carries_its_own_source_demonstration_and_reference() -> None:
    batch = told_apart()
    rollout = rollout_of(
        batch, samples_of([[1, 0], [2, 0], [1, 1, 0]] * 2, TabularPolicy(WORLD["policy_logits"])), SAMPLED
    )
    assert rollout.group.tolist() == [5 * 2**32] * 3 + [5 * 2**32 + 1] * 3
    assert rollout.step == 5
    assert rollout.source_row.tolist() == [0, 0, 0, 1, 1, 1]
    assert rollout.parent.tolist() == list(range(6))
    for name in PER_SOURCE:
        assert torch.equal(getattr(rollout, name), getattr(batch, name))  # each once
    assert torch.equal(rollout.chosen, rollout.mask)
    assert rollout.valid.all()
    assert rollout.rewards is None


def test_a_demonstration_that_was_cut_has_not_ended_whatever_padding_looks_like() -> None:
    """Padding is the id of EOS here."""
    rollout = recite(told_apart(), EOS)
    assert rollout.ended.tolist() == [True, False]
    assert (rollout.role == DEMONSTRATION).all()
    assert torch.equal(rollout.actions, told_apart().targets)
    assert torch.equal(rollout.mask, told_apart().target_mask)
    assert not rollout.logprobs.any()
    assert not rollout.chosen.any()


def test_joined_rollouts_number_their_rows_anew_and_continuations_go_on_from_the_first() -> None:
    batch = told_apart()
    first, second = (recite(batch, EOS) for _ in range(2))
    going_on = replace(recite(batch, EOS), parent=torch.tensor([1, 0]))
    going_on = replace(going_on, role=torch.full_like(going_on.role, CONTINUATION))
    whole = concatenate([first, second, going_on, first])
    assert whole.parent.tolist() == [0, 1, 2, 3, 1, 0, 6, 7]
    assert whole.actions.tolist() == first.actions.tolist() * 4
    assert whole.support is None
    assert whole.rewards is None


def test_a_stored_cut_is_the_one_that_counts() -> None:
    """Not the one that today's logits would give."""
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]], dtype=torch.float64)
    for decoding in (replace(PLAIN, top_k=2), replace(PLAIN, top_p=0.5), replace(PLAIN, top_k=1, epsilon=0.5)):
        logprobs, support = distribution(logits, decoding, torch.tensor([[1, 3]]))
        assert logprobs[0].isneginf().tolist() == [True, False, True, False]
        assert support is not None
        assert support.tolist() == [[1, 3]]
        assert float(logprobs.exp().sum()) == pytest.approx(1)


def test_a_nucleus_that_is_full_takes_no_more() -> None:
    logits = torch.zeros(1, 4, dtype=torch.float64)  # a quarter each, exactly
    for top_p, kept in ((0.25, 1), (0.5, 2), (0.51, 3), (1e-9, 1), (0.76, 4)):
        logprobs, _ = distribution(logits, replace(PLAIN, top_p=top_p))
        assert int((~logprobs.isneginf()).sum()) == kept


def test_reciting_is_saying_the_demonstration_without_choosing_it() -> None:
    rollout = recite(batch_of(2), EOS)
    assert rollout.actions.tolist() == [[1, 2, 0]] * 2
    assert rollout.ended.all()
    assert not rollout.chosen.any()
    assert rollout.mask.all()
