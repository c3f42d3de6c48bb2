"""A data set of the library `datasets`: a folder that it saved, files of its formats, or a name on its hub."""

from __future__ import annotations

import csv
import glob
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tokenrl_cli import hub
from tokenrl_cli.config.build import hint
from tokenrl_cli.config.extras import require_extra
from tokenrl_cli.config.ranges import Count, Fraction, Text
from tokenrl_cli.data.lines import read_lines
from tokenrl_cli.dataset.files import ALSO, REMEDY
from tokenrl_cli.dataset.splits import USUAL, check_rl
from tokenrl_cli.interfaces import Example, SettingError, UserError

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".arrow": "arrow"}
PACKED = (".gz", ".bz2", ".xz", ".zst")
SAVED = ("dataset_dict.json", "state.json")  # files of a folder that `save_to_disk` wrote
HUB_NAME = r"[\w.-]+(/[\w.-]+)?"
PART = re.compile(r"(?P<name>.+?)(\[(?P<start>\d*)(?P<percent>%?):(?P<end>\d*)(?P<percents>%?)\])?")
BLOCK = 512  # examples that are read at once where they are read in order: 60 times as fast as one by one
OPAQUE = ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh")  # kinds of columns that no reward can read as text
SHARES = '+dataset.splits=\'{train: "train[:90%]", val: "train[90%:95%]", test: "train[95%:]"}\''


