"""What is done to texts before a metric counts their errors: the same for a reward and for a metric, and part of the
signature."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

# An integer: no part of a longer word or of a decimal fraction, without a leading 0, of at most 15 digits, which may be
# grouped by commas.
NUMERAL = r"(?:0|[1-9][0-9]{0,14}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,4})"
INTEGER = re.compile(rf"(?<!\w)(?<![0-9][.,]){NUMERAL}(?!\w)(?![.,][0-9])")


@dataclass(frozen=True)
class TextNormalisation:
    """Changes texts in this order:

    `numbers` "words"       integers are written as English words, "21" as "twenty one" (British: "one hundred and
                            one"); what is no integer stays, such as "5.3", "3rd", "007" and more than 15 digits
    `lowercase`             as `str.lower` does
    `punctuation` "remove"  each character of a Unicode category of punctuation becomes a space, but an apostrophe
                            between two other characters of a word stays, written '; then white space is trimmed, and
                            each run of it becomes one space

    With "keep" of the last and of the first nothing is changed. A prefix of a text is changed as it stands, as a whole
    text would be: "it's" grows from "it", "it" (for "it'") to "it's". `numbers` "words" needs the package num2words.
    """

    lowercase: bool
    punctuation: Literal["keep", "remove"]
    numbers: Literal["keep", "words"]

    @property
    def changes(self) -> bool:
        """Whether it changes any text."""
        return self.lowercase or self.punctuation != "keep" or self.numbers != "keep"

    @property
    def signature(self) -> str:
        """What is done, as the signature of a metric names it."""
        case = "lower" if self.lowercase else "keep"
        return f"case:{case}|punctuation:{self.punctuation}|numbers:{self.numbers}"

    def __call__(self, text: str) -> str:
        """Returns the changed text."""
        if self.numbers == "words":
            text = INTEGER.sub(lambda match: _in_words(match[0].replace(",", "")), text)
        if self.lowercase:
            text = text.lower()
        if self.punctuation == "remove":
            text = " ".join(_punctuation().sub(lambda match: "'" if match["inside"] else " ", text).split())
        return text

    def each(self, rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
        """Returns rows of texts, all of them changed; the rows themselves where there is nothing to change."""
        return [[self(text) for text in row] for row in rows] if self.changes else rows


@cache
def _punctuation() -> re.Pattern[str]:
    """Finds any character of punctuation; group "inside" is an apostrophe between two characters of a word."""
    every = (chr(code) for code in range(sys.maxunicode + 1))
    marks = re.escape("".join(letter for letter in every if unicodedata.category(letter).startswith("P")))
    return re.compile(rf"(?<=[^\s{marks}])(?P<inside>['\u2019])(?=[^\s{marks}])|[{marks}]")


@lru_cache(10_000)
def _in_words(digits: str) -> str:
    from num2words import num2words

    words: str = num2words(int(digits), lang="en")
    return " ".join(words.replace("-", " ").replace(",", " ").split())
