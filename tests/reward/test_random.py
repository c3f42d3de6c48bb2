"""A control of noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.reward.said import texts
from tokenrl_cli.reward.random import Random

SEEN = texts([(f"text {i}", []) for i in range(4000)])


def test_it_is_uniform() -> None:
    scores = Random(1)(SEEN)
    assert scores.min() >= 0
    assert scores.max() < 1
    assert abs(scores.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(scores))
    assert np.histogram(scores, 10, (0, 1))[0].min() > 300


def test_it_depends_on_seed_step_source_and_text_alone() -> None:
    scores = Random(1)(SEEN)
    assert (Random(1)(SEEN) == scores).all()
    others = [Random(2)(SEEN), Random(1)(replace(SEEN, step=8)), Random(1)(replace(SEEN, sources=["x"] * 4000))]
    assert all((other != scores).mean() > 0.99 for other in others)
    alone = Random(1)(replace(SEEN, hypotheses=["text 7"], sources=["source 7"]))
    assert alone[0] == scores[7]


def test_any_text_has_a_number() -> None:
    scores = Random(1)(texts([("", []), ("caf\u00e9", []), ("\ud800", [])]))
    assert scores.dtype == np.float64
    assert len(set(scores.tolist())) == 3
