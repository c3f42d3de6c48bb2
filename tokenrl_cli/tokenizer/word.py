"""Words and punctuation marks, with the spacing kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Annotated

from tokenrl_cli.config.ranges import WIDE, Count, Gt, Le
from tokenrl_cli.data.words import marks
from tokenrl_cli.tokenizer.vocabulary import EOS, UNKNOWN, Vocabulary

# A clitic ('s, 't, 're), a word or a mark, each with the one space before it; any other white space by itself.
# Every character is a word character, white space or neither, so the pieces of a text join to the text.
PIECE = re.compile(r" ?['’]\w{1,2}(?!\w)| ?\w+| ?[^\w\s]|\s")


@cache
def _marked() -> re.Pattern[str]:
    """PIECE for texts with combining marks or joiners, M: each belongs to what it stands on. Six times as slow."""
    m = f"[{''.join(sorted(marks()))}]"
    word = rf" ?\w+(?:{m}+\w*)*| ?{m}+\w(?:\w|{m})*"
    return re.compile(rf" ?['’](?:\w{m}*){{1,2}}(?!\w|{m})|{word}| ?[^\w\s]{m}*|\s")


class Word:
    """A token is a word or a mark *together with* the space before it, if there is one: " the", " isn", "'t", ".".

    A mark and a word glued to the left one are tokens of their own without that space, so the vocabulary holds two
    forms only of what the data writes in two ways. The start of a text counts as a space: the first word of a sentence
    is the token it would be in the middle. Combining marks and joiners belong to the word, the mark or the emoji that
    they follow. Hence decode(encode(x)) == x for any x without unknown words, and the text of a prefix of the ids is a
    prefix of the text. Before `train` or `load` every word is unknown.
    """

    def __init__(
        self,
        vocabulary_size: Annotated[int, Gt(2), Le(WIDE)],  # more than EOS and what is unknown
        min_count: Count,
    ) -> None:
        self.eos_id, self.unknown_id = EOS, UNKNOWN
        self._vocabulary = Vocabulary("word", " \N{DOUBLE QUESTION MARK}", vocabulary_size, min_count)

    @property
    def size(self) -> int:
        """The number of tokens V, EOS and the unknown token included."""
        return len(self._vocabulary.tokens)

    def train(self, texts: Iterable[str]) -> None:
        """Learns the vocabulary from `texts` and replaces the one there was: the most frequent words, marks and
        white-space characters (see `encode`), at most `vocabulary_size` tokens in all, EOS and the unknown token
        included, of those that occur `min_count` times or more. Raises UserError where every text is empty."""
        self._vocabulary.train(_pieces(text) for text in texts)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without EOS: one for each word, each mark and each white-space
        character that is not the one space before a word or mark; `unknown_id` for one that is not in the vocabulary;
        [] for the empty text."""
        return self._vocabulary.encode(_pieces(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of any ids: EOS has none, and an unknown token is shown as U+2047, with a space before it.
        The space before the first word is left out. Raises IndexError for an id that is not below `size`."""
        return self._vocabulary.join(ids).removeprefix(" ")

    def prefixes(self, ids: Sequence[int]) -> list[str]:
        """Returns the T + 1 strings decode(ids[:t]) for t = 0 ... T, the first empty, in one pass over the T ids.
        Raises IndexError for an id that is not below `size`."""
        tokens = self._vocabulary.tokens
        texts = accumulate((tokens[i] for i in ids), initial="")
        return [text.removeprefix(" ") for text in texts]

    def save(self, directory: Path) -> None:
        """Writes the vocabulary to vocabulary.json in `directory`, which is made where it is missing. An existing file
        is replaced."""
        self._vocabulary.save(directory)

    def load(self, directory: Path) -> None:
        """Replaces the vocabulary by the one in vocabulary.json of `directory`. Raises UserError where the file cannot
        be read, is damaged, or is of another kind of tokenizer."""
        self._vocabulary.load(directory)


def _pieces(text: str) -> list[str]:
    if not text:
        return []
    plain = text.isascii() or marks().isdisjoint(text)
    return (PIECE if plain else _marked()).findall(" " + text)
