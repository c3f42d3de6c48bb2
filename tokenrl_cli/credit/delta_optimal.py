"""Credit for the change of the best score that can still be reached."""

from __future__ import annotations

from torch import Tensor


class DeltaOptimal:
    """r_t = Phi_t - Phi_{t-1}, with Phi_t the best score of all texts that begin with y_<=t, and at the end of the text
    its own score. The rewards of a text sum to its score less the best score of any text.

    Phi is `completion_scores` of the reward (`interfaces.ScoresCompletions`); a reward without that method is refused.
    For edit distances Phi_t = 1 - min_j D(y_<=t, ref[:j]) / |ref| before the end (optimal completion,
    arXiv:1810.01398). A token that keeps the best score within reach gets 0, any other at once what it costs: r_t is
    the advantage of the optimal policy. The expected gradient is that of the terminal reward, as with `delta`; only the
    potential differs.
    """

    needs_prefixes = True
    potential = "completion_scores"

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        """scores Phi [B, T + 1], mask [B, T] bool; ended [B] is not read -> rewards [B, T], 0 where masked."""
        return (scores[:, 1:] - scores[:, :-1]).masked_fill(~mask, 0.0)
