"""Two aligned text files: line n of one is the translation of line n of the other."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tokenrl_cli.dataset.files import check_limits, find, read_lines
from tokenrl_cli.interfaces import Example, UserError
from tokenrl_cli.ranges import Count, Text


class Parallel:
    """`path/{train,val,test}.SUFFIX[.gz]` with one suffix for sources and one for targets; one reference an example.

    A split is read when it is first asked for.
    """

    def __init__(
        self,
        path: Text,
        source_suffix: Text,
        target_suffix: Text,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        check_limits(max_source_length, overlong)
        self.max_source_length, self.overlong = max_source_length, overlong
        if source_suffix == target_suffix:
            raise UserError("dataset.target_suffix", f"must differ from dataset.source_suffix={source_suffix}")
        self.path, self.suffixes = Path(path).expanduser(), (source_suffix, target_suffix)
        self._splits: dict[str, list[tuple[str, str]]] = {}

    def size(self, split: str) -> int | None:
        return len(self._read(split))

    def example(self, split: str, index: int) -> Example:
        source, target = self._read(split)[index]
        return Example(str(index + 1), source, [target], [target], {})

    def _read(self, split: str) -> list[tuple[str, str]]:
        if split not in self._splits:
            paths = [find(self.path, f"{split}.{suffix}") for suffix in self.suffixes]
            sides = [read_lines(path) for path in paths]
            if len(sides[0]) != len(sides[1]):
                lengths = f"it has {len(sides[0]):,} lines, {paths[1].name} has {len(sides[1]):,}"
                raise UserError(str(paths[0]), f"{lengths}: expected line n of both to belong together")
            for path, lines in zip(paths, sides, strict=True):
                for number, line in enumerate(lines, 1):
                    if not line.strip():
                        where = f"{path}, line {number}"
                        raise UserError(where, "is empty: expected a text", "remove the line on both sides")
            self._splits[split] = list(zip(*sides, strict=True))
        return self._splits[split]
