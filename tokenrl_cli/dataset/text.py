"""Plain text, cut into pieces: the beginning of each is the prompt, what follows is the reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

from tokenrl_cli.config.ranges import Count, CountOrNone, Filled, Fraction
from tokenrl_cli.dataset.files import read_lines
from tokenrl_cli.dataset.splits import USUAL, Splits, check_rl
from tokenrl_cli.interfaces import Example, SettingError, UserError

WORD = re.compile(r"\S+")


class Text:
    """Pieces of at most `piece_words` words (0: of any length), with `blank_lines` also cut at every blank line.

    The source of a piece is its first `prompt_words` words, the one reference is the rest with the white space before
    it; without a prompt the source is empty, and the task is unconditional text. A piece too short to leave a rest goes
    to a neighbour. Nothing is lost: the sources and references of a file, one after the other, are its text, the end of
    its last line left out; white space between two pieces ends the first.

    Splits are files as in `dataset/splits.py`. Where `path` is a file, or a folder with none of train, val and test
    .txt[.gz] in it, all its text is cut in three by `shares`: the first pieces are train, the next val, the last test.
    """

    def __init__(
        self,
        path: Annotated[str, Filled()],
        splits: dict[str, str | list[str]],
        shares: dict[str, float],
        piece_words: CountOrNone,
        blank_lines: bool,
        prompt_words: CountOrNone,
        rl_share: Fraction,
        rl_split: Annotated[str, Filled()] | None,
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
        return self.files.names

    def size(self, split: str) -> int | None:
        return len(self._read(split))

    def example(self, split: str, index: int) -> Example:
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
        """The files that are to be cut in three; none where splits are files of their own."""
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
        """(source, reference, place) of each piece of a file. Raises UserError where it has no more than a prompt."""
        text = "\n".join(read_lines(file))
        words = [match.span() for match in WORD.finditer(text)]
        if len(words) <= self.prompt_words:
            problem = f"has {len(words)} words, and dataset.prompt_words={self.prompt_words} of them are the prompt"
            raise UserError(str(file), f"{problem}: nothing is left to be said")
        firsts = self._firsts(text, words)
        starts = [0, *(words[first][0] for first in firsts[1:])]
        line, counted = 1, 0
        for first, start, end in zip(firsts, starts, [*starts[1:], len(text)], strict=True):
            line, counted = line + text.count("\n", counted, words[first][0]), words[first][0]
            said = words[first + self.prompt_words - 1][1] if self.prompt_words else start
            yield text[start:said], text[said:end], f"{file}, line {line}"

    def _firsts(self, text: str, words: list[tuple[int, int]]) -> list[int]:
        """The number of the first word of each piece; each has more words than a prompt."""
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
