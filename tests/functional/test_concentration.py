"""Statistics of how peaked a distribution is, and the rank of a token."""

from __future__ import annotations

import torch

from tokenrl_cli.functional.entropy import concentration, entropy, ranks


def test_the_mode_and_the_ten_likeliest() -> None:
    weights = torch.tensor([[8.0, 4.0] + [1.0] * 12])
    found = concentration(weights.log())
    assert torch.allclose(found["mode_prob"], torch.tensor([8 / 24]))
    assert torch.allclose(found["top10_mass"], torch.tensor([20 / 24]))
    assert torch.equal(found["entropy"], entropy(weights.log()))
    assert concentration(torch.zeros(1, 3))["top10_mass"].item() == 1


def test_the_rank_counts_what_is_likelier() -> None:
    logits = torch.tensor([[[0.0, 3.0, 1.0, 1.0]] * 3])
    assert ranks(logits, torch.tensor([[1, 2, 0]])).tolist() == [[1, 2, 4]]
