"""A data set of recordings and their transcripts, listed in manifests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tokenrl_cli.config.build import hint
from tokenrl_cli.config.ranges import Count, Fraction, Positive, Text
from tokenrl_cli.data.audio import AudioFile, Header, header, joined, piece, read_audio, require_sound
from tokenrl_cli.data.lines import json_object, shown
from tokenrl_cli.dataset.arrays import Arrays
from tokenrl_cli.dataset.files import read_lines
from tokenrl_cli.dataset.splits import Splits, check_rl
from tokenrl_cli.interfaces import Example, Recording, SettingError, UserError, Waveform

SPEAKER = "speaker"  # the column by which evaluations report errors
LONGEST = 1e9  # seconds or milliseconds that a manifest may name


class Speech:
    """Recordings with their transcripts, from manifests with one example a line.

    A manifest is a file of JSON objects, or of values divided by tabs below a line with their names (`format`). Under
    `audio_column` stands a file, or in JSON a list of files that are joined, with as many milliseconds of silence
    between them as `gaps_column` says (a number, or one for each gap; without it 0); files are relative to the folder
    of the manifest, or to `audio_root`, a folder or a zip file. `offset_column` and `duration_column` (seconds), where
    a line has them, choose a piece of a long file. Under `text_column` stands the transcript, or in JSON a list of
    equally valid ones, which are the demonstrations, too. An empty transcript is that of a recording without speech. An
    empty list, or null, makes a recording without reference. All other columns become columns that rewards may read,
    None where a line lacks one. The value of `speaker_column` is the column "speaker", too; `id_column` names the
    example, too, without it the number of the line does.

    With `arrays` there is no audio: NAME.npz beside the manifest NAME.jsonl holds the frames of all its examples one
    after another [frames, F] under this name, and `offsets`: example k has the frames offsets[k] to offsets[k + 1].

    The files of a split are found by `dataset/splits.py`. When a split is first used, the header of every file is
    read. One that is missing, empty, not audio, cut short or longer than `max_seconds` is refused with a UserError that
    names line and file and counts the others, or with `faulty` skip left out: then all sound is read at once, so that
    silence and what only reading shows is left out, too. Raises SettingError for settings that contradict each other.
    """

    def __init__(
        self,
        path: Text,
        splits: dict[str, str | list[str]],
        format: Literal["jsonl", "tsv"],
        audio_root: Text | None,
        audio_column: Text,
        text_column: Text,
        id_column: Text | None,
        speaker_column: Text | None,
        offset_column: Text | None,
        duration_column: Text | None,
        gaps_column: Text | None,
        arrays: Text | None,
        max_seconds: Positive,
        faulty: Literal["refuse", "skip"],
        rl_share: Fraction,
        rl_split: Text | None,
        max_source_length: Count,
        overlong: Literal["truncate", "drop"],
    ) -> None:
        self.max_source_length, self.overlong = max_source_length, overlong
        self.files = Splits(path, splits, f".{format}")
        check_rl(rl_share, rl_split, self.files.names)
        self.rl_share, self.rl_split = rl_share, rl_split
        if arrays and audio_root:
            problem = "says where audio lies, and with {here}.arrays frames are read, which lie beside the manifest"
            raise SettingError("audio_root", problem, "leave one of them out")
        self.format, self.arrays, self.max_seconds, self.faulty = format, arrays, max_seconds, faulty
        self.root = None if audio_root is None else self.files.path / Path(audio_root).expanduser()
        self.audio, self.text, self.id, self.speaker = audio_column, text_column, id_column, speaker_column
        self.offset, self.duration, self.gaps = offset_column, duration_column, gaps_column
        self.faults: dict[str, list[UserError]] = {}  # of each split read: one for each example that was left out
        self._splits: dict[str, list[Example]] = {}

    def splits(self) -> list[str]:
        """Returns the names of the splits: train, val, test and those of the setting `splits`. Reads no file."""
        return self.files.names

    def size(self, split: str) -> int | None:
        """Returns the number of examples of a split, less those left out; never None. The first use of a split reads
        its manifests and the headers of all files. Raises UserError where one is missing or has a mistake, there is no
        such split, or nothing is left."""
        return len(self._read(split))

    def example(self, split: str, index: int) -> Example:
        """Returns example `index` of a split: the stored object itself, which must not be changed. Its source is a
        Recording, which is read when it is used. Raises as `size` does, and IndexError past the end."""
        return self._read(split)[index]

    def _read(self, split: str) -> list[Example]:
        if split not in self._splits:
            known: dict[AudioFile, Header | UserError] = {}
            examples: list[Example] = []
            faults: list[UserError] = []
            for manifest in self.files.files(split):
                for example, check in self._parsed(manifest):
                    try:
                        check(known)
                        if self.faulty == "skip" and isinstance(example.source, Recording):
                            example.source.read()
                    except SettingError:  # a package is missing: no fault of the file
                        raise
                    except UserError as error:
                        faults.append(error)
                    else:
                        examples.append(example)
            self._judge(split, faults, examples)
            keys = dict.fromkeys(key for example in examples for key in example.columns)
            for example in examples:  # all examples get the same columns, None where a line lacks one
                example.columns.update({key: None for key in keys if key not in example.columns})
            self.faults[split], self._splits[split] = faults, examples
        return self._splits[split]

    def _judge(self, split: str, faults: list[UserError], examples: list[Example]) -> None:
        """Raises UserError for the first of the faults where faults are refused, or nothing else is left."""
        if not faults or (self.faulty == "skip" and examples):
            return
        others = f"; {len(faults) - 1:,} further examples of {split} have faults" if len(faults) > 1 else ""
        remedy = faults[0].remedy or "correct the manifest or the file"
        remedy += "" if self.faulty == "skip" else ", or leave such examples out: dataset.faulty=skip"
        raise UserError(faults[0].where, faults[0].problem + others, remedy)

    def _parsed(self, manifest: Path) -> Iterator[tuple[Example, Check]]:
        """The examples of a manifest, each with what looks at its files."""
        records = list(_tsv(manifest) if self.format == "tsv" else _jsonl(manifest))
        arrays = Arrays(manifest, self.arrays, len(records)) if self.arrays else None
        for k, (where, number, record) in enumerate(records):
            columns = dict(record)
            if self.speaker and self.speaker in columns:
                columns = {SPEAKER: columns[self.speaker]} | columns
            own = columns.get(self.id) if self.id else None
            shown_id = "" if own is None else f"{own} "
            references = self._references(columns, where)
            if arrays:
                name = self._relative(arrays.path)
                recording = Recording(f"{shown_id}{name}[{k}]", partial(arrays.read, k, where))
                check: Check = partial(arrays.check, k, where)
            else:
                clip = self._clip(columns, manifest, where)
                recording = Recording(f"{shown_id}{self._name(clip)}", clip.read)
                check = partial(clip.check, max_seconds=self.max_seconds)
            example_id = str(number) if own is None else str(own)
            yield Example(example_id, recording, references, references, columns, where), check

    def _references(self, columns: dict[str, Any], where: str) -> list[str]:
        value = _taken(columns, self.text, where, "text_column")
        references = [] if value is None else [value] if isinstance(value, str) else value
        if not (isinstance(references, list) and all(isinstance(text, str) for text in references)):
            expected = f"expected a string or a list of strings under {self.text!r}"
            raise UserError(where, f"{expected}, got {shown(value)}")
        return ["" if not text.strip() else text for text in references]

    def _clip(self, columns: dict[str, Any], manifest: Path, where: str) -> Clip:
        value = _taken(columns, self.audio, where, "audio_column")
        names = [value] if isinstance(value, str) else value
        if not (isinstance(names, list) and names and all(isinstance(name, str) and name for name in names)):
            expected = f"expected a file or a list of files under {self.audio!r}"
            raise UserError(where, f"{expected}, got {shown(value)}")
        offset = _seconds(columns, self.offset, where)
        duration = _seconds(columns, self.duration, where)
        if len(names) > 1 and (offset or duration is not None):
            raise UserError(where, f"has {len(names)} files to join, and {self.offset or self.duration} for one file")
        gaps = columns.pop(self.gaps, None) if self.gaps else None
        gaps = [0.0 if gaps is None or gaps == "" else gaps] * (len(names) - 1) if not isinstance(gaps, list) else gaps
        if len(gaps) != len(names) - 1 or not all(_is_length(gap) for gap in gaps):
            expected = f"expected milliseconds under {self.gaps!r}, for {len(names) - 1} gaps of {len(names)} files"
            raise UserError(where, f"{expected}, got {shown(gaps)}")
        return Clip(tuple(self._file(name, manifest) for name in names), tuple(gaps), offset or 0.0, duration, where)

    def _file(self, name: str, manifest: Path) -> AudioFile:
        if self.root is not None and self.root.is_file():
            return AudioFile(self.root, name)
        return AudioFile((self.root or manifest.parent) / name, None)

    def _name(self, clip: Clip) -> str:
        """What no other sound of the data set is called: files and gaps as in "a.wav +200ms+ b.wav", pieces as in
        "a.wav[1.5s +2s]", relative to the data set, so that the same data elsewhere has the same names."""
        names = [each.member or self._relative(each.path) for each in clip.files]
        if clip.offset or clip.duration is not None:
            length = "" if clip.duration is None else f" +{clip.duration!r}s"
            return f"{names[0]}[{clip.offset!r}s{length}]"
        return names[0] + "".join(f" +{gap:g}ms+ {name}" for gap, name in zip(clip.gaps_ms, names[1:], strict=True))

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.files.path) if path.is_relative_to(self.files.path) else path)


Check = Callable[[dict[AudioFile, Header | UserError]], None]  # headers known already -> nothing, or UserError


@dataclass(frozen=True)
class Clip:
    """The sound of one example: files with gaps between them, or a piece of one file. Errors begin with `place`, the
    line of the manifest."""

    files: tuple[AudioFile, ...]
    gaps_ms: tuple[float, ...]
    offset: float  # seconds
    duration: float | None  # seconds; None: to the end
    place: str

    def check(self, known: dict[AudioFile, Header | UserError], max_seconds: float) -> None:
        """Looks at the headers of the files; those in `known` are not read again, and those read are added. Raises
        UserError where one has a fault, the piece lies outside the file, or the sound is longer than `max_seconds`."""
        try:
            headers = [_known(file, known) for file in self.files]
            seconds = sum(each.seconds for each in headers) + sum(self.gaps_ms) / 1000
            if len(headers) == 1:
                start, stop = piece(headers[0], str(self.files[0]), self.offset, self.duration)
                seconds = (stop - start) / headers[0].rate
            if seconds > max_seconds:
                problem = f"lasts {seconds:.1f} s, longer than dataset.max_seconds={max_seconds:g}"
                raise UserError(str(self.files[0]), problem, "raise the limit, or cut it into pieces")
        except SettingError:  # a package is missing: no fault of the file
            raise
        except UserError as error:
            raise self._placed(error) from None

    def read(self) -> Waveform:
        """Returns the sound. Raises UserError where a file cannot be read, or all is silent."""
        try:
            if len(self.files) == 1:
                sound = read_audio(self.files[0], self.offset, self.duration)
            else:
                sound = joined([read_audio(file) for file in self.files], self.gaps_ms)
            require_sound(sound, str(self.files[0]) + (" and those joined to it" if len(self.files) > 1 else ""))
        except SettingError:
            raise
        except UserError as error:
            raise self._placed(error) from None
        return sound

    def _placed(self, error: UserError) -> UserError:
        return UserError(self.place, f"{error.where}: {error.problem}", error.remedy)


def _known(file: AudioFile, known: dict[AudioFile, Header | UserError]) -> Header:
    if file not in known:
        try:
            known[file] = header(file)
        except SettingError:  # a package is missing: no fault of the file
            raise
        except UserError as error:
            known[file] = error
    found = known[file]
    if isinstance(found, UserError):
        raise found
    return found


# ------------------------------------------------------------------------------------------------ lines and columns


def _jsonl(manifest: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(place, number of the line, object) of each line that is not blank."""
    for number, line in enumerate(read_lines(manifest), 1):
        if line.strip():
            where = f"{manifest}, line {number}"
            yield where, number, json_object(line, where)


