"""Tokens of every prefix of a text, stored as differences, so that all prefixes can be scored at little more than the
cost of one.

A prefix is described by how many tokens it keeps of the prefix before it and which tokens follow those. Longer text can
change tokens that were there already: "5." is two tokens of BLEU and "5.3" is one, and a prefix may end inside a
character. Three stages each turn such differences into differences: code points (`characters`), words separated by
white space (`_find_words`), and the metric's tokens of each word (`_spelt`).

>>> import re
>>> words = Words(lambda text: re.findall(r"[0-9]+[.][0-9]+|[a-z]+|[.]|[0-9]+", text), neighbours=False, whole=None)
>>> growth, _ = words.read([["it", "it cost 5.", "it cost 5.3"]], [[]])
>>> growth.lengths.tolist()  # it | it cost 5 . | it cost 5.3
[[1, 4, 3]]
>>> growth.kept.tolist(), growth.added.tolist()
([[0, 1, 2]], [[1, 3, 1]])
>>> growth.tokens.tolist()  # it; cost 5 .; 5.3
[0, 1, 2, 3, 4]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from tokenrl_cli.metrics.compiled import compiled, loop

BESIDE = "a"  # a word to put before or after another, where a tokenizer only looks at whether there is one
REMEMBERED = 200_000  # words and references in the caches, above which these are emptied
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a prefix ends with that ends inside a character
SPACES = np.array([chr(code).isspace() for code in range(0x3001)])  # by code point; above there is no white space


@dataclass(frozen=True)
class Growth:
    """W prefixes of each of B texts. Prefix w of a row has the first kept[row, w] tokens of prefix w - 1, followed by
    tokens[first[row, w] : first[row, w] + added[row, w]]."""

    tokens: np.ndarray  # [n] int32, the added tokens of all prefixes
    first: np.ndarray  # [B, W] int64, where those of a prefix begin in `tokens`
    kept: np.ndarray  # [B, W] int32, number of tokens kept of the prefix before
    added: np.ndarray  # [B, W] int32, number of tokens after those

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each prefix. [B, W]"""
        lengths: np.ndarray = self.kept + self.added
        return lengths

    @property
    def longest(self) -> int:
        """The number of tokens of the longest prefix of all; 0 without rows."""
        return int(self.lengths.max(initial=0))


@dataclass(frozen=True)
class References:
    """Reference texts of B rows as token ids, each distinct list of references stored once."""

    tokens: np.ndarray  # [n] int32, of all references
    starts: np.ndarray  # [references + 1] int64, where each begins in `tokens`
    sets: np.ndarray  # [sets + 1] int64, where the references of each list begin in `starts`
    rows: np.ndarray  # [B] int64, the number of each row's list, an index of `sets`

    @property
    def most(self) -> int:
        """G, the number of references in the longest list; 1 where all are empty or there is none."""
        return int(np.diff(self.sets).max(initial=1))

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each reference of each row. [B, G], -1 where the row has fewer references."""
        count = np.diff(self.sets)[self.rows]
        place = np.arange(self.most)[None, :]
        index = np.minimum(self.sets[self.rows][:, None] + place, len(self.starts) - 1)
        sizes = np.append(np.diff(self.starts), -1)
        return np.where(place < count[:, None], sizes[index], -1)

    @property
    def known(self) -> np.ndarray:
        """True for rows with at least one reference. [B, 1] bool"""
        known: np.ndarray = (np.diff(self.sets)[self.rows] > 0)[:, None]
        return known


def characters(prefixes: Sequence[Sequence[str]]) -> Growth:
    """Returns the code points of every prefix, as a Growth with one token for each character, whose id is its Unicode
    code point.

    prefixes: for each of B rows its prefixes, at least one, in order; a prefix need not begin with the one before it. W
    is the largest number of prefixes: a row with fewer is filled up to W with unchanged copies of its last prefix.
    """
    lengths = [list(map(len, strings)) for strings in prefixes]
    ends = _filled(lengths, lengths)
    begun = [all(map(strings[-1].startswith, strings)) for strings in prefixes]
    if all(begun) and (ends[:, 1:] >= ends[:, :-1]).all():  # each text begins with the one before it
        kept = np.concatenate([np.zeros_like(ends[:, :1]), ends[:, :-1]], 1)
        added = ends - kept
        first = np.cumsum(added).reshape(added.shape) - added
        return Growth(_code_points("".join([strings[-1] for strings in prefixes])), first, kept, added)
    tails, stays = zip(*map(_tails, prefixes), strict=True)
    kept = _filled(stays, lengths)
    return _tightened(_code_points("".join(chain.from_iterable(tails))), kept, ends - kept)


def _tails(strings: Sequence[str]) -> tuple[list[str], list[int]]:
    """(new characters, number of characters kept of the string before) of each string of a row, for rows where a string
    does not always begin with the one before: a prefix that ended inside a character ends with UNFINISHED."""
    tails: list[str] = []
    kept: list[int] = []
    previous = ""
    for string in strings:
        base = previous if string.startswith(previous) else previous.rstrip(UNFINISHED)
        kept.append(len(base) if string.startswith(base) else 0)
        tails.append(string[kept[-1] :])
        previous = string
    return tails, kept


def _filled(rows: Sequence[list[int]], lengths: Sequence[list[int]]) -> np.ndarray:
    """Rows of numbers as an array [B, W] int32; a shorter row is filled with its last text's length."""
    width = max(map(len, rows), default=1)
    if any(len(row) < width for row in rows):
        rows = [row + ends[-1:] * (width - len(row)) for row, ends in zip(rows, lengths, strict=True)]
    return np.fromiter(chain.from_iterable(rows), np.int32, len(rows) * width).reshape(len(rows), width)


