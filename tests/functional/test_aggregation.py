"""Weights of tokens in the loss equal values computed by hand; padding and invalid episodes have weight 0."""

from __future__ import annotations

import pytest
import torch

from tokenrl_cli.functional import aggregation

MASK = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4])  # the last does not count


def test_the_weights_are_those_of_the_definitions() -> None:
    full = MASK.double()
    assert torch.equal(aggregation.sequence_sum(MASK), full / 2)
    assert torch.allclose(
        aggregation.sequence_mean(MASK), torch.tensor([[1 / 6] * 3 + [0], [1 / 2, 0, 0, 0], [0] * 4]).double()
    )
    assert torch.equal(aggregation.token_mean(MASK), full / 4)
    assert torch.equal(aggregation.constant_length(MASK, 8), full / 16)


@pytest.mark.parametrize("name", ["sequence_sum", "sequence_mean", "token_mean"])
def test_they_do_not_depend_on_the_width_and_nothing_is_no_division_by_nothing(name: str) -> None:
    weigh = getattr(aggregation, name)
    wide = torch.nn.functional.pad(MASK, (0, 5))
    assert torch.equal(weigh(wide)[:, :4], weigh(MASK))
    assert not weigh(wide)[:, 4:].any()
    assert not weigh(torch.zeros(3, 2, dtype=torch.bool)).any()
