"""A control: the same for every text."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.interfaces import Texts


class Constant:
    """A control reward: `value` for every text and every prefix, so what improves in a run with it does not improve
    because of the reward. A baseline from other samples of the source makes every advantage 0; without a baseline every
    sampled text becomes likelier, or less likely where `value` is below 0. Credit over prefixes (credit=delta) gives
    every token the reward 0, as no token changes the score."""

    needs_references = False
    control = True

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns `value` for each text, [B] float64."""
        return np.full(len(texts.hypotheses), self.value, dtype=np.float64)