class Characters:
    """Reads texts as code points, after `clean` (None: nothing) has changed each text, and without white space where
    `squeezed`."""

    def __init__(self, clean: Callable[[str], str] | None, squeezed: bool) -> None:
        self.clean, self.squeezed = clean, squeezed

    def read(self, prefixes: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> tuple[Growth, References]:
        """Returns the tokens of all prefixes, a Growth of B rows, and of the references of each row: Unicode code
        points, after `clean` and, where `squeezed`, without white space.

        prefixes: for each of B rows its prefixes, at least one, in order; a row with fewer than W is filled up with
        unchanged copies of its last. references: for each row its reference texts, which may be none. A code point is
        the same id in every call, and nothing is cached.
        """
        return self._grow(prefixes), _collected(references, self._reference)

    def _reference(self, texts: list[str]) -> list[np.ndarray]:
        return _split(self._grow([[text] for text in texts]))

    def _grow(self, prefixes: Sequence[Sequence[str]]) -> Growth:
        if self.clean is not None:
            prefixes = [list(map(self.clean, strings)) for strings in prefixes]
        growth = characters(prefixes)
        if not self.squeezed:
            return growth
        return Growth(*_squeeze(growth.tokens, growth.first, growth.kept, growth.added, SPACES, growth.longest))


class Words:
    """Reads texts as ids of a metric's tokens, calling `tokenize` once for each distinct word instead of once for each
    prefix of each text.

    That is right only where `tokenize` gives a word (a run without white space) the same tokens alone as in a text. Two
    exceptions are provided for. With `neighbours` the tokens may depend on whether there is white space or a word on
    either side: `tokenize` is then called with the word between such neighbours, once for each such context. `whole` is
    for tokens that depend on more: it is called with the last prefix of each row and with each reference, and where it
    is True every prefix of that row, or that reference, is tokenized as a whole. None: never.
    """

    def __init__(
        self, tokenize: Callable[[str], list[str]], neighbours: bool, whole: Callable[[str], bool] | None
    ) -> None:
        self.tokenize, self.neighbours, self.whole = tokenize, neighbours, whole
        self._forget()

    def _forget(self) -> None:
        self._ids: dict[str, int] = {}
        self._references: dict[str, np.ndarray] = {}
        self._lexicon = _lexicon()  # the hash table of distinct words, each with its context
        # The tokens of word i are self._tokens[self._starts[i] : self._starts[i + 1]].
        self._tokens, self._starts = np.zeros(0, np.int32), np.zeros(1, np.int64)

    def read(self, prefixes: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> tuple[Growth, References]:
        """Returns the token ids of all prefixes, a Growth of B rows, and of the references of each row.

        prefixes: for each of B rows its prefixes, at least one, in order; a row with fewer than W is filled up with
        unchanged copies of its last. references: for each row its reference texts, which may be none. An id means the
        same token in both results, but may mean another in the next call, for the caches are emptied when they hold
        more than REMEMBERED (200,000) words and references together.
        """
        if len(self._starts) + len(self._references) > REMEMBERED:
            self._forget()
        return self._grow(prefixes), _collected(references, self._reference)

    def _reference(self, texts: list[str]) -> list[np.ndarray]:
        new = [text for text in texts if text not in self._references]
        if new:
            self._references.update(zip(new, _split(self._grow([[text] for text in new])), strict=True))
        return [self._references[text] for text in texts]

    def _grow(self, prefixes: Sequence[Sequence[str]]) -> Growth:
        whole = np.array([self.whole is not None and self.whole(strings[-1]) for strings in prefixes], dtype=bool)
        if not whole.any():
            return self._of_words(characters(prefixes))
        by_word, as_whole = (
            [prefixes[row] for row in np.flatnonzero(whole == each).tolist()] for each in (False, True)
        )
        return _merged(self._of_words(characters(by_word)), self._anew(as_whole), whole)

    def _of_words(self, text: Growth) -> Growth:
        words, *changes = self._find(text)
        self._learn()
        return Growth(*_spelt(words, *changes, self._tokens, self._starts, text.longest))

    def _find(self, text: Growth) -> tuple[np.ndarray, ...]:
        shape = text.kept.shape
        first, kept, added = np.zeros(shape, np.int64), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        words, *self._lexicon = _find_words(
            text.tokens, text.first, text.kept, text.added, SPACES, text.longest, self.neighbours, *self._lexicon,
            first, kept, added,
        )  # fmt: skip
        return words, first, kept, added

    def _learn(self) -> None:
        """Calls `tokenize` for the words that were met for the first time, and stores their tokens."""
        _, letters, ends, around, known = self._lexicon
        learned: list[tuple[int, ...]] = []
        for word in range(len(self._starts) - 1, known):
            start = ends[word - 1] if word else 0
            spelling = letters[start : ends[word]].tobytes().decode("utf-32-le", "surrogatepass")
            left, right = divmod(int(around[word]), 2)
            text = f"{('', ' ', f'{BESIDE} ')[left]}{spelling}{f' {BESIDE}' if right else ''}"
            pieces = self.tokenize(text)
            learned.append(self._numbers(pieces[left == 2 : len(pieces) - right]))
        if learned:
            counts = np.cumsum([len(numbers) for numbers in learned])
            self._starts = np.concatenate([self._starts, self._starts[-1] + counts])
            self._tokens = np.concatenate([self._tokens, np.fromiter(chain.from_iterable(learned), np.int32)])

    def _anew(self, prefixes: Sequence[Sequence[str]]) -> Growth:
        """The tokens of rows whose every prefix is tokenized as a whole."""
        width = max(map(len, prefixes))
        ids_of = [[self._numbers(self.tokenize(string)) for string in strings] for strings in prefixes]
        every = [[*row, *row[-1:] * (width - len(row))] for row in ids_of]
        added = np.array([[len(ids) for ids in row] for row in every], dtype=np.int32)
        tokens = np.fromiter(chain.from_iterable(ids for row in every for ids in row), np.int32)
        return _tightened(tokens, np.zeros_like(added), added)

    def _numbers(self, pieces: Iterable[str]) -> tuple[int, ...]:
        """The id of each token; a new one gets the next free id."""
        return tuple([self._ids.setdefault(piece, len(self._ids)) for piece in pieces])


def _merged(one: Growth, other: Growth, place: np.ndarray) -> Growth:
    """The rows of both, in the order of place [B]: False takes the next row of `one`, True of `other`. The one with
    fewer prefixes is filled up with unchanged copies of the last."""
    width = max(one.kept.shape[1], other.kept.shape[1])
    first, kept, added = (np.zeros((len(place), width), kind) for kind in (np.int64, np.int32, np.int32))
    for part, chosen, offset in ((one, ~place, 0), (other, place, len(one.tokens))):
        rows, narrow = np.flatnonzero(chosen), part.kept.shape[1]
        first[rows, :narrow], kept[rows, :narrow], added[rows, :narrow] = part.first + offset, part.kept, part.added
        kept[rows, narrow:] = part.lengths[:, -1:]
    return Growth(np.concatenate([one.tokens, other.tokens]), first, kept, added)


def _split(growth: Growth) -> list[np.ndarray]:
    """The token ids [n] of each text, of a Growth with one prefix a row."""
    bounds = zip(growth.first[:, 0].tolist(), growth.added[:, 0].tolist(), strict=True)
    return [growth.tokens[begin : begin + size] for begin, size in bounds]


def _collected(references: Sequence[Sequence[str]], read: Callable[[list[str]], list[np.ndarray]]) -> References:
    sets: dict[tuple[str, ...], int] = {}
    rows = [sets.setdefault(tuple(each), len(sets)) for each in references]
    ids = read([text for each in sets for text in each])
    return References(
        np.concatenate([np.zeros(0, np.int32), *ids]),
        np.cumsum([0, *map(len, ids)]),
        np.cumsum([0, *map(len, sets)]),
        np.array(rows, dtype=np.int64),
    )


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), dtype=np.int32)


