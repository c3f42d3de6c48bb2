"""The embedded task: English to German from a grammar."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Literal

from tokenrl_cli import streams
from tokenrl_cli.config.ranges import Count
from tokenrl_cli.interfaces import Example
from tokenrl_cli.tasks import grammar

SHARES = {"test": range(0, 1), "val": range(1, 2), "train": range(2, 20)}  # twentieths of all sources


class Grammar:
    """Sentences of `tokenrl_cli.tasks.grammar`, each with one translation drawn from its distribution.

    Example i is a pure function of (corpus_seed, split, i); `train` is unlimited. A digest of the source says which
    split it belongs to, so no source of val or test is ever trained on, whatever the corpus seed. Column `meaning`
    holds what `validity`, `adequacy` and `gap_closed` read.
    """

    def __init__(
        self,
        corpus_seed: int,
        val_size: Count,
        test_size: Count,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        self.max_source_length, self.overlong, self.corpus_seed = max_source_length, overlong, corpus_seed
        self.sizes = {"train": None, "val": val_size, "test": test_size}

    def size(self, split: str) -> int | None:
        return self.sizes[split]

    def example(self, split: str, index: int) -> Example:
        draws = Random(streams.derive(self.corpus_seed, f"grammar/{split}", index))
        while True:
            source, translation, meaning = grammar.sample(draws)
            if split_of(source) == split:
                return Example(f"{split}-{index}", source, [translation], [translation], {"meaning": meaning.key()})


def split_of(source: str) -> str:
    digest = hashlib.blake2b(source.encode(), digest_size=8).digest()
    twentieth = int.from_bytes(digest, "big") % 20
    return next(split for split, share in SHARES.items() if twentieth in share)
