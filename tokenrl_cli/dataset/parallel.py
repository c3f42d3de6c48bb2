"""A data set of two aligned text files: line n of one is the translation of line n of the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tokenrl_cli.config.ranges import Count, Fraction, Text
from tokenrl_cli.dataset.files import find, read_lines
from tokenrl_cli.dataset.splits import Splits, check_rl
from tokenrl_cli.interfaces import Example, SettingError, UserError


class Parallel:
    """Examples from pairs of text files that differ in their suffix: one source a line of the first, its one reference,
    the demonstration, too, on the same line of the second.

    The files of sources of a split are found by `dataset/splits.py`, whose entries may leave out the suffix; by default
    they are `path/{train,val,test}.SUFFIX[.gz]`. A split is read when it is first used; a UserError then says where the
    two files have different numbers of lines, or a line is blank. Raises SettingError for suffixes that are equal or
    contain "/".
    """

    def __init__(
        self,
        path: Text,
        splits: dict[str, str | list[str]],
        source_suffix: Text,
        target_suffix: Text,
        rl_share: Fraction,
        rl_split: Text | None,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        self.max_source_length, self.overlong = max_source_length, overlong
        for name, suffix in (("source_suffix", source_suffix), ("target_suffix", target_suffix)):
            if "/" in suffix:
                raise SettingError(f"{name}={suffix}", "must be the end of a file's name, without a folder")
        if source_suffix == target_suffix:
            raise SettingError("target_suffix", f"must differ from {{here}}.source_suffix={source_suffix}")
        self.suffixes = source_suffix, target_suffix
        self.files = Splits(path, splits, f".{source_suffix}")
        check_rl(rl_share, rl_split, self.files.names)
        self.rl_share, self.rl_split = rl_share, rl_split
        self._splits: dict[str, list[Example]] = {}

    def splits(self) -> list[str]:
        """Returns the names of the splits: train, val, test and those of the setting `splits`. Reads no file."""
        return self.files.names

    def size(self, split: str) -> int | None:
        """Returns the number of examples of a split; never None. The first use of a split reads all its files and keeps
        the examples in memory. Raises UserError where a file is missing or has a mistake, or there is no such split."""
        return len(self._read(split))

    def example(self, split: str, index: int) -> Example:
        """Returns example `index` of a split: the stored object itself, which must not be changed. The first use of a
        split reads its files and raises UserError where one is missing or has a mistake, or there is no such split.
        Raises IndexError past the end."""
        return self._read(split)[index]

    def _read(self, split: str) -> list[Example]:
        if split not in self._splits:
            pairs = [pair for file in self.files.files(split) for pair in self._pairs(file)]
            self._splits[split] = [
                Example(str(number), source, [target], [target], {}, place)
                for number, (source, target, place) in enumerate(pairs, 1)
            ]
        return self._splits[split]

    def _pairs(self, sources: Path) -> Iterator[tuple[str, str, str]]:
        """Yields (source, target, place) for each line of a file of sources and of the file of targets beside it."""
        paths = [sources, self._beside(sources)]
        sides = [read_lines(path) for path in paths]
        if len(sides[0]) != len(sides[1]):
            lengths = f"it has {len(sides[0]):,} lines, {paths[1].name} has {len(sides[1]):,}"
            raise UserError(str(paths[0]), f"{lengths}: expected line n of both to belong together")
        for path, lines in zip(paths, sides, strict=True):
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    where = f"{path}, line {number}"
                    raise UserError(where, "is empty: expected a text", "remove the line on both sides")
        for number, (source, target) in enumerate(zip(*sides, strict=True), 1):
            yield source, target, f"{sources}, line {number}"

    def _beside(self, sources: Path) -> Path:
        """The file of targets of a file of sources: the same name with the other suffix."""
        source, target = self.suffixes
        name = sources.name.removesuffix(".gz")
        if not name.endswith(f".{source}"):
            problem = f"must end in .{source}, as dataset.source_suffix={source} says: its targets end in .{target}"
            raise UserError(str(sources), problem, "set the suffixes, or rename the files")
        return find(sources.parent, name.removesuffix(source) + target)
