"""The only source of randomness: one generator for every (seed, name, step, rank).

A draw depends on what it is for and on the step it belongs to, never on what was drawn before it. Hence evaluating
more or less often changes no training number, and a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, name: str, step: int = 0, rank: int = 0) -> int:
    """A 63-bit seed for one purpose at one step, the same on every machine and in every process."""
    digest = hashlib.blake2b(f"{seed}/{name}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, name: str, step: int = 0, rank: int = 0) -> torch.Generator:
    """A CPU generator. Draw on the CPU and move the numbers: then every device sees the same ones."""
    import torch  # here, so that commands which draw nothing start without torch

    return torch.Generator().manual_seed(derive(seed, name, step, rank))
