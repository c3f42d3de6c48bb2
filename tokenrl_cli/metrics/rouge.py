"""ROUGE of every prefix of a text, from counts of what it shares with its references."""

from __future__ import annotations

from typing import Literal

import numpy as np


def rouge(
    shared: np.ndarray,
    in_text: np.ndarray,
    in_reference: np.ndarray,
    measure: Literal["fmeasure", "precision", "recall"],
) -> np.ndarray:
    """Returns ROUGE F, precision or recall, as `measure` names it, equal to rouge-score's number. Lin 2004. F = 2 P R /
    (P + R), P = shared / in_text, R = shared / in_reference.

    shared [B, W, G] n-grams (or length of the longest common subsequence) that W prefixes of each of B texts have in
    common with each of G references, in_text [B, W] and in_reference [B, G] numbers of them in each text (-1: no such
    reference) -> [B, W], 0-1; 0 where a row has no reference. Of several references the one with the best F is used,
    the first of equals, also where `measure` is precision or recall.
    """
    precision = shared / np.maximum(in_text, 1)[..., None]
    recall = shared / np.maximum(in_reference, 1)[:, None, :]
    both = precision + recall
    f = np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1.0), 0.0)
    # References that a row does not have get -1, below every F, and are never the best.
    best = np.where(in_reference[:, None, :] < 0, -1.0, f).argmax(-1)
    values = {"fmeasure": f, "precision": precision, "recall": recall}[measure]
    return np.take_along_axis(values, best[..., None], -1)[..., 0]
