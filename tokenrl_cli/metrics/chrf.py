"""chrF of every prefix of a text, from counts of matching n-grams."""

from __future__ import annotations

import numpy as np


def chrf(matched: np.ndarray, in_text: np.ndarray, in_reference: np.ndarray, beta: int) -> np.ndarray:
    """Returns chrF, 100 (1 + beta^2) P R / (beta^2 P + R), equal to sacrebleu's `CHRF` without epsilon smoothing.
    Popovic 2015, 2017.

    matched [B, W, order, G] clipped n-gram matches of W prefixes of each of B texts with each of G references, in_text
    [B, W, order] and in_reference [B, order, G] numbers of n-grams (-1: the row has no such reference) -> [B, W],
    0-100; -1 where a row has no reference at all. Precision P and recall R are means over the orders of which both
    texts have n-grams, and 0 where there is none; of several references the one with the best F is used.
    """
    in_text, in_reference = in_text[..., None], in_reference[:, None]
    counted = (in_text > 0) & (in_reference > 0)
    orders = np.maximum(counted.sum(2), 1)
    precision = np.where(counted, matched / np.maximum(in_text, 1), 0.0).sum(2) / orders  # [B, W, G]
    recall = np.where(counted, matched / np.maximum(in_reference, 1), 0.0).sum(2) / orders
    # F is 0 where precision and recall both are; the denominator is set to 1 there, not to divide by 0.
    weighted = beta**2 * precision + recall
    f = 100 * (1 + beta**2) * precision * recall / np.where(weighted > 0, weighted, 1.0)
    best: np.ndarray = np.where(in_reference[:, :, 0] < 0, -1.0, f).max(-1)
    return best
