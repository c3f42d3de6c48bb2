"""chrF of every prefix, from n-gram matches."""

from __future__ import annotations

import numpy as np


def chrf(matched: np.ndarray, said: np.ndarray, wanted: np.ndarray, beta: int) -> np.ndarray:
    """sacrebleu's `CHRF` without epsilon smoothing: matched [B, W, order, G], said [B, W, order], wanted
    [B, order, G] (-1: no such reference) -> [B, W], 0-100.

    Popovic 2015, 2017. Precision and recall are averaged over the orders that both texts have n-grams of, then made
    one F; of several references the best.
    """
    said, wanted = said[..., None], wanted[:, None]
    counted = (said > 0) & (wanted > 0)
    orders = np.maximum(counted.sum(2), 1)
    precision = np.where(counted, matched / np.maximum(said, 1), 0.0).sum(2) / orders  # [B, W, G]
    recall = np.where(counted, matched / np.maximum(wanted, 1), 0.0).sum(2) / orders
    weighted = beta**2 * precision + recall
    f = 100 * (1 + beta**2) * precision * recall / np.where(weighted > 0, weighted, 1.0)
    return np.where(wanted[:, :, 0] < 0, -1.0, f).max(-1)
