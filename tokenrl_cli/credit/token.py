"""The reward's own number for each token."""

from __future__ import annotations

from torch import Tensor

from tokenrl_cli.interfaces import UserError


class Token:
    """r_t = what the reward says of token t. Raises UserError where it says one number a text."""

    needs_prefixes = False

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        """scores [B, T], mask [B, T], ended [B] -> rewards [B, T]."""
        if scores.dim() == 1:
            remedy = "credit=terminal pays it at the last token, credit=delta as it comes about"
            raise UserError(
                "credit", "token needs a reward of one number a token, and this one gives one a text", remedy
            )
        return scores.masked_fill(~mask, 0.0)