class HuggingFace:
    """Examples from a data set of the library `datasets`.

    `path` is a folder that `save_to_disk` wrote, a folder of CSV, TSV, JSON or Parquet files or one such file, or the
    name of a data set on the Hugging Face hub, of which `name` chooses a configuration. No code of a data set is run.
    All values of a CSV or TSV file are text, so that nothing in it is lost. Such a file is held in memory.

    The source is the text in `source_column` (None: all sources are empty), the references are the text or the list of
    texts in `reference_column`, or those of several such columns (None: there are none). "translation.de" is the key
    "de" in the column "translation". Other columns reach the rewards, only those that `columns` names where it is a
    list; a column `id` names the example, too. Columns of images, sound and bytes are left out.

    A split is the one of the same name, for val and test also of another usual name such as "validation", unless
    `splits` maps it to a split, a part of one such as "train[:90%]", a file or a pattern in the folder, or a list of
    these. Other examples stay on disk, memory-mapped, and are read where they are used; a UserError then names the row
    of a mistake. Raises SettingError for settings that contradict each other, for a wrong name of a split or an empty
    entry, and without the packages of the extra.
    """

    def __init__(
        self,
        path: Text,
        name: Text | None,
        splits: dict[str, str | list[str]],
        source_column: Text | None,
        reference_column: Text | list[Text] | None,
        columns: list[Text] | None,
        rl_share: Fraction,
        rl_split: Text | None,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        require_extra("hf", "", "datasets")
        self.path, self.name, self.place = path, name, Path(path).expanduser()
        self.max_source_length, self.overlong = max_source_length, overlong
        self.source_column, self.columns = source_column, columns
        several = [reference_column] if isinstance(reference_column, str) else reference_column or []
        self.reference_columns = several
        if source_column in several:
            raise SettingError("reference_column", f"must differ from {{here}}.source_column={source_column}")
        if name is not None and self.place.exists():
            raise SettingError("name", f"is for data sets of the hub, and {path} lies here", "name the folder in path")
        self.named = {split: [entry] if isinstance(entry, str) else entry for split, entry in splits.items()}
        for split, entries in self.named.items():
            if not re.fullmatch(r"\w[\w.-]*", split):
                problem = "is no name for a split: results are kept under it"
                raise SettingError(f"splits.{split}", problem, "letters, digits, _, . and -")
            if not entries or not all(entries):
                raise SettingError(f"splits.{split}", "names nothing", "a split, a file, a pattern or a list")
        check_rl(rl_share, rl_split, self.splits())
        self.rl_share, self.rl_split = rl_share, rl_split
        self._available: dict[str, Any] | None = None
        self._splits: dict[str, _Rows] = {}

    def splits(self) -> list[str]:
        """Returns the names of the splits: train, val, test and those of the setting `splits`. Reads nothing."""
        return list(dict.fromkeys([*USUAL, *self.named]))

    def size(self, split: str) -> int | None:
        """Returns the number of examples of a split; never None. The first use of a split opens it. Raises UserError
        where it is missing or cannot be read, or lacks a column."""
        return len(self._rows(split))

    def example(self, split: str, index: int) -> Example:
        """Returns example `index` of a split, read from disk and made anew at each call. Raises UserError where the
        split is missing, cannot be read or lacks a column, and where a source or a reference is no text, or a reference
        is blank, and IndexError past the end."""
        rows = self._rows(split)
        return self._example(rows[index], f"{self.path}, split {split}, row {index + 1}", str(index + 1))

    def _example(self, record: dict[str, Any], where: str, name: str) -> Example:
        source = "" if self.source_column is None else _taken(record, self.source_column)
        if not isinstance(source, str):
            raise UserError(where, f"expected text under {self.source_column!r}, got {_shown(source)}")
        references: list[str] = []
        for column in self.reference_columns:
            value = _taken(record, column)
            texts = [value] if isinstance(value, str) else [] if value is None else value
            if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
                expected = f"expected a text or a list of texts under {column!r}, none of them empty"
                raise UserError(where, f"{expected}, got {_shown(value)}", "leave such rows out of the data")
            references += texts
        columns = {key: _plain(value) for key, value in record.items() if value != {}}
        if self.columns is not None:
            columns = {key: columns[key] for key in self.columns if key in columns}
        own = record.get("id")
        return Example(name if own is None else str(own), source, references, references, columns, where)

    # ------------------------------------------------------------------------------------------------------- splits

    def _rows(self, split: str) -> _Rows:
        if split not in self._splits:
            if split not in self.splits():
                problem = f"the data set has no such split{hint(split, self.splits())}"
                raise UserError(f"split={split}", problem, f"one of {', '.join(self.splits())}")
            self._splits[split] = _Rows(self._with_columns(self._opened(split)), self.path)
        return self._splits[split]

    def _opened(self, split: str) -> Any:
        """The Dataset of a split."""
        import datasets

        if split not in self.named:
            found = self._all()
            name = next((name for name in (split, *ALSO[split]) if name in found), None)
            if name is None:
                problem = f"has no split {split!r}; it has {', '.join(found)}"
                raise UserError(self.path, problem, f"+dataset.splits.{split}=NAME, or parts of one split: {SHARES}")
            return self._loaded(found[name])
        parts = [self._part(entry, f"dataset.splits.{split}={entry}") for entry in self.named[split]]
        try:
            return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
        except (ValueError, TypeError) as error:
            where = f"dataset.splits.{split}"
            raise UserError(where, f"its parts differ in their columns: {error}") from None

    def _part(self, entry: str, where: str) -> Any:
        """The Dataset that one entry of `splits` names."""
        match = PART.fullmatch(entry)
        found = self._all()
        if entry in found or match is None:
            match = re.fullmatch(r"(?P<name>.+)(?P<start>)(?P<percent>)(?P<end>)(?P<percents>)", entry)
        assert match is not None
        if match["name"] in found:
            whole = self._loaded(found[match["name"]])
        else:
            files = self._files(entry) or self._files(match["name"])
            if not files:
                problem = f"is neither a split of {self.path} ({', '.join(found)}) nor a file there"
                raise UserError(where, problem + hint(match["name"], found))
            whole = self._loaded(files)
        start, end = _edge(match["start"], match["percent"], len(whole), 0), len(whole)
        end = _edge(match["end"], match["percents"], len(whole), end)
        rows = range(start, min(end, len(whole)))
        return whole.select(rows if rows else [])

    def _files(self, pattern: str) -> list[Path]:
        """The files that an entry of `splits` names, relative to the folder of the data, sorted."""
        folder = self.place.parent if self.place.is_file() else self.place
        if (folder / pattern).is_file():
            return [folder / pattern]
        matches = glob.glob(str(Path(glob.escape(str(folder))) / pattern), recursive=True)
        return sorted(Path(match) for match in matches if _format(Path(match)) and Path(match).is_file())

    def _all(self) -> dict[str, Any]:
        """What each split by its own name is read from: a Dataset, or a list of files."""
        if self._available is None:
            self._available = self._found()
        return self._available

    def _found(self) -> dict[str, Any]:
        if self.place.is_file():
            return {"train": [self.place]}
        if not self.place.is_dir():
            return self._of_hub()
        if any((self.place / name).is_file() for name in SAVED):
            import datasets

            with _reading(str(self.path)):
                loaded = datasets.load_from_disk(str(self.place))
            return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
        files = sorted(path for path in self.place.rglob("*") if _format(path) and path.is_file())
        files = [path for path in files if not any(part[0] == "." for part in path.relative_to(self.place).parts)]
        if not files:
            problem = f"has no file that can be read ({', '.join(FORMATS)}), and was not written by save_to_disk"
            if any(self.place.glob("*.py")):
                problem += "; a data set made by a script is not read, for its code would have to be run"
            raise UserError(self.path, problem, "in Python: datasets.load_dataset(...).save_to_disk(DIR)")
        found: dict[str, Any] = {}
        for path in files:
            found.setdefault(_split_of(path.relative_to(self.place)), []).append(path)
        return found

    def _of_hub(self) -> dict[str, Any]:
        """The splits of a data set of the hub, downloaded or from the library's cache."""
        if not re.fullmatch(HUB_NAME, self.path) or _format(self.place):
            raise UserError(self.path, "there is no such file or folder", REMEDY)
        import datasets

        given = f"{self.path!r}, {self.name!r}" if self.name else f"{self.path!r}"
        remedy = f"with a network: datasets.load_dataset({given}).save_to_disk(DIR); then dataset.path=DIR"
        silence, before = hub.unreachable(), datasets.config.HF_HUB_OFFLINE
        problem = f"there is no such folder, and it cannot be read from the Hugging Face hub{silence and ': '}{silence}"
        datasets.config.HF_HUB_OFFLINE = before or bool(silence)  # then the library reads its cache at once
        try:
            with _reading(self.path, problem, remedy):
                return dict(datasets.load_dataset(self.path, self.name))
        finally:
            datasets.config.HF_HUB_OFFLINE = before

    def _loaded(self, found: Any) -> Any:
        """The Dataset behind a value of `_all`."""
        if not isinstance(found, list):
            return found
        import datasets

        kinds = {_format(path) for path in found}
        if len(kinds) > 1 or "" in kinds:
            problem = f"are of different or unknown kinds; expected one of {', '.join(FORMATS)}"
            raise UserError(", ".join(map(str, found[:3])), problem, "name the files of a split: +dataset.splits.train")
        if kinds == {"csv"}:
            return _of_columns(found)
        names = [glob.escape(str(path)) for path in found]
        with _reading(", ".join(map(str, found[:3]))):
            return datasets.load_dataset(kinds.pop(), data_files=names, split="train")

    def _with_columns(self, whole: Any) -> Any:
        """A Dataset without columns that cannot be read. Raises UserError where one that is named is missing."""
        features = whole.features
        wanted = [*([self.source_column] if self.source_column else []), *self.reference_columns, *(self.columns or [])]
        for column in wanted:
            if column not in features and column.partition(".")[0] not in features:
                problem = f"has no column {column!r}{hint(column, features)}"
                remedy = (
                    "dataset.source_column and dataset.reference_column name columns; translation.de leads into one"
                )
                raise UserError(self.path, f"{problem}; it has {', '.join(features)}", remedy)
        used = {column if column in features else column.partition(".")[0] for column in [*wanted, "id"]}
        kept = [
            key
            for key, feature in features.items()
            if type(feature).__name__ not in OPAQUE and (self.columns is None or key in used)
        ]
        return whole.select_columns(kept).with_format("arrow")


class _Rows:
    """The rows of a Dataset as dictionaries of plain values. Rows that are read in order are read BLOCK at a time."""

    def __init__(self, table: Any, path: str) -> None:
        self._table, self._path = table, path
        self._start, self._block, self._next = 0, list[dict[str, Any]](), 0

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        in_order, self._next = index == self._next, index + 1
        if not self._start <= index < self._start + len(self._block):
            many = BLOCK if in_order else 1
            with _reading(self._path):
                found = self._table[index : min(index + many, len(self))].to_pylist()
            if not in_order:
                return dict(found[0])
            self._start, self._block = index, found
        return dict(self._block[index - self._start])


# -------------------------------------------------------------------------------------------------------------- files


def _format(path: Path) -> str:
    """The kind of a file, judging by its name: "csv", "json", "parquet", "arrow", or "" for another."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in PACKED]
    return FORMATS.get(suffixes[-1].lower(), "") if suffixes else ""


def _split_of(path: Path) -> str:
    """The split that a file belongs to: by the beginning of its name, such as train-00000-of-00002.parquet, else by the
    folder it lies in; else the name itself."""
    begin = re.split(r"[-._]", path.name.lower())[0]
    for name in (begin, path.parent.name.lower()):
        if split := next((split for split, names in ALSO.items() if name in names), None):
            return split
    return begin


def _of_columns(files: list[Path]) -> Any:
    """The Dataset of CSV or TSV files, in memory. The library would guess types ("007" a number, "NA" nothing), and
    take the first column for an index where a line has a field too many."""
    import datasets

    names: list[str] = []
    values: list[list[str]] = []
    for file in files:
        lines = _fields(file)
        _, header = next(lines, (1, []))
        if not header or len(set(header)) < len(header) or not all(header):
            problem = f"must begin with the names of its columns, each once; it begins with {_shown(header)}"
            raise UserError(f"{file}, line 1", problem)
        if names and header != names:
            raise UserError(f"{file}, line 1", f"has the columns {_shown(header)}, and {files[0]} has {_shown(names)}")
        names = header
        for number, row in lines:
            if len(row) != len(names):
                raise UserError(f"{file}, line {number}", f"has {len(row)} fields, expected {len(names)}")
            values.append(row)
    features = datasets.Features({name: datasets.Value("string") for name in names})
    columns = zip(*values, strict=True) if values else [()] * len(names)
    return datasets.Dataset.from_dict(dict(zip(names, map(list, columns), strict=True)), features=features)


def _fields(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields (number, fields) of each line of a CSV or TSV file that is not blank. A field in the quotes of CSV may
    have several lines, of which the last has the number; a TSV file has no quotes."""
    if ".tsv" in [suffix.lower() for suffix in file.suffixes]:
        yield from ((number, line.split("\t")) for number, line in enumerate(read_lines(file), 1) if line.strip())
        return
    longest = csv.field_size_limit(2**31 - 1)
    try:
        reader = csv.reader((line + "\n" for line in read_lines(file)), strict=True)
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise UserError(f"{file}, line {reader.line_num}", f"is not CSV: {error}") from None
    finally:
        csv.field_size_limit(longest)


def _edge(number: str, percent: str, size: int, default: int) -> int:
    """The row at which a part of a split of `size` rows begins or ends."""
    if not number:
        return default
    return round(size * int(number) / 100) if percent else int(number)


@contextmanager
def _reading(where: str, problem: str = "cannot be read", remedy: str = "") -> Iterator[None]:
    """A context in which the library shows no progress, and its errors become a UserError."""
    import datasets
    from huggingface_hub.utils import logging as of_hub

    shown, levels = datasets.are_progress_bars_disabled(), (datasets.logging.get_verbosity(), of_hub.get_verbosity())
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    of_hub.set_verbosity(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # it raises those of pyarrow, pandas, the network, the disk, and many of its own
        cause = f"{type(error).__name__}: {str(error.__cause__ or error).strip().partition(chr(10))[0]}"
        raise UserError(where, f"{problem}: {cause}", remedy) from None
    finally:
        if not shown:
            datasets.enable_progress_bars()
        datasets.logging.set_verbosity(levels[0])
        of_hub.set_verbosity(levels[1])


# ------------------------------------------------------------------------------------------------------------- values


def _taken(record: dict[str, Any], column: str) -> Any:
    """Removes the value of a column from a record and returns it; "a.b" is the key "b" in the column "a", unless there
    is a column of that name. None where there is no such key."""
    if column in record:
        return record.pop(column)
    first, _, rest = column.partition(".")
    inner = record.get(first)
    if not rest or not isinstance(inner, dict):
        return None
    record[first] = dict(inner)
    return _taken(record[first], rest)


def _plain(value: Any) -> Any:
    """A value of a column as JSON can hold it: dates and the like as text, bytes as None."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return None if isinstance(value, bytes) else str(value)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
