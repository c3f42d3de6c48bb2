"""ROUGE of every prefix, from counts of what it shares with its references."""

from __future__ import annotations

from typing import Literal

import numpy as np


def rouge(
    shared: np.ndarray, said: np.ndarray, wanted: np.ndarray, measure: Literal["fmeasure", "precision", "recall"]
) -> np.ndarray:
    """rouge-score's number: shared [B, W, G], said [B, W], wanted [B, G] (-1: no such reference) -> [B, W], 0-1.

    Lin 2004. Of several references the one with the best F, the first of equals, whichever `measure` is asked for.
    """
    precision = shared / np.maximum(said, 1)[..., None]
    recall = shared / np.maximum(wanted, 1)[:, None, :]
    both = precision + recall
    f = np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1.0), 0.0)
    best = np.where(wanted[:, None, :] < 0, -1.0, f).argmax(-1)
    values = {"fmeasure": f, "precision": precision, "recall": recall}[measure]
    return np.take_along_axis(values, best[..., None], -1)[..., 0]
