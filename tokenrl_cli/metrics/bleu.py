"""BLEU of every prefix of a text, from counts of matching n-grams."""

from __future__ import annotations

import numpy as np

from tokenrl_cli.metrics.growth import References
from tokenrl_cli.metrics.ngrams import totals


def bleu(
    matched: np.ndarray, lengths: np.ndarray, nearest: np.ndarray, smoothing: str, value: float, effective_order: bool
) -> np.ndarray:
    """Returns BLEU, brevity * exp(mean_n log precision_n) * 100, equal to sacrebleu's `BLEU.compute_bleu`. Papineni et
    al. 2002; `smoothing` is "none", "floor", "add-k" or "exp" (Chen and Cherry 2014).

    matched [..., order] clipped n-gram matches, lengths [...] of the texts and nearest [...] of the references in
    tokens -> [...], 0-100. brevity = exp(1 - nearest / length) for texts shorter than the reference, else 1. `value` is
    the number that "floor" and "add-k" add. Details of the library that may surprise: a text without a single matching
    word scores 0 under every smoothing; with `effective_order` the mean is over the orders n that the text has n-grams
    of, including those without a match, which are smoothed, or without smoothing make the score 0; without it a text
    that is too short to have n-grams of every order scores 0; "add-k" adds `value` to n = 2 and above only, there also
    to the number of n-grams.
    """
    order = matched.shape[-1]
    total = totals(lengths, order)
    added = np.where((smoothing == "add-k") & (np.arange(order) > 0), value, 0.0)
    right, count = matched + added, total + added  # numerator and denominator of the precision of each order
    missing = right == 0
    if smoothing == "exp":  # 1/2 match for the first order without one, 1/4 for the second, ...
        right = np.where(missing, 0.5 ** np.cumsum(missing & (count > 0), -1), right)
    elif smoothing == "floor":
        right = np.where(missing, value, right)
    counted = np.logical_and.accumulate(count > 0, -1)  # the library stops at the first order without n-grams
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.log(np.where(counted, 100.0 * right / count, 0.0))
        brevity = np.where(lengths < nearest, np.exp(1 - nearest / lengths), 1.0)
        orders = np.maximum(counted.sum(-1), 1) if effective_order else order
        # Without effective order, an order without n-grams has precision 0 and makes the whole score 0.
        summed = np.where(counted, precision, 0.0 if effective_order else -np.inf).sum(-1)
        score = brevity * np.exp(summed / orders)
    # Smoothing never makes a score out of nothing: the library returns 0 for a text without any match.
    return np.where((matched > 0).any(-1), score, 0.0)


def nearest_lengths(lengths: np.ndarray, references: References) -> np.ndarray:
    """Returns for each prefix the length of that one of the `references` of its row whose length is nearest to the
    prefix's, the shorter of two equally near ones.

    lengths [B, W] of W prefixes of each of B texts, in tokens -> [B, W] int; -1 where a row has no reference.
    """
    known = references.lengths[:, None, :]  # [B, 1, G]
    # The second term is below 1, the difference of two distances: it only breaks ties, in favour of the shorter.
    distance = np.where(known < 0, np.inf, np.abs(known - lengths[..., None]) + known / (known.max(initial=0) + 1.0))
    best = distance.argmin(-1)
    return np.take_along_axis(np.broadcast_to(known, distance.shape), best[..., None], -1)[..., 0]
