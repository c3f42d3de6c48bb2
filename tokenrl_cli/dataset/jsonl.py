"""Examples as JSON objects, one a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tokenrl_cli.dataset.files import check_limits, find, read_lines
from tokenrl_cli.interfaces import Example, UserError
from tokenrl_cli.lines import json_object, shown


class Jsonl:
    """`path/{train,val,test}.jsonl[.gz]`: a string under `source_column`, under `reference_column` a list of one or
    more equally valid targets, perhaps an `id`; whatever else stands there goes to the rewards as columns.

    With `reverse`, every reference becomes the source of an example whose references are the sources it stood with;
    its columns are those of the first. Blank lines are passed over. A split is read when it is first asked for.
    """

    def __init__(
        self,
        path: str,
        source_column: str,
        reference_column: str,
        reverse: bool,
        max_source_length: int,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        check_limits(max_source_length, overlong)
        self.max_source_length, self.overlong = max_source_length, overlong
        self.path = Path(path).expanduser()
        self.source_column, self.reference_column, self.reverse = source_column, reference_column, reverse
        self._splits: dict[str, list[Example]] = {}

    def size(self, split: str) -> int | None:
        return len(self._read(split))

    def example(self, split: str, index: int) -> Example:
        return self._read(split)[index]

    def _read(self, split: str) -> list[Example]:
        if split not in self._splits:
            path = find(self.path, f"{split}.jsonl")
            examples = list(self._parsed(path))
            keys = dict.fromkeys(key for example in examples for key in example.columns)
            for example in examples:  # the same columns everywhere: what a line lacks is None
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
        source, references = columns.pop(self.source_column, None), columns.pop(self.reference_column, None)
        if not isinstance(source, str):
            raise UserError(where, f"expected a string under {self.source_column!r}, got {shown(source)}")
        good = isinstance(references, list) and all(isinstance(text, str) and text.strip() for text in references)
        if not (good and references):
            expected = f"expected a list of one or more non-empty strings under {self.reference_column!r}"
            raise UserError(where, f"{expected}, got {shown(references)}")
        return Example(str(columns.pop("id", name)), source, references, references, columns)


def _reversed(examples: list[Example]) -> list[Example]:
    found: dict[str, Example] = {}
    for example in examples:
        for k, reference in enumerate(example.references):
            if reference not in found:
                sources: list[str] = []
                found[reference] = Example(f"{example.id}.{k}", reference, sources, sources, example.columns)
            if example.source not in found[reference].references:
                found[reference].references.append(example.source)
    return list(found.values())