def _tsv(manifest: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(place, number of the line, values by name) of each line below the first, which has the names. Quotation marks
    are part of a value."""
    lines = read_lines(manifest)
    if not any(line.strip() for line in lines[1:]):
        raise UserError(str(manifest), "has the names of columns and no example: expected one a line below them")
    names = lines[0].split("\t")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{manifest}, line 1", f"names the column {twice!r} twice")
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            values = line.split("\t")
            if len(values) != len(names):
                problem = f"has {len(values)} values, and the first line names {len(names)} columns"
                raise UserError(f"{manifest}, line {number}", problem, "divide values by one tab each")
            yield f"{manifest}, line {number}", number, dict(zip(names, values, strict=True))


def _taken(columns: dict[str, Any], name: str, where: str, setting: str) -> Any:
    """Takes a value out of the columns of a line. Raises UserError where the line does not have it."""
    if name not in columns:
        problem = f"has no {name!r}{hint(name, columns)}, only {', '.join(columns) or 'nothing'}"
        raise UserError(where, problem, f"name the column: dataset.{setting}=NAME")
    return columns.pop(name)


def _seconds(columns: dict[str, Any], name: str | None, where: str) -> float | None:
    """Takes a number of seconds out of the columns of a line; None where it has none, or an empty one."""
    value = columns.pop(name, None) if name else None
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not _is_length(number):
        raise UserError(where, f"expected seconds, a number from 0 on, under {name!r}, got {shown(value)}")
    return float(number)  # type: ignore[arg-type]


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LONGEST
