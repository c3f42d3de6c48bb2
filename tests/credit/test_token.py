"""The reward's own number for each token."""

from __future__ import annotations

import pytest
import torch

from tests.credit.toy import Merges, rollout_from
from tests.world import batch_of
from tokenrl_cli.credit.token import Token
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import Texts, UserError
from tokenrl_cli.reward.exact_match import ExactMatch

TOKENIZER = Merges(["a", "b"])


class Places:
    def __call__(self, texts: Texts) -> object:
        return texts.actions / 8 + 0.5


def test_every_token_gets_its_number_and_padding_none() -> None:
    """Trap 24: a reward of one half is not made an integer."""
    rollout, scores = judge(rollout_from([[1, 2, 0], [2, 0]]), batch_of(1), TOKENIZER, Places(), Token())  # type: ignore[arg-type]
    assert rollout.rewards is not None
    assert rollout.rewards.tolist() == [[0.625, 0.75, 0.5], [0.75, 0.5, 0]]  # halves survive
    assert scores.metrics["reward"] == (1.875 + 1.25) / 2


def test_one_number_a_text_is_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match=r"needs a reward of one number a token.*\n.*credit=terminal"):
        judge(rollout_from([[1, 0]]), batch_of(1), TOKENIZER, ExactMatch(False, False), Token())
    assert Token()(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.ones(1, dtype=torch.bool)).shape == (
        1,
        2,
    )
