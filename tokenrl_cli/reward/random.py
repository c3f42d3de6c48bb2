"""A control: noise."""

from __future__ import annotations

import hashlib

import numpy as np

from tokenrl_cli.interfaces import Texts


class Random:
    """A control reward: noise in [0, 1), a pure function of the seed, the step, the source and the text, uniform and
    independent of how good a text is. So what improves in a run with it does not improve because of the reward."""

    needs_references = False
    control = True

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the score of each text, [B] float64."""
        pairs = zip(texts.sources, texts.hypotheses, strict=True)
        return np.array([self._draw(texts.step, *pair) for pair in pairs], dtype=np.float64)

    def _draw(self, step: int, source: str, text: str) -> float:
        content = "\0".join((str(self.seed), str(step), source, text)).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "big") / 2**48
