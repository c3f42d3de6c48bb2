"""Credit for the last token alone."""

from __future__ import annotations

from torch import Tensor


class Terminal:
    """r_t = the score at the last real token, 0 at the others. The rewards of a text sum to its score."""

    needs_prefixes = False

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        """scores [B], or [B, T] that are summed over real tokens; mask [B, T] bool that begins each row; ended [B] is
        not read -> rewards [B, T], 0 where masked, but the score in column 0 of a row without tokens."""
        total = scores if scores.dim() == 1 else scores.masked_fill(~mask, 0.0).sum(-1)
        rewards = scores.new_zeros(mask.shape)
        return rewards.scatter(1, (mask.sum(-1, keepdim=True) - 1).clamp(min=0), total.unsqueeze(-1))
