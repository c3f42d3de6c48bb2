"""How the tokens of a text change while the text grows: what every prefix of it is scored from.

Each prefix is told as a change of the one before: so many of its tokens are kept, and these follow. Text that grows
can change tokens it already had ("5." is two tokens, "5.3" is one), and a change says that as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tokenrl_cli.metrics.compiled import compiled

BEFORE, AFTER = "a ", " a"  # what stands beside a word that others precede or follow
CAPACITY = 200_000  # distinct words that are remembered


@dataclass(frozen=True)
class Growth:
    """B texts in W prefixes each. Prefix w of a row has the first `kept` tokens of prefix w - 1, and then
    tokens[first : first + added]."""

    tokens: np.ndarray  # [n] int32
    first: np.ndarray  # [B, W] int64
    kept: np.ndarray  # [B, W] int32
    added: np.ndarray  # [B, W] int32

    @property
    def lengths(self) -> np.ndarray:
        """[B, W] tokens of each prefix."""
        return self.kept + self.added


@dataclass(frozen=True)
class References:
    """What the rows are compared with: each distinct list of references once."""

    tokens: np.ndarray  # [n] int32, of all references
    starts: np.ndarray  # [references + 1] int64, where each begins in `tokens`
    sets: np.ndarray  # [sets + 1] int64, where the references of each list begin in `starts`
    rows: np.ndarray  # [B] int64, the list of each row

    @property
    def most(self) -> int:
        """G, the length of the longest list; 1 where all are empty."""
        return int(np.diff(self.sets).max(initial=1))

    @property
    def lengths(self) -> np.ndarray:
        """[B, G] tokens of each reference of each row; -1 where it has no more."""
        count = np.diff(self.sets)[self.rows]
        place = np.arange(self.most)[None, :]
        index = np.minimum(self.sets[self.rows][:, None] + place, len(self.starts) - 1)
        sizes = np.append(np.diff(self.starts), -1)
        return np.where(place < count[:, None], sizes[index], -1)

    @property
    def known(self) -> np.ndarray:
        """[B, 1], the row has a reference."""
        return (np.diff(self.sets)[self.rows] > 0)[:, None]


class Words:
    """Metric tokens of texts, as ids: `tokenize` is asked once for each distinct word.

    `tokenize` must see words alone as it sees them in a text, but for the presence of neighbours and of white space at
    the start, which this class provides. `whole` says which texts it would not: those are tokenized anew at every
    prefix. Ids have a meaning within one call of `read` alone.
    """

    def __init__(self, tokenize: Callable[[str], list[str]], whole: Callable[[str], bool] = lambda text: False) -> None:
        self.tokenize, self.whole = tokenize, whole
        self._forget()

    def _forget(self) -> None:
        self._ids: dict[str, int] = {}
        self._words: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {
            (left, right): {} for left in ("", " ", BEFORE) for right in ("", AFTER)
        }
        self._references: dict[str, np.ndarray] = {}

    def read(self, prefixes: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> tuple[Growth, References]:
        """prefixes: of each row, its texts one after another; a shorter row stays as it ended."""
        known = sum(map(len, self._words.values()))
        if known + len(self._references) > CAPACITY:
            self._forget()
        return self._grow(prefixes), _collected(references, self._reference)

    def _grow(self, prefixes: Sequence[Sequence[str]]) -> Growth:
        tokens: list[int] = []
        kept: list[list[int]] = []
        added: list[list[int]] = []
        for strings in prefixes:
            follow = self._follow_whole if self.whole(strings[-1]) else self._follow
            changes = follow(strings, tokens)
            kept.append(changes[0])
            added.append(changes[1])
        return _growth(np.array(tokens, dtype=np.int32), kept, added)

    def _follow(self, strings: Sequence[str], tokens: list[int]) -> tuple[list[int], list[int]]:
        """The last word is read again whenever something follows it; what stands before it no longer changes."""
        kept: list[int] = []
        added: list[int] = []
        inner, final = self._words[BEFORE, AFTER], self._words[BEFORE, ""]
        previous, size = "", 0
        start = stable = before = 0  # of the last word: where it begins, and the tokens and words before it
        for string in strings:
            if not string.startswith(previous):
                start = stable = before = 0
            elif len(string) == len(previous):
                kept.append(size)
                added.append(0)
                continue
            kept.append(stable)
            done = len(tokens)
            words = string[start:].split()
            if words:
                last = words.pop()
                for word in words:
                    tokens += (before and inner.get(word)) or self._find(word, string, before, AFTER)
                    before += 1
                start = string.rindex(last)
                held = len(tokens) - done
                tokens += (before and final.get(last)) or self._find(last, string, before, "")
                size = stable + len(tokens) - done
                stable += held
            else:
                size = stable
            added.append(len(tokens) - done)
            previous = string
        return kept, added

    def _find(self, word: str, text: str, before: int, right: str) -> tuple[int, ...]:
        left = BEFORE if before else " " if text[:1].isspace() else ""
        table = self._words[left, right]
        found = table.get(word)
        if found is None:
            pieces = self.tokenize(f"{left}{word}{right}")
            found = table[word] = self._numbers(pieces[bool(before) : len(pieces) - bool(right)])
        return found

    def _follow_whole(self, strings: Sequence[str], tokens: list[int]) -> tuple[list[int], list[int]]:
        added: list[int] = []
        for string in strings:
            done = len(tokens)
            tokens += self._numbers(self.tokenize(string))
            added.append(len(tokens) - done)
        return [0] * len(strings), added

    def _numbers(self, pieces: Sequence[str]) -> tuple[int, ...]:
        return tuple([self._ids.setdefault(piece, len(self._ids)) for piece in pieces])

    def _reference(self, text: str) -> np.ndarray:
        found = self._references.get(text)
        if found is None:
            found = self._references[text] = np.array(self._numbers(self.tokenize(text)), dtype=np.int32)
        return found


class Characters:
    """Code points of texts after `clean`; without white space where `squeezed`."""

    def __init__(self, clean: Callable[[str], str], squeezed: bool) -> None:
        self.clean, self.squeezed = clean, squeezed

    def read(self, prefixes: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> tuple[Growth, References]:
        """As of `Words`."""
        text: list[str] = []
        kept: list[list[int]] = []
        added: list[list[int]] = []
        for strings in prefixes:
            kept.append([])
            added.append([])
            previous, size = "", 0
            for string in map(self.clean, strings):
                begin = len(previous) if string.startswith(previous) else 0
                tail = self._squeeze(string[begin:])
                kept[-1].append(size if begin == len(previous) else 0)
                added[-1].append(len(tail))
                size = kept[-1][-1] + len(tail)
                text.append(tail)
                previous = string
        growth = _growth(_code_points("".join(text)), kept, added)
        return growth, _collected(references, lambda text: _code_points(self._squeeze(self.clean(text))))

    def _squeeze(self, text: str) -> str:
        return "".join(text.split()) if self.squeezed else text


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), dtype=np.int32)


def _collected(references: Sequence[Sequence[str]], read: Callable[[str], np.ndarray]) -> References:
    sets: dict[tuple[str, ...], int] = {}
    rows = [sets.setdefault(tuple(each), len(sets)) for each in references]
    ids = [read(text) for each in sets for text in each]
    return References(
        np.concatenate([np.zeros(0, np.int32), *ids]),
        np.cumsum([0, *map(len, ids)]),
        np.cumsum([0, *map(len, sets)]),
        np.array(rows, dtype=np.int64),
    )


def _growth(tokens: np.ndarray, kept: list[list[int]], added: list[list[int]]) -> Growth:
    """With as much kept as can be: tokens that come back as they were are not new."""
    width = max(map(len, kept), default=0)
    counts = np.array([row + [0] * (width - len(row)) for row in added], dtype=np.int32).reshape(len(kept), width)
    stay = np.array([row + [-1] * (width - len(row)) for row in kept], dtype=np.int32).reshape(len(kept), width)
    first = np.cumsum(counts).reshape(counts.shape) - counts
    longest = int(counts.sum(-1).max(initial=0))
    _tighten(tokens, first, stay, counts, np.zeros(longest, np.int32))
    return Growth(tokens, first, stay, counts)


@compiled
def _tighten(tokens, first, kept, added, text):  # type: ignore[no-untyped-def]
    for row in range(kept.shape[0]):
        size = 0
        for place in range(kept.shape[1]):
            if kept[row, place] < 0:  # the row has ended
                kept[row, place] = size
                continue
            here = kept[row, place]
            token = first[row, place]
            end = token + added[row, place]
            while token < end and here < size and text[here] == tokens[token]:
                here += 1
                token += 1
            kept[row, place] = here
            first[row, place] = token
            added[row, place] = end - token
            while token < end:
                text[here] = tokens[token]
                here += 1
                token += 1
            size = here
