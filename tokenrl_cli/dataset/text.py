"""A data set of plain text, cut into pieces: the beginning of a piece is the prompt, the rest the reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

from tokenrl_cli.config.ranges import Count, CountOrZero, Fraction, MinLen
from tokenrl_cli.dataset.files import read_lines
from tokenrl_cli.dataset.splits import USUAL, Splits, check_rl
from tokenrl_cli.interfaces import Example, SettingError, UserError

WORD = re.compile(r"\S+")


class Text:
    """Examples from plain text that is cut into pieces of at most `piece_words` words (0: no limit), and with
    `blank_lines` at every blank line, too.

    The source of a piece is its first `prompt_words` words, and its one reference is the rest, with the white space
    before it; with 0 the source is empty (unconditional text). A piece that would have no rest is joined to a
    neighbour, which may then have more words than `piece_words`. No text is lost: all sources and references of a file,
    one after another, are its text with LF as line ends, without the last; white space between two pieces belongs to
    the first.

    The files of a split are found by `dataset/splits.py`. Where `splits` names none of train, val and test, and `path`
    is a file, or a folder without train, val and test .txt[.gz], all its pieces are divided by `shares`: the first are
    train, the next val, the last test. Text is read when it is first used. Raises SettingError for a wrong setting, at
    once, and UserError, when the text is read, where a file is too short or a share gets no piece.
    """

    def __init__(
        self,
        path: Annotated[str, MinLen(1)],
        splits: dict[str, str | list[str]],
        shares: dict[str, float],
        piece_words: CountOrZero,
        blank_lines: bool,
        prompt_words: CountOrZero,
        rl_share: Fraction,
        rl_split: Annotated[str, MinLen(1)] | None,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        self.max_source_length, self.overlong = max_source_length, overlong
        if piece_words and piece_words <= prompt_words:
            problem = f"must be above {{here}}.prompt_words={prompt_words}, or 0 for no limit, got {piece_words}"
            raise SettingError("piece_words", problem)
        if not piece_words and not blank_lines:
            problem = "is 0, and {here}.blank_lines false: nothing says where the text is cut"
            raise SettingError("piece_words", problem, "say how many words a piece has")
        whole = all(share > 0 for share in shares.values()) and abs(sum(shares.values()) - 1) < 1e-6
        if set(shares) != set(USUAL) or not whole:
            problem = f"must be a share above 0 of each of {', '.join(USUAL)}, 1 together, got {shares}"
            raise SettingError("shares", problem)
        self.files = Splits(path, splits, ".txt")
        check_rl(rl_share, rl_split, self.files.names)
        self.rl_share, self.rl_split = rl_share, rl_split
        self.shares, self.piece_words, self.blank_lines = shares, piece_words, blank_lines
        self.prompt_words = prompt_words
        self._splits: dict[str, list[Example]] = {}

    def splits(self) -> list[str]:
        """Returns the names of the splits: train, val, test and those of the setting `splits`. Reads no file."""
        return self.files.names

    def size(self, split: str) -> int | None:
        """Returns the number of pieces of a split; never None. The first use of a split reads all its files and keeps
        the examples in memory. Raises UserError where a file is missing or too short, a share gets no piece, or there
        is no such split."""
        return len(self._read(split))

    def example(self, split: str, index: int) -> Example:
        """Returns example `index` of a split: the stored object itself, which must not be changed. The first use of a
        split reads its files and raises UserError where one is missing or too short, a share gets no piece, or there is
        no such split. Raises IndexError past the end."""
        return self._read(split)[index]

    def _read(self, split: str) -> list[Example]:
        if split not in self._splits:
            if split in USUAL and (whole := self._undivided()):
                self._splits |= self._shared([piece for file in whole for piece in self._pieces(file)])
            else:
                files = self.files.files(split)
                self._splits[split] = _numbered([piece for file in files for piece in self._pieces(file)])
        return self._splits[split]

    def _undivided(self) -> list[Path]:
        """The files to divide into train, val and test by `shares`; none where the splits have files of their own."""
        path, named = self.files.path, self.files.named
        if any(name in named for name in USUAL):
            return []
        if path.is_file():
            return [path]
        if not path.is_dir() or any((path / f"{name}{end}").is_file() for name in USUAL for end in (".txt", ".txt.gz")):
            return []
        return Splits(str(path), {"all": "."}, ".txt").files("all")

    def _shared(self, pieces: list[Piece]) -> dict[str, list[Example]]:
        train, val = (round(len(pieces) * share) for share in accumulate((self.shares["train"], self.shares["val"])))
        parts = {"train": pieces[:train], "val": pieces[train:val], "test": pieces[val:]}
        for name, part in parts.items():
            if not part:
                problem = f"leaves {name} none of the {len(pieces)} pieces of {self.files.path}"
                raise UserError(f"dataset.shares.{name}={self.shares[name]}", problem, "shorter pieces, or more text")
        return {name: _numbered(part) for name, part in parts.items()}

    def _pieces(self, file: Path) -> Iterator[Piece]:
        """Yields (source, reference, place) for each piece of a file. Raises UserError where it is not longer than a
        prompt."""
        text = "\n".join(read_lines(file))
        words = [match.span() for match in WORD.finditer(text)]
        if len(words) <= self.prompt_words:
            problem = f"has {len(words)} words, and dataset.prompt_words={self.prompt_words} of them are the prompt"
            raise UserError(str(file), f"{problem}: nothing is left to be said")
        firsts = self._firsts(text, words)
        starts = [0, *(words[first][0] for first in firsts[1:])]
        line, counted = 1, 0  # the number of the line that a piece begins on, and the position counted up to
        for first, start, end in zip(firsts, starts, [*starts[1:], len(text)], strict=True):
            line, counted = line + text.count("\n", counted, words[first][0]), words[first][0]
            cut = words[first + self.prompt_words - 1][1] if self.prompt_words else start  # the end of the prompt
            yield text[start:cut], text[cut:end], f"{file}, line {line}"

    def _firsts(self, text: str, words: list[tuple[int, int]]) -> list[int]:
        """Index of the first word of each piece; every piece gets more words than a prompt has."""
        least = self.prompt_words + 1
        firsts, first = [0], 0
        for number in range(1, len(words)):
            blank = self.blank_lines and text.count("\n", words[number - 1][1], words[number][0]) > 1
            full = self.piece_words and number - first >= self.piece_words
            if (blank or full) and number - first >= least and len(words) - number >= least:
                firsts.append(number)
                first = number
        return firsts


Piece = tuple[str, str, str]


def _numbered(pieces: list[Piece]) -> list[Example]:
    numbered = enumerate(pieces, 1)
    return [Example(str(n), source, [rest], [rest], {}, place) for n, (source, rest, place) in numbered]
