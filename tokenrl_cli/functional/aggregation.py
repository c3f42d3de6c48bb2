"""What a token of a batch weighs in the loss. mask [B, T], False for episodes that do not count -> weights [B, T].

The weights are those of a whole optimiser step, so it may be computed in any number of parts.
"""

from __future__ import annotations

from torch import Tensor


def sequence_sum(mask: Tensor) -> Tensor:
    """1 / B: the gradient of the expected reward."""
    return _real(mask) / mask.any(-1).sum().clamp(min=1)


def sequence_mean(mask: Tensor) -> Tensor:
    """1 / (B |y|): GRPO, Shao et al. 2024 (arXiv:2402.03300), equation 3. A token of a long episode weighs less, which
    changes the direction of the gradient."""
    return _real(mask) / mask.sum(-1, keepdim=True).clamp(min=1) / mask.any(-1).sum().clamp(min=1)


def token_mean(mask: Tensor) -> Tensor:
    """1 / sum_b |y_b|: DAPO (arXiv:2503.14476), equation 8. The number of tokens is itself sampled: a small bias."""
    return _real(mask) / mask.sum().clamp(min=1)


def constant_length(mask: Tensor, max_length: int) -> Tensor:
    """1 / (B L): Dr. GRPO, Liu et al. 2025 (arXiv:2503.20783); `sequence_sum` but for the constant L."""
    return sequence_sum(mask) / max_length


def _real(mask: Tensor) -> Tensor:
    return mask.double()
