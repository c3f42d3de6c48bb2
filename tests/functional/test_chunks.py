"""A reduction computed on chunks of rows equals the same reduction on all rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokenrl_cli.functional import chunks
from tokenrl_cli.functional.chunks import in_pieces


@pytest.mark.parametrize("largest", [7, 30, 10**6])
def test_pieces_give_the_same_values_and_gradients(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    actions = torch.arange(15).view(3, 5) % 7
    widest = 0

    def reduced(hidden: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        nonlocal widest
        logits = hidden @ weight.T
        widest = max(widest, logits.numel())
        return logits.logsumexp(-1), logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    logits = hidden @ weight.T
    expected = [logits.logsumexp(-1), logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1)]
    exact = torch.autograd.grad((expected[0] * expected[1].sin()).sum(), (hidden, weight))
    monkeypatch.setattr(chunks, "LARGEST", largest)
    found = in_pieces(reduced, 7, hidden, actions)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == (3, 5)
        assert torch.allclose(one, other, rtol=1e-14)
    for one, other in zip(torch.autograd.grad((found[0] * found[1].sin()).sum(), (hidden, weight)), exact, strict=True):
        assert torch.allclose(one, other, rtol=1e-13)
    assert widest <= max(7, largest)
