"""A data set of JSON objects, one example a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tokenrl_cli.config.ranges import Count, Fraction, Text
from tokenrl_cli.data.detokenize import detokenized
from tokenrl_cli.data.lines import json_object, shown
from tokenrl_cli.dataset.files import read_lines
from tokenrl_cli.dataset.splits import Splits, check_rl
from tokenrl_cli.interfaces import Example, SettingError, UserError


class Jsonl:
    """Examples from files with one JSON object a line.

    The source is the string under `source_column`, the references are the list of equally valid targets under
    `reference_column`, which are the demonstrations, too, and all other keys become columns that rewards may read, None
    where a line lacks one; a key `id` names the example, too. An empty or missing list makes a prompt without
    reference. With `source_column` null every source is empty (unconditional text). Blank lines are skipped.

    The files of a split are found by `dataset/splits.py`; by default they are `path/{train,val,test}.jsonl[.gz]`. With
    `reverse`, every distinct reference becomes a source, whose references are the sources of the examples that had it;
    its columns are those of the first such example. With `detokenize` sources and references, but no columns, are
    joined from tokens of English text (`data/detokenize.py`). A split is read when it is first used; a UserError then
    names the line of a mistake. Raises SettingError for settings that contradict each other.
    """

    def __init__(
        self,
        path: Text,
        splits: dict[str, str | list[str]],
        source_column: Text | None,
        reference_column: Text,
        reverse: bool,
        detokenize: bool,
        rl_share: Fraction,
        rl_split: Text | None,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        if source_column == reference_column:
            raise SettingError("reference_column", f"must differ from {{here}}.source_column={source_column}")
        self.max_source_length, self.overlong = max_source_length, overlong
        self.files = Splits(path, splits, ".jsonl")
        check_rl(rl_share, rl_split, self.files.names)
        self.rl_share, self.rl_split = rl_share, rl_split
        if reverse and source_column is None:
            problem = "makes sources into references, and with {here}.source_column=null there are none"
            raise SettingError("reverse", problem, "{here}.reverse=false, or name the column of the sources")
        self.source_column, self.reference_column, self.reverse = source_column, reference_column, reverse
        self.detokenize = detokenize
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
            examples = [example for file in self.files.files(split) for example in self._parsed(file)]
            keys = dict.fromkeys(key for example in examples for key in example.columns)
            for example in examples:  # all examples get the same columns, None where a line lacks one
                example.columns.update({key: None for key in keys if key not in example.columns})
            self._splits[split] = _reversed(examples) if self.reverse else examples
        return self._splits[split]

    def _parsed(self, path: Path) -> Iterator[Example]:
        for number, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            yield self._example(json_object(line, where), where, str(number))

    def _example(self, record: dict[str, Any], where: str, name: str) -> Example:
        columns = dict(record)
        source = "" if self.source_column is None else columns.pop(self.source_column, None)
        references = columns.pop(self.reference_column, None)
        if not isinstance(source, str):
            raise UserError(where, f"expected a string under {self.source_column!r}, got {shown(source)}")
        if references is None:
            references = []
        if not (isinstance(references, list) and all(isinstance(text, str) and text.strip() for text in references)):
            expected = f"expected a list of non-empty strings under {self.reference_column!r}"
            raise UserError(where, f"{expected}, got {shown(references)}")
        if self.reverse and not (references and source.strip()):
            lacking = "references to make sources of" if not references else "source to make a reference of"
            raise UserError(
                where, f"has no {lacking}, as dataset.reverse=true does", "remove the line, or reverse=false"
            )
        if self.detokenize:
            source, references = detokenized(source), [detokenized(text) for text in references]
        own = columns.get("id")  # a column, too: a reward may look something up by it
        return Example(name if own is None else str(own), source, references, references, columns, where)


def _reversed(examples: list[Example]) -> list[Example]:
    """One example for each distinct reference, with source and references exchanged."""
    found: dict[str, Example] = {}
    for example in examples:
        for k, reference in enumerate(example.references):
            if reference not in found:
                sources: list[str] = []
                found[reference] = Example(
                    f"{example.id}.{k}", reference, sources, sources, example.columns, example.place
                )
            if str(example.source) not in found[reference].references:
                found[reference].references.append(str(example.source))
    return list(found.values())
