"""The floating-point precision of sums over a vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """Returns values [...] converted to float32, or, where they are float32 or float64 already, the same tensor. [...]
    -> [...]. Gradients flow.

    Half precision has too few digits to sum the probabilities of a vocabulary: small terms would vanish.
    """
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
