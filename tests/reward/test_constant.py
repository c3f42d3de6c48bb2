"""A control without a signal."""

from __future__ import annotations

import numpy as np

from tests.credit.toy import EOS, Merges, rollout_from
from tests.reward.said import texts
from tests.world import batch_of
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.reward.constant import Constant


def test_it_is_the_same_for_every_text() -> None:
    scores = Constant(0.5)(texts([("", []), ("a b", ["a"])]))
    assert scores.dtype == np.float64
    assert scores.tolist() == [0.5, 0.5]


def test_credit_over_prefixes_pays_nothing_as_the_documentation_admits() -> None:
    rollout, _ = judge(rollout_from([[1, 2, EOS], [EOS]]), batch_of(1), Merges(["a", "b"]), Constant(0.5), Delta())
    assert rollout.rewards is not None
    assert not rollout.rewards.any()
    assert "every token the reward 0" in " ".join(str(Constant.__doc__).split())
