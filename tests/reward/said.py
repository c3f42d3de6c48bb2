"""Texts for tests of rewards, and what every metric of text must keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tokenrl_cli.interfaces import Reward, Texts
from tokenrl_cli.reward.error_rate import ErrorRate

REFERENCE = "the small cat sat on the old mat ."
GOLDEN = [
    ("", ["a"]),
    ("cat", ["cat"]),
    ("cat", ["the cat sat on the mat"]),
    (REFERENCE, [REFERENCE]),
    ("Hello, world! It's 5.3 %", ["Hello world, it is 5.30 %."]),
    ("the cat sat", ["a dog ran off", "the cat sat down", "the cat"]),
    ("the cat </s>", ["the cat"]),
    ("the c@@ at <unk>", ["the cat"]),
    ("  the   cat ", ["the cat"]),
    ("caf\ufffd", ["caf\u00e9"]),
    ("...", ["..."]),
    ("a b", [""]),
]  # (hypothesis, references): empty, one token, identical, punctuation, several references, special tokens
VOCABULARY = ["the", "cat", "sat", "on", "mat", ".", ",", "5.3", "It's", "a", "\u00e9", "</s>"]
words = st.lists(st.sampled_from(VOCABULARY), max_size=9).map(" ".join)
pairs = st.tuples(
    words | st.text(max_size=12), st.lists(words | st.text(min_size=1, max_size=9), min_size=1, max_size=3)
)


def texts(
    rows: Sequence[tuple[str, list[str]]],
    lengths: Sequence[int] | None = None,
    ended: Sequence[bool] | None = None,
    **columns: list[Any],
) -> Texts:
    """`lengths`: the sampled tokens of each row; their ids count from 1."""
    lengths = lengths or [1] * len(rows)
    mask = np.arange(max(lengths, default=0))[None, :] < np.array(lengths)[:, None]
    actions = np.where(mask, np.arange(1, mask.shape[1] + 1)[None, :], 0)
    sources = [f"source {i}" for i in range(len(rows))]
    finished = np.array([True] * len(rows) if ended is None else ended, dtype=bool)
    return Texts([h for h, _ in rows], [list(r) for _, r in rows], sources, columns, actions, mask, finished, 7)


def error_rate(unit: Any, **changes: Any) -> ErrorRate:
    """As jiwer computes it, but for `changes`."""
    values = {"substitution": 1.0, "deletion": 1.0, "insertion": 1.0}
    return ErrorRate(unit, **(values | {"lowercase": False, "punctuation": "keep", "numbers": "keep"} | changes))


def columns(rows: Sequence[tuple[str, list[str]]]) -> list[Any]:
    """References as sacrebleu's corpus functions take them: one list a place, None where a text has fewer."""
    width = max(len(references) for _, references in rows)
    return [[references[i] if i < len(references) else None for _, references in rows] for i in range(width)]


def assert_length_does_not_pay(reward: Reward) -> None:
    """Trap 44: nothing, too little, too much and endless repetition all score below the reference itself."""
    tricks = ["", "the", "the small cat", f"{REFERENCE} {REFERENCE}", f"{REFERENCE} and so on", " ".join(["the"] * 60)]
    best, *others = reward(texts([(said, [REFERENCE]) for said in (REFERENCE, *tricks)]))
    assert best == 1.0 or abs(best - 1) < 1e-12
    assert all(score < best - 1e-3 for score in others), dict(zip(tricks, others, strict=True))
