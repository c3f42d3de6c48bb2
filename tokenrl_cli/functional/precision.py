"""The floating-point precision of sums over a vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """The values [...] as they are in float32 and float64, converted to float32 from any other type. [...] -> [...].

    Half precision has too few digits to sum the probabilities of a vocabulary: small terms would vanish.
    """
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
