"""Did it end by itself?"""

from __future__ import annotations

import numpy as np

from tests.credit.toy import EOS, Merges, rollout_from
from tests.reward.said import texts
from tests.world import batch_of
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.reward.ended import Ended


def test_it_says_whether_eos_was_chosen() -> None:
    scores = Ended()(texts([("a", []), ("a", [])], ended=[True, False]))
    assert scores.dtype == np.float64
    assert scores.tolist() == [1, 0]


def test_a_prefix_without_eos_does_not_score_as_the_finished_text() -> None:
    """Trap 26: the words are the same before and after EOS; only EOS itself is paid, and a cut text is not."""
    rollout, _ = judge(rollout_from([[1, 2, EOS], [EOS], [1, 2, 1]]), batch_of(1), Merges(["a", "b"]), Ended(), Delta())
    assert rollout.rewards is not None
    assert rollout.rewards.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
