"""BLEU of every prefix, from n-gram matches."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.metrics.growth import References
from tokenrl_cli.metrics.ngrams import totals


def bleu(
    matched: np.ndarray, lengths: np.ndarray, nearest: np.ndarray, smoothing: str, value: float, effective_order: bool
) -> np.ndarray:
    """sacrebleu's `BLEU.compute_bleu`: matched [..., order], text and reference lengths [...] -> [...], 0-100.

    Papineni et al. 2002; smoothing as named by Chen and Cherry 2014. What may surprise: a text without one right word
    is 0 however it is smoothed; `effective_order` is the order that the text is long enough for, so an order without a
    match counts (smoothed), and without smoothing makes the whole 0; add-k leaves the single words alone.
    """
    order = matched.shape[-1]
    total = totals(lengths, order)
    added = np.where((smoothing == "add-k") & (np.arange(order) > 0), value, 0.0)
    right, said = matched + added, total + added
    missing = right == 0
    if smoothing == "exp":
        right = np.where(missing, 0.5 ** np.cumsum(missing & (said > 0), -1), right)
    elif smoothing == "floor":
        right = np.where(missing, value, right)
    counted = np.logical_and.accumulate(said > 0, -1)  # the library stops at the first order that nothing was said of
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.log(np.where(counted, 100.0 * right / said, 0.0))
        brevity = np.where(lengths < nearest, np.exp(1 - nearest / lengths), 1.0)
        orders = np.maximum(counted.sum(-1), 1) if effective_order else order
        summed = np.where(counted, precision, 0.0 if effective_order else -np.inf).sum(-1)
        score = brevity * np.exp(summed / orders)
    return np.where((matched > 0).any(-1), score, 0.0)


def nearest_lengths(lengths: np.ndarray, references: References) -> np.ndarray:
    """The reference length nearest to that of the text, the shorter of two: [B, W] -> [B, W]."""
    known = references.lengths[:, None, :]  # [B, 1, G]
    distance = np.where(known < 0, np.inf, np.abs(known - lengths[..., None]) + known / (known.max(initial=0) + 1.0))
    best = distance.argmin(-1)
    return np.take_along_axis(np.broadcast_to(known, distance.shape), best[..., None], -1)[..., 0]
