"""Single characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

from tokenrl_cli.config.ranges import WIDE, Count, Gt, Le
from tokenrl_cli.tokenizer.vocabulary import EOS, UNKNOWN, Vocabulary


class Char:
    """A token is a Unicode code point, white space included; decode(encode(x)) == x without unknown ones."""

    def __init__(
        self,
        vocabulary_size: Annotated[int, Gt(2), Le(WIDE)],  # more than EOS and what is unknown
        min_count: Count,
    ) -> None:
        self.eos_id, self.unknown_id = EOS, UNKNOWN
        self._vocabulary = Vocabulary("char", "\N{DOUBLE QUESTION MARK}", vocabulary_size, min_count)

    @property
    def size(self) -> int:
        return len(self._vocabulary.tokens)

    def train(self, texts: Iterable[str]) -> None:
        self._vocabulary.train(list(text) for text in texts)

    def encode(self, text: str) -> list[int]:
        return self._vocabulary.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._vocabulary.join(ids)

    def prefixes(self, ids: Sequence[int]) -> list[str]:
        """decode(ids[:t]) for t = 0 .. T, in one pass."""
        return list(accumulate(map(self._vocabulary.tokens.__getitem__, ids), initial=""))

    def save(self, directory: Path) -> None:
        self._vocabulary.save(directory)

    def load(self, directory: Path) -> None:
        self._vocabulary.load(directory)
