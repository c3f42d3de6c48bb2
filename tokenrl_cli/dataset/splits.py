"""Which files a split of a data set is read from, and which of its examples RL draws."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from tokenrl_cli.config.build import hint
from tokenrl_cli.dataset.files import REMEDY, find
from tokenrl_cli.interfaces import SettingError, UserError

USUAL = ("train", "val", "test")


class Splits:
    """The files of each split of a data set.

    `named` maps a split to a file, a folder, a pattern or a list of these, relative to `path`. Where it does not name
    train, val or test, their file is `path/NAME` + `suffix`, with or without .gz. An entry may leave out `suffix` and
    .gz. A folder means its files that end in `suffix` or in `suffix` and .gz, without hidden ones; a pattern (*, ?,
    [abc], **) its matches with such an end, or if there are none all its matches. Both are sorted by name, and of a
    file that is there plain and packed only the plain one is read. A list is read in its own order. Raises SettingError
    for a wrong name of a split and for an empty entry; no file is looked for before `files` is called.
    """

    def __init__(self, path: str, named: dict[str, str | list[str]], suffix: str) -> None:
        self.path, self.suffix = Path(path).expanduser(), suffix
        self.named = {name: [entry] if isinstance(entry, str) else entry for name, entry in named.items()}
        for name, entries in self.named.items():
            if not re.fullmatch(r"\w[\w.-]*", name):
                problem = "is no name for a split: results are kept under it"
                raise SettingError(f"splits.{name}", problem, "letters, digits, _, . and -")
            if not entries or not all(entries):
                raise SettingError(f"splits.{name}", "names no file", "a file, a folder, a pattern or a list")

    @property
    def names(self) -> list[str]:
        """The names of the splits: train, val, test and those of `named`, whether or not there are files."""
        return list(dict.fromkeys([*USUAL, *self.named]))

    def files(self, split: str) -> list[Path]:
        """Returns the files of a split, in the order in which they are read. Raises UserError where a file, folder or
        pattern of `named` matches no file, the file of an unnamed train, val or test is missing, or there is no such
        split."""
        if split in self.named:
            return [file for entry in self.named[split] for file in self._entry(entry, split)]
        if split in USUAL:
            return [find(self.path, f"{split}{self.suffix}")]
        problem = f"the data set has no such split{hint(split, self.names)}"
        raise UserError(f"split={split}", problem, f"one of {', '.join(self.names)}; dataset.splits names others")

    def _entry(self, entry: str, split: str) -> list[Path]:
        """The files of one entry: a folder, a file, or else a pattern."""
        place = self.path / Path(entry).expanduser()
        where = f"dataset.splits.{split}={entry}"
        if place.is_dir():
            found = self._suffixed(place.iterdir())
            if not found:
                raise UserError(where, f"there is no file in {place} that ends in {self.suffix} or {self.suffix}.gz")
            return found
        for end in (self.suffix, f"{self.suffix}.gz", "", ".gz"):
            if (file := place.with_name(place.name + end)).is_file():
                return [file]
        if not glob.has_magic(entry):
            raise UserError(where, f"there is no file {place}, with or without {self.suffix} and .gz", REMEDY)
        pattern = str(Path(glob.escape(str(self.path))) / Path(entry).expanduser())
        for end in ("", self.suffix, f"{self.suffix}.gz"):
            matches = [Path(match) for match in glob.glob(pattern + end, recursive=True)]
            if found := self._suffixed(matches) or sorted(match for match in matches if match.is_file()):
                return found
        raise UserError(where, f"no file is called like {place}", REMEDY)

    def _suffixed(self, files: Iterable[Path]) -> list[Path]:
        """Those of the files that end in the suffix or in it and .gz, sorted; if both exist, only the plain one."""
        found = [each for each in files if each.is_file() and not each.name.startswith(".")]
        plain = [each for each in found if each.name.endswith(self.suffix)]
        packed = [each for each in found if each.name.endswith(f"{self.suffix}.gz")]
        return sorted([*plain, *(each for each in packed if each.with_suffix("") not in plain)])


def check_rl(rl_share: float, rl_split: str | None, names: list[str]) -> None:
    """Raises SettingError where `rl_split` is not one of `names`, is val or test, or stands beside an `rl_share` above
    0. Without `rl_split` nothing is checked."""
    if rl_split is None:
        return
    if rl_split not in names:
        problem = f"the data set has no such split{hint(rl_split, names)}"
        raise SettingError(f"rl_split={rl_split}", problem, f"one of {', '.join(names)}; {{here}}.splits names others")
    if rl_split in ("val", "test"):
        raise SettingError(f"rl_split={rl_split}", "is what a run is measured on", "name a split of its own")
    if rl_share:
        problem = f"RL draws from the split {rl_split}: there is no share of train to keep for it"
        raise SettingError("rl_share", problem, "leave one of {here}.rl_share and {here}.rl_split out")
