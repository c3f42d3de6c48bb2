"""Which precision maths is done in."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """At least float32: half precision cannot sum a vocabulary of probabilities."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
