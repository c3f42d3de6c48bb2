"""The only source of random numbers: a generator for each (seed, name, step, rank).

A draw depends on its purpose (`name`) and its step, never on earlier draws. So evaluating more or less often changes no
number of the training, and a resumed run draws the same numbers as one that was never stopped.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, name: str, step: int = 0, rank: int = 0) -> int:
    """Derives an integer seed, from 0 to 2^63 - 1, from the run's seed, a purpose (`name`), a step and the number of a
    process (`rank`). The same arguments give the same seed on every machine; different ones give unrelated seeds."""
    digest = hashlib.blake2b(f"{seed}/{name}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, name: str, step: int = 0, rank: int = 0) -> torch.Generator:
    """Returns a new torch generator on the CPU, seeded by `derive(seed, name, step, rank)`: each call with the same
    arguments begins the same draws again. Torch's global generator is not touched. Draw on the CPU and move the numbers
    to the device: a GPU would draw different ones."""
    import torch  # imported here, so that commands which draw nothing start without torch

    return torch.Generator().manual_seed(derive(seed, name, step, rank))
