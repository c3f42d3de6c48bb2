"""Credit for the change of the score at each token."""

from __future__ import annotations

from torch import Tensor


class Delta:
    """r_t = Phi_t - Phi_{t-1}, with Phi_t the score of the first t tokens read as a whole text. The rewards of a text
    sum to Phi_T - Phi_0: its score less that of the empty text.

    Potential-based shaping (Ng et al. 1999): with gamma = 1 and returns-to-go, the expected gradient is that of the
    terminal reward. A reward never depends on a later token.
    """

    needs_prefixes = True

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        """scores Phi [B, T + 1], mask [B, T] bool; ended [B] is not read -> rewards [B, T], 0 where masked."""
        return (scores[:, 1:] - scores[:, :-1]).masked_fill(~mask, 0.0)
