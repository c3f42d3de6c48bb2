"""Credit as a reward gives it: one number for each token."""

from __future__ import annotations

from torch import Tensor

from tokenrl_cli.interfaces import UserError


class Token:
    """r_t = the score that the reward itself gives to token t. For rewards that return one number for each token; for
    one number for each text the call raises UserError."""

    needs_prefixes = False

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        """scores [B, T], mask [B, T] bool; ended [B] is not read -> rewards [B, T], 0 where masked. Raises UserError
        for scores [B]."""
        if scores.dim() == 1:
            remedy = "credit=terminal pays it at the last token, credit=delta as it comes about"
            raise UserError(
                "credit", "token needs a reward of one number a token, and this one gives one a text", remedy
            )
        return scores.masked_fill(~mask, 0.0)
