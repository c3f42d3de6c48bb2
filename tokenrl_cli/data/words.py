"""Characters of words: letters, digits, the underscore, and the combining marks and joiners on and between them.

Python's `\\w` knows no combining marks, of which a Hindi, Thai, Hebrew or decomposed Latin word is full, nor the two
joiners without which an Indic or a Persian word is spelt wrongly.
"""

from __future__ import annotations

import unicodedata
from functools import cache

JOINERS = "\u200c\u200d"  # zero width non-joiner and joiner
SPANS = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))  # where marks are; the last are variation selectors


@cache
def marks() -> frozenset[str]:
    """Returns every combining mark (Unicode's general categories Mn, Mc and Me), the zero-width joiner and the
    zero-width non-joiner (U+200D, U+200C), as strings of one character. Cached."""
    found = {chr(code) for span in SPANS for code in span if unicodedata.category(chr(code))[0] == "M"}
    return frozenset(found | set(JOINERS))


def in_word(letter: str) -> bool:
    """Returns whether a character can be part of a word: a letter, digit, underscore, combining mark or joiner. False
    for the empty string."""
    return letter.isalnum() or letter == "_" or letter in marks()
