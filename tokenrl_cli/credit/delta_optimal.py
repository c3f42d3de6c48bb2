"""Credit for what each token made impossible."""

from __future__ import annotations

from torch import Tensor


class DeltaOptimal:
    """r_t = Phi_t - Phi_{t-1}, Phi_t the best score that a text which begins with y_<=t can still have.

    For edit distances: Phi_t = 1 - min_j D(y_<=t, ref[:j]) / |ref|, and the score itself at the end (optimal
    completion, arXiv:1810.01398). A token that keeps on an optimal path gets 0, an error its price at once: r_t is the
    advantage of the optimal policy. Sums to the score less the best there is. Unbiased as `delta`: another potential.
    """

    needs_prefixes = True
    potential = "completion_scores"

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        """scores [B, T + 1], mask [B, T], ended [B] -> rewards [B, T]."""
        return (scores[:, 1:] - scores[:, :-1]).masked_fill(~mask, 0.0)
