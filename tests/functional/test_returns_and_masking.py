"""Returns and masked sums equal values computed by hand, and gradients flow only where they should."""

from __future__ import annotations

import math

import torch

from tokenrl_cli.functional.masking import masked_mean, masked_sum
from tokenrl_cli.functional.returns import reward_to_go

MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])


def test_a_terminal_reward_reaches_every_token_before_it_and_no_padding() -> None:
    """Trap 5: reward 1 at the last real token gives a return of 1 at every real token, 0 at padding."""
    rewards = torch.tensor([[0.0, 0.0, 1.0, 7.0], [1.0, 7.0, 7.0, 7.0]])
    assert reward_to_go(rewards, MASK).tolist() == MASK.double().tolist()


def test_dense_rewards_are_summed_to_go() -> None:
    """Trap 19: with one reward for each token, the return at t is the sum from t on, not the reward at t alone."""
    rewards = torch.tensor([[1.0, 2.0, 4.0, 0.0], [0.5, 0.0, 0.0, 0.0]])
    assert reward_to_go(rewards, MASK).tolist() == [[7.0, 6.0, 4.0, 0.0], [0.5, 0.0, 0.0, 0.0]]


def test_what_is_masked_may_be_anything_and_gets_no_gradient() -> None:
    """Traps 2 and 4: junk after EOS, infinite or not a number, moves neither the loss nor the gradient."""
    values = torch.tensor([[1.0, 2.0, 3.0, math.inf], [4.0, math.nan, -1e4, 1e4]], requires_grad=True)
    total = masked_sum(values, MASK)
    total.backward()
    assert total.item() == 10.0
    assert values.grad is not None
    assert values.grad.tolist() == MASK.float().tolist()
    assert masked_mean(values.detach(), MASK).item() == 2.5
    assert masked_mean(values.detach(), torch.zeros_like(MASK)).item() == 0.0
