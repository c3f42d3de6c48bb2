"""Beam search against listing every text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.world import EOS, SEQUENCES, WORLD, TabularPolicy, batch_of, probabilities
from tokenrl_cli.beam import beam_search, penalty
from tokenrl_cli.sampling import Decoding, generate

BEAM = Decoding(3, 0.0, 0, 1.0, 0.0, [], 15, 0.0)
TABLES = [WORLD["policy_logits"], WORLD["reference_logits"], WORLD["behaviour_logits"]]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_enough_beams_find_the_best_text(table: list[list[float]], alpha: float) -> None:
    decoding, policy, batch = replace(BEAM, length_penalty=alpha), TabularPolicy(table), batch_of(2)
    found = beam_search(policy, batch.source, batch.source_mask, decoding, EOS)
    scores = probabilities(policy).detach().log()
    ranked = [score / penalty(len(s), decoding) for score, s in zip(scores, SEQUENCES, strict=True)]
    best = SEQUENCES[max(range(len(ranked)), key=ranked.__getitem__)]
    for row, mask, ended in zip(found.actions.tolist(), found.mask.tolist(), found.ended.tolist(), strict=True):
        assert row[: sum(mask)] == best and ended == (EOS in best)


@pytest.mark.parametrize("table", TABLES)
def test_one_beam_is_greedy_decoding(table: list[list[float]]) -> None:
    policy, batch = TabularPolicy(table), batch_of(3)
    one = replace(BEAM, beam_size=1, length_penalty=1.0)
    found = beam_search(policy, batch.source, batch.source_mask, one, EOS)
    greedy = generate(policy, batch.source, batch.source_mask, one, 1, EOS, torch.Generator())
    assert torch.equal(found.mask, greedy.mask) and torch.equal(found.ended, greedy.ended)
    assert torch.equal(found.actions, greedy.actions)
