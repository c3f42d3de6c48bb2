"""Single characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

from tokenrl_cli.config.ranges import WIDE, Count, Gt, Le
from tokenrl_cli.tokenizer.vocabulary import EOS, UNKNOWN, Vocabulary


class Char:
    """A token is a Unicode code point, white space included; decode(encode(x)) == x without unknown ones. Before
    `train` or `load` every character is unknown."""

    def __init__(
        self,
        vocabulary_size: Annotated[int, Gt(2), Le(WIDE)],  # more than EOS and what is unknown
        min_count: Count,
    ) -> None:
        self.eos_id, self.unknown_id = EOS, UNKNOWN
        self._vocabulary = Vocabulary("char", "\N{DOUBLE QUESTION MARK}", vocabulary_size, min_count)

    @property
    def size(self) -> int:
        """The number of tokens V, EOS and the unknown token included."""
        return len(self._vocabulary.tokens)

    def train(self, texts: Iterable[str]) -> None:
        """Learns the vocabulary from `texts` and replaces the one there was: the most frequent characters, at most
        `vocabulary_size` tokens in all, EOS and the unknown token included, of those that occur `min_count` times or
        more. Raises UserError where there is no character."""
        self._vocabulary.train(list(text) for text in texts)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without EOS: one for each character, `unknown_id` for one that is not in the
        vocabulary."""
        return self._vocabulary.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of any ids: EOS has none, and an unknown token is shown as U+2047. Raises IndexError for an
        id that is not below `size`."""
        return self._vocabulary.join(ids)

    def prefixes(self, ids: Sequence[int]) -> list[str]:
        """Returns the T + 1 strings decode(ids[:t]) for t = 0 ... T, the first empty, in one pass over the T ids.
        Raises IndexError for an id that is not below `size`."""
        return list(accumulate(map(self._vocabulary.tokens.__getitem__, ids), initial=""))

    def save(self, directory: Path) -> None:
        """Writes the vocabulary to vocabulary.json in `directory`, which is made where it is missing. An existing file
        is replaced."""
        self._vocabulary.save(directory)

    def load(self, directory: Path) -> None:
        """Replaces the vocabulary by the one in vocabulary.json of `directory`. Raises UserError where the file cannot
        be read, is damaged, or is of another kind of tokenizer."""
        self._vocabulary.load(directory)