def _tightened(tokens: np.ndarray, kept: np.ndarray, added: np.ndarray) -> Growth:
    """The same prefixes with as large a `kept` as possible: added tokens that equal those they replace are kept."""
    first = np.cumsum(added).reshape(added.shape) - added
    longest = int((kept + added).max(initial=0))
    _tighten(tokens, first, kept, added, np.zeros(longest, np.int32))
    return Growth(tokens, first, kept, added)


# ------------------------------------------------------------------------------------------------------------ the loops


@compiled
def _tighten(tokens, first, kept, added, text):  # type: ignore[no-untyped-def]
    # `text` holds the tokens of the present prefix. Works in place on first, kept and added.
    for row in range(kept.shape[0]):
        size = 0
        for place in range(kept.shape[1]):
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


@compiled
def _squeeze(codes, first, kept, added, spaces, longest):  # type: ignore[no-untyped-def]
    # Leaves out white space: the first `here` characters of a prefix become count[here] letters.
    new_first, new_kept, new_added = np.empty_like(first), np.empty_like(kept), np.empty_like(added)
    tokens = np.empty_like(codes)
    count = np.zeros(longest + 1, np.int64)  # letters among the first i characters
    used = 0
    for row in range(kept.shape[0]):
        for place in range(kept.shape[1]):
            here = kept[row, place]
            new_kept[row, place] = count[here]
            new_first[row, place] = used
            for token in range(first[row, place], first[row, place] + added[row, place]):
                letter = not (codes[token] < len(spaces) and spaces[codes[token]])
                if letter:
                    tokens[used] = codes[token]
                    used += 1
                count[here + 1] = count[here] + letter
                here += 1
            new_added[row, place] = used - new_first[row, place]
    return tokens[:used].copy(), new_first, new_kept, new_added


