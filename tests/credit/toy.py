"""Sub-words whose spelling is ambiguous, and every text that a few of them can make."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tests.world import batch_of
from tokenrl_cli.episodes.sampling import Samples, rollout_of
from tokenrl_cli.interfaces import SAMPLED, Batch, Rollout

EOS = 0


class Merges:
    """Id i + 1 spells `pieces[i]`; encoding takes the longest piece, so "a" + "b" comes back as "ab"."""

    eos_id = EOS
    unknown_id: int | None = None  # nothing is unknown

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = ["", *pieces]
        self.size = len(self.pieces)

    def train(self, texts: Iterable[str]) -> None: ...

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        while text:
            best = max((piece for piece in self.pieces[1:] if text.startswith(piece)), key=len)
            ids.append(self.pieces.index(best))
            text = text[len(best) :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[i] for i in ids)

    def save(self, directory: Path) -> None: ...

    def load(self, directory: Path) -> None: ...


def every_text(size: int, length: int) -> list[list[int]]:
    """All sequences of at most `length` tokens that end in EOS, and all of `length` that were cut."""
    ended = [[*ids, EOS] for n in range(length) for ids in itertools.product(range(1, size), repeat=n)]
    return ended + [list(ids) for ids in itertools.product(range(1, size), repeat=length)]


def rollout_from(sequences: Sequence[Sequence[int]], batch: Batch | None = None) -> Rollout:
    """As if these had been sampled; padding is the id 1, a real word, as padding means nothing."""
    length = max(map(len, sequences))
    actions = torch.tensor([list(ids) + [1] * (length - len(ids)) for ids in sequences])
    mask = torch.tensor([[t < len(ids) for t in range(length)] for ids in sequences])
    ended = torch.tensor([EOS in ids for ids in sequences])
    samples = Samples(actions, mask, torch.zeros(actions.shape, dtype=torch.float64), None, ended)
    return rollout_of(batch or batch_of(1), samples, SAMPLED)


def to_go(rewards: Tensor) -> Tensor:
    return rewards.flip(-1).cumsum(-1).flip(-1)
