"""All credit to the last token."""

from __future__ import annotations

import pytest
import torch

from tests.credit.toy import to_go
from tokenrl_cli.credit.terminal import Terminal

MASK = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
ENDED = torch.tensor([False, True, True])  # the first was cut at the limit


def test_the_last_real_token_gets_it_whether_ended_or_cut() -> None:
    rewards = Terminal()(torch.tensor([0.5, 2, -1], dtype=torch.float64), MASK, ENDED)
    assert rewards.tolist() == [[0, 0, 0.5], [0, 2, 0], [-1, 0, 0]]
    assert rewards.dtype == torch.float64


def test_every_real_token_is_still_to_be_rewarded_and_no_padding() -> None:
    rewards = Terminal()(torch.ones(3, dtype=torch.float64), MASK, ENDED)
    assert to_go(rewards).tolist() == MASK.double().tolist()


def test_numbers_a_token_are_summed_without_the_padding() -> None:
    scores = torch.tensor([[1.0, 2, 3], [1, 2, 77], [1, torch.nan, 77]], dtype=torch.float64)
    assert Terminal()(scores, MASK, ENDED).tolist() == [[0, 0, 6], [0, 3, 0], [1, 0, 0]]


@pytest.mark.parametrize("column", [0, 1])
def test_what_is_unknown_stays_unknown(column: int) -> None:
    scores = torch.zeros(3, 3, dtype=torch.float64)
    scores[0, column] = torch.nan
    assert Terminal()(scores, MASK, ENDED).isnan().sum() == 1