@loop
def _longer(array, size):  # type: ignore[no-untyped-def]
    """A copy of an array [n], filled up with zeros to [size]."""
    longer = np.zeros(size, array.dtype)
    longer[: len(array)] = array
    return longer


@loop
def _hashed(context, letters, begin, end):  # type: ignore[no-untyped-def]
    """64-bit hash of a word, letters[begin : end] code points, and its context."""
    mixed = np.uint64(context + 1)
    for place in range(begin, end):
        mixed = (mixed ^ np.uint64(letters[place])) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _lexicon() -> Any:
    """An empty hash table of words, as (slots, letters, ends, around, known).

    Word i has the code points letters[ends[i - 1] : ends[i]] and the context around[i]. `known` is the number of words.
    slots[h] is the number of the word whose hash leads to slot h, -1 for an empty slot; where another word stands
    there, the next slot is tried. The words "it" and "cost", for example, give letters = [i, t, c, o, s, t], ends =
    [2, 6] and known = 2, and two slots hold 0 and 1.
    """
    return (
        np.full(1 << 12, -1, np.int32),
        np.zeros(1 << 14, np.int32),
        np.zeros(1 << 11, np.int64),
        np.zeros(1 << 11, np.int8),
        0,
    )


@compiled
def _find_words(  # type: ignore[no-untyped-def]
    codes,
    first,
    kept,
    added,
    spaces,
    longest,
    neighbours,
    slots,
    letters,
    ends,
    around,
    known,
    new_first,
    new_kept,
    new_added,
):
    # Replaces runs of code points without white space by word numbers of the hash table, to which new words are added.
    # A word is identified by its letters and, with `neighbours`, by its context 2 * left + right: on the left nothing
    # (0), white space (1) or a word (2), on the right nothing (0) or a word (1). Then the last word of a prefix becomes
    # another one as soon as a word follows it, and cannot be kept.
    last = 1 if neighbours else 0
    words = np.empty(kept.size + 16, np.int32)
    used = 0
    text = np.empty(longest + 1, np.int32)
    begin, end = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)  # of each word in the text
    for row in range(kept.shape[0]):
        count = before = 0  # words of this prefix, and of the one before it
        for place in range(kept.shape[1]):
            here = kept[row, place]
            while count > 0 and begin[count - 1] >= here:
                count -= 1
            same, edge = count, here
            if count > 0 and end[count - 1] > here:  # only the beginning of the last word is kept
                end[count - 1] = here
                same -= 1
            for token in range(first[row, place], first[row, place] + added[row, place]):
                code = codes[token]
                text[here] = code
                if not (code < len(spaces) and spaces[code]):
                    if count == 0 or end[count - 1] < here:
                        begin[count] = here
                        count += 1
                    end[count - 1] = here + 1
                here += 1
            if same > 0 and end[same - 1] > edge:  # the added characters made the last kept word longer
                same -= 1
            same = max(min(same, before - last, count - last), 0)
            before = count
            new_kept[row, place] = same
            new_first[row, place] = used
            new_added[row, place] = count - same
            for word in range(same, count):
                context = 0
                if neighbours:
                    left = 2 if word > 0 else (1 if begin[0] > 0 else 0)
                    context = 2 * left + (1 if word < count - 1 else 0)
                size = end[word] - begin[word]
                slot = _hashed(context, text, begin[word], end[word]) & np.uint64(len(slots) - 1)
                found = slots[slot]
                while found >= 0:
                    start = ends[found - 1] if found > 0 else 0
                    if around[found] == context and ends[found] - start == size:
                        equal = True
                        for letter in range(size):
                            if letters[start + letter] != text[begin[word] + letter]:
                                equal = False
                                break
                        if equal:
                            break
                    slot = (slot + np.uint64(1)) & np.uint64(len(slots) - 1)
                    found = slots[slot]
                if found < 0:
                    found = known
                    slots[slot] = found
                    start = ends[found - 1] if found > 0 else 0
                    if start + size > len(letters):
                        letters = _longer(letters, 2 * len(letters) + size)
                    for letter in range(size):
                        letters[start + letter] = text[begin[word] + letter]
                    if found == len(ends):
                        ends, around = _longer(ends, 2 * found), _longer(around, 2 * found)
                    ends[found] = start + size
                    around[found] = context
                    known += 1
                    if 2 * known > len(slots):  # more than half full: twice the slots, and every word stored again
                        slots = np.full(2 * len(slots), -1, np.int32)
                        for other in range(known):
                            start = ends[other - 1] if other > 0 else 0
                            slot = _hashed(np.int64(around[other]), letters, start, ends[other]) & np.uint64(
                                len(slots) - 1
                            )
                            while slots[slot] >= 0:
                                slot = (slot + np.uint64(1)) & np.uint64(len(slots) - 1)
                            slots[slot] = other
                if used == len(words):
                    words = _longer(words, 2 * used)
                words[used] = found
                used += 1
    return words[:used], slots, letters, ends, around, known


