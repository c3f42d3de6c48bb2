"""A control: the same for every text."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.interfaces import Texts


class Constant:
    """`value` for every text. What a run gains with it, it does not owe to its reward: a baseline that knows the other
    samples makes the advantage 0, and without one every sampled text becomes likelier, or less likely below 0.
    Credit over prefixes pays nothing: no token changes the score."""

    needs_references = False
    control = True

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns `value` for each text, [B] float64."""
        return np.full(len(texts.hypotheses), self.value, dtype=np.float64)
