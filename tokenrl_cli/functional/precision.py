"""The floating-point precision of sums over a vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """Converts values [...] to float32, unless they are float32 or float64: then it returns them as they are. [...] ->
    [...].

    Half precision has too few digits to sum the probabilities of a vocabulary: small terms would vanish.
    """
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