@compiled
def _spelt(words, first, kept, added, tokens_of, starts, longest):  # type: ignore[no-untyped-def]
    # Replaces each word number by the word's tokens. A changed word may begin with the tokens of the old one: these
    # count as kept, up to the first that differs.
    new_first, new_kept, new_added = np.empty_like(first), np.empty_like(kept), np.empty_like(added)
    total = 0
    for word in words:
        total += starts[word + 1] - starts[word]
    tokens = np.empty(total, np.int32)
    size = np.zeros(longest + 2, np.int64)  # tokens of the first i words
    text = np.zeros(64, np.int32)
    used = 0
    for row in range(kept.shape[0]):
        length = 0
        for place in range(kept.shape[1]):
            word = kept[row, place]
            here = size[word]
            matching = True
            new_first[row, place] = used
            new_kept[row, place] = here
            for number in range(first[row, place], first[row, place] + added[row, place]):
                for token in range(starts[words[number]], starts[words[number] + 1]):
                    matching = matching and here < length and text[here] == tokens_of[token]
                    if matching:
                        new_kept[row, place] += 1
                    else:
                        if here == len(text):
                            text = _longer(text, 2 * here)
                        text[here] = tokens_of[token]
                        tokens[used] = tokens_of[token]
                        used += 1
                    here += 1
                word += 1
                size[word] = here
            new_added[row, place] = used - new_first[row, place]
            length = here
    return tokens[:used].copy(), new_first, new_kept, new_added
