"""How near is the length?"""

from __future__ import annotations

import numpy as np

from tests.reward.said import texts
from tokenrl_cli.reward.length import Length


def test_it_is_the_shorter_over_the_longer_of_the_best_reference() -> None:
    rows = [("a b", ["x y z w"]), ("a b c d", ["x y"]), ("a b c", ["x", "x y z"]), ("", ["x"]), ("a", [""]), ("", [""])]
    assert Length()(texts(rows)).tolist() == [0.5, 0.5, 1, 0, 0, 1]


def test_a_source_without_a_reference_has_no_score() -> None:
    assert np.isnan(Length()(texts([("a", [])]))[0])
