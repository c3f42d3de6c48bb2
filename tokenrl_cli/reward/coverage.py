"""Does the text mention what it has to?"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from tokenrl_cli.config.ranges import Text
from tokenrl_cli.data.words import in_word
from tokenrl_cli.interfaces import Texts, UserError


class Coverage:
    """Share, 0 to 1, of the items in a column of the dataset that occur in the text as whole words; NaN for a source
    without items.

    `column` is the name of the column. For each source it holds a list of strings, a record whose values are the items,
    one string whose words are the items, or None (no items). Items that the config excludes (the second parameter) are
    left out, compared exactly, case included: the "yes" of a slot is no word of its text. `lowercase` ignores case in
    the text. The rest of the text, and repetitions, do not matter: gamed by listing everything there is. `here` is the
    path of the block in the config, for error messages.
    """

    needs_references = False

    def __init__(self, column: Text, unsaid: list[str], lowercase: bool, here: str) -> None:
        self.where = f"{here}.column={column}"
        self.column, self.unsaid, self.flags = column, frozenset(unsaid), re.IGNORECASE if lowercase else 0

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the share for each text, [B] float64, 0-1; NaN for a source without items. An item that is listed
        twice counts twice. Raises UserError where the dataset has no such column, or a value in it is of another type
        than the class lists."""
        if self.column not in texts.columns:
            there = ", ".join(sorted(texts.columns)) or "no columns"
            raise UserError(self.where, f"the dataset has no such column, but {there}")
        pairs = zip(texts.hypotheses, texts.columns[self.column], strict=True)
        return np.array([self._score(text, self._items(value)) for text, value in pairs], dtype=np.float64)

    def _items(self, value: Any) -> list[str]:
        value = list(value.values()) if isinstance(value, dict) else value
        items = value.split() if isinstance(value, str) else [] if value is None else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise UserError(self.where, f"must hold strings, or lists or records of strings, holds {value!r}")
        return [item.strip() for item in items if item.strip() and item.strip() not in self.unsaid]

    def _score(self, text: str, items: list[str]) -> float:
        found = [_mentions(text, item, self.flags) for item in items]
        return sum(found) / len(found) if found else math.nan


def _mentions(text: str, item: str, flags: int) -> bool:
    """Whether an item occurs where no letter, digit, mark or joiner before or behind it makes it a part of a word."""
    pattern = re.compile(re.escape(item), flags)
    found = pattern.search(text)
    while found and (in_word(text[found.start() - 1 : found.start()]) or in_word(text[found.end() : found.end() + 1])):
        found = pattern.search(text, found.start() + 1)
    return found is not None
