"""How the tokens of a text change while the text grows: what every prefix of it is scored from.

Each prefix is told as a change of the one before: so many of its tokens are kept, and these follow. Text that grows can
change tokens it already had ("5." is two tokens, "5.3" is one, half a character is another one), and a change says so.
Characters come first; words are made of them, and metric tokens of the words, each step a change of changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from tokenrl_cli.metrics.compiled import compiled, loop

BESIDE = "a"  # stands for the words before and after another
REMEMBERED = 200_000  # words and references, before they are forgotten
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a prefix ends with that ends inside a character
SPACES = np.array([chr(code).isspace() for code in range(0x3001)])  # there are none above


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

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))


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


def characters(prefixes: Sequence[Sequence[str]]) -> Growth:
    """Code points. prefixes: of each row, its texts one after another; a shorter row stays as it ended."""
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
    """What is new in each, and how much of the one before stays, where one does not always begin with the other."""
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
    """[B, W] int32; a shorter row goes on with the length of its text."""
    width = max(map(len, rows), default=1)
    if any(len(row) < width for row in rows):
        rows = [row + ends[-1:] * (width - len(row)) for row, ends in zip(rows, lengths, strict=True)]
    return np.fromiter(chain.from_iterable(rows), np.int32, len(rows) * width).reshape(len(rows), width)


class Characters:
    """Code points of texts after `clean`; without white space where `squeezed`."""

    def __init__(self, clean: Callable[[str], str] | None, squeezed: bool) -> None:
        self.clean, self.squeezed = clean, squeezed

    def read(self, prefixes: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> tuple[Growth, References]:
        """As of `Words`."""
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
    """Metric tokens of texts, as ids: `tokenize` is asked once for each distinct word.

    `tokenize` must see a word alone as it sees it in a text. Where `neighbours` is True it may look at whether there
    are words, or white space, beside it, which this class then provides. `whole` says in which texts it looks at more:
    those are tokenized anew at every prefix. Ids have a meaning within one call of `read` alone.
    """

    def __init__(
        self, tokenize: Callable[[str], list[str]], neighbours: bool, whole: Callable[[str], bool] | None
    ) -> None:
        self.tokenize, self.neighbours, self.whole = tokenize, neighbours, whole
        self._forget()

    def _forget(self) -> None:
        self._ids: dict[str, int] = {}
        self._references: dict[str, np.ndarray] = {}
        self._lexicon = _lexicon()  # of words, each with its surroundings
        self._tokens, self._starts = np.zeros(0, np.int32), np.zeros(1, np.int64)  # of each word

    def read(self, prefixes: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> tuple[Growth, References]:
        """prefixes: of each row, its texts one after another; a shorter row stays as it ended."""
        if len(self._starts) + len(self._references) > REMEMBERED:
            self._forget()
        return self._grow(prefixes), _collected(references, self._reference)

    def _reference(self, texts: list[str]) -> list[np.ndarray]:
        new = [text for text in texts if text not in self._references]
        if new:
            self._references.update(zip(new, _split(self._grow([[text] for text in new])), strict=True))
        return [self._references[text] for text in texts]

    def _grow(self, prefixes: Sequence[Sequence[str]]) -> Growth:
        apart = np.array([self.whole is not None and self.whole(strings[-1]) for strings in prefixes], dtype=bool)
        if not apart.any():
            return self._of_words(characters(prefixes))
        plain, odd = ([prefixes[row] for row in np.flatnonzero(apart == each).tolist()] for each in (False, True))
        return _merged(self._of_words(characters(plain)), self._anew(odd), apart)

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
        """The tokens of words that were met for the first time."""
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
        width = max(map(len, prefixes))
        said = [[self._numbers(self.tokenize(string)) for string in strings] for strings in prefixes]
        every = [[*row, *row[-1:] * (width - len(row))] for row in said]
        added = np.array([[len(ids) for ids in row] for row in every], dtype=np.int32)
        tokens = np.fromiter(chain.from_iterable(ids for row in every for ids in row), np.int32)
        return _tightened(tokens, np.zeros_like(added), added)

    def _numbers(self, pieces: Iterable[str]) -> tuple[int, ...]:
        return tuple([self._ids.setdefault(piece, len(self._ids)) for piece in pieces])


def _merged(one: Growth, other: Growth, place: np.ndarray) -> Growth:
    """The rows of both, those of the other where `place` is True. A narrower one stays as it ended."""
    width = max(one.kept.shape[1], other.kept.shape[1])
    first, kept, added = (np.zeros((len(place), width), kind) for kind in (np.int64, np.int32, np.int32))
    for part, chosen, offset in ((one, ~place, 0), (other, place, len(one.tokens))):
        rows, narrow = np.flatnonzero(chosen), part.kept.shape[1]
        first[rows, :narrow], kept[rows, :narrow], added[rows, :narrow] = part.first + offset, part.kept, part.added
        kept[rows, narrow:] = part.lengths[:, -1:]
    return Growth(np.concatenate([one.tokens, other.tokens]), first, kept, added)


def _split(growth: Growth) -> list[np.ndarray]:
    """The tokens of each text of one prefix."""
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
    """With as much kept as can be: tokens that come back as they were are not new."""
    first = np.cumsum(added).reshape(added.shape) - added
    longest = int((kept + added).max(initial=0))
    _tighten(tokens, first, kept, added, np.zeros(longest, np.int32))
    return Growth(tokens, first, kept, added)


# ------------------------------------------------------------------------------------------------------------ the loops


@compiled
def _tighten(tokens, first, kept, added, text):  # type: ignore[no-untyped-def]
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
    longer = np.zeros(size, array.dtype)
    longer[: len(array)] = array
    return longer


@loop
def _hashed(context, letters, begin, end):  # type: ignore[no-untyped-def]
    mixed = np.uint64(context + 1)
    for place in range(begin, end):
        mixed = (mixed ^ np.uint64(letters[place])) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _lexicon() -> Any:
    """Without a word: the hash table, all letters, where each word ends in them, what is around it, how many."""
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
    # A word is known by its letters and, where neighbours count, by what is around it: on the left nothing (0), white
    # space (1) or words (2), on the right nothing (0) or words (1). Then the last word is another one once it is not
    # the last.
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
            if count > 0 and end[count - 1] > here:  # cut short
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
            if same > 0 and end[same - 1] > edge:  # what follows went on with it
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
                    if 2 * known > len(slots):
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
