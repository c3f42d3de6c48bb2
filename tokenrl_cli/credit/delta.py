"""Credit for what each token added."""

from __future__ import annotations

from torch import Tensor


class Delta:
    """r_t = Phi_t - Phi_{t-1}, Phi_t the score of the text after t tokens as it stands. Sums to Phi_T - Phi_0.

    Potential-based shaping (Ng et al. 1999): with gamma = 1 and returns to go, the expected gradient is that of the
    terminal reward. A reward never depends on a later token.
    """

    needs_prefixes = True

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        """scores [B, T + 1], mask [B, T], ended [B] -> rewards [B, T]."""
        return (scores[:, 1:] - scores[:, :-1]).masked_fill(~mask, 0.0)
