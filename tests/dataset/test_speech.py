from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.real_data import real
from tests.sounds import manifest, noise, speech, written
from tokenrl_cli.dataset.speech import Speech
from tokenrl_cli.interfaces import Dataset, Example, NamedSplits, Recording, SettingError, UserError, Waveform


def sound(example: Example) -> np.ndarray:
    assert isinstance(example.source, Recording)
    read = example.source.read()
    return read.samples if isinstance(read, Waveform) else read


def line(audio: Any = "a.wav", refs: Any = "one", **more: Any) -> dict[str, Any]:
    return {"audio": audio, "refs": refs} | more


# ------------------------------------------------------------------------------------------------------- manifests


def test_a_line_is_a_recording_with_its_transcript_and_columns(tmp_path: Path) -> None:
    written(tmp_path / "deep/a.wav")
    lines = [line("deep/a.wav", id="x", speaker="s"), line("deep/a.wav", ["one two", "1 2"])]
    path = manifest(tmp_path, *lines)
    data = speech(tmp_path)
    assert isinstance(data, Dataset)
    assert isinstance(data, NamedSplits)
    assert data.size("train") == 2
    first, second = data.example("train", 0), data.example("train", 1)
    assert (first.id, first.references, first.demonstrations) == ("x", ["one"], ["one"])
    assert first.columns == {"id": "x", "speaker": "s"}
    assert (first.place, str(first.source)) == (f"{path}, line 1", "x deep/a.wav")
    np.testing.assert_array_equal(sound(first), noise())
    assert (second.id, second.references) == ("2", ["one two", "1 2"])
    assert second.columns == {"speaker": None, "id": None}


@pytest.mark.parametrize(("refs", "found"), [("", [""]), ([""], [""]), (" ", [""]), ([], []), (None, [])])
def test_an_empty_transcript_is_one_and_a_missing_one_is_none(tmp_path: Path, refs: Any, found: list[str]) -> None:
    written(tmp_path / "a.wav")
    manifest(tmp_path, line(refs=refs))
    assert speech(tmp_path).example("train", 0).references == found


def test_a_manifest_of_nemo_is_read_by_naming_its_columns(tmp_path: Path) -> None:
    samples = noise(1.0)
    file = written(tmp_path / "audio/a.wav", samples)
    lines = [{"audio_filepath": str(file), "text": "one", "offset": 0.25, "duration": 0.5, "lang": "en"}]
    text = "".join(json.dumps(each) + "\n" for each in lines)
    (tmp_path / "train_manifest.json").write_text(text, "utf-8")
    named = {"audio_column": "audio_filepath", "text_column": "text", "splits": {"train": "train_manifest.json"}}
    example = speech(tmp_path, **named).example("train", 0)
    np.testing.assert_array_equal(sound(example), samples[2000:6000])
    assert (str(example.source), example.columns) == ("audio/a.wav[0.25s +0.5s]", {"lang": "en"})


def test_a_table_of_common_voice_is_read_by_naming_its_columns(tmp_path: Path) -> None:
    written(tmp_path / "clips/a.mp3", noise(1.0))
    table = 'client_id\tpath\tsentence\tage\nc1\ta.mp3\t"Hello," she said\t\n'
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(table.encode()))
    named = {"format": "tsv", "audio_root": "clips", "audio_column": "path", "text_column": "sentence"}
    example = speech(tmp_path, **named, id_column=None, speaker_column="client_id").example("train", 0)
    assert (example.id, example.references) == ("2", ['"Hello," she said'])
    assert example.columns == {"speaker": "c1", "client_id": "c1", "age": ""}
    assert len(sound(example)) > 7000


def test_pieces_are_read_from_a_table(tmp_path: Path) -> None:
    written(tmp_path / "a.wav", noise(1.0))
    (tmp_path / "val.tsv").write_text("audio\trefs\toffset\tduration\na.wav\tone\t0.5\t0.25\na.wav\t\t\t\n", "utf-8")
    data = speech(tmp_path, format="tsv")
    assert [len(sound(data.example("val", i))) for i in (0, 1)] == [2000, 8000]
    assert data.example("val", 1).references == [""]


@pytest.mark.parametrize(("gaps", "silence"), [({}, 0), ({"gaps_ms": [50]}, 400), ({"gaps_ms": 50}, 400)])
def test_files_of_a_zip_are_joined_with_gaps(tmp_path: Path, gaps: dict[str, Any], silence: int) -> None:
    with zipfile.ZipFile(tmp_path / "wav.zip", "w") as archive:
        for k in (1, 2):
            archive.write(written(tmp_path / f"{k}.wav", noise(seed=k)), f"{k}.wav")
            (tmp_path / f"{k}.wav").unlink()
    manifest(tmp_path, line(["1.wav", "2.wav"], **gaps), line("2.wav"))
    data = speech(tmp_path, audio_root="wav.zip")
    expected = np.concatenate([noise(seed=1), np.zeros(silence), noise(seed=2)])
    np.testing.assert_array_equal(sound(data.example("train", 0)), expected)
    assert str(data.example("train", 0).source) == f"1.wav +{silence // 8}ms+ 2.wav"
    assert str(data.example("train", 1).source) == "2.wav"


def test_a_sound_has_one_name_and_two_sounds_have_two(tmp_path: Path) -> None:
    written(tmp_path / "a.wav", noise(1.0))
    pieces = [{}, {"offset": 0.5}, {"duration": 0.5}, {"offset": 0.5, "duration": 0.25}, {"offset": 0.5}]
    manifest(tmp_path, *(line(**piece) for piece in pieces))
    data = speech(tmp_path)
    names = [str(data.example("train", i).source) for i in range(5)]
    assert len(set(names)) == 4
    assert names[1] == names[4]
    manifest(tmp_path / "other", line(), split="val")
    written(tmp_path / "other/a.wav", noise(seed=5))
    elsewhere = speech(tmp_path, splits={"val": "other/val"})
    assert str(elsewhere.example("val", 0).source) == "other/a.wav"


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"refs": "x"}, "has no 'audio'"),
    ({"audio": "a.wav", "ref": "x"}, r"has no 'refs' \(did you mean 'ref'\?\), only audio, ref"),
    (line(3), "expected a file or a list of files under 'audio', got 3"),
    (line([]), "expected a file or a list of files"),
    (line(refs=[1]), "expected a string or a list of strings under 'refs'"),
    (line(offset="soon"), "expected seconds, a number from 0 on, under 'offset', got \"soon\""),
    (line(offset=-1), "expected seconds"),
    (line(duration=True), "expected seconds"),
    (line(duration=1e308), "expected seconds"),
    (line(offset=10**400), "expected seconds"),
    (line(["a.wav", "a.wav"], offset=1), "has 2 files to join, and offset for one file"),
    (line(["a.wav", "a.wav"], gaps_ms=[1, 2]), "expected milliseconds under 'gaps_ms', for 1 gaps of 2 files"),
    (line(["a.wav", "a.wav"], gaps_ms=["x"]), "expected milliseconds"),
]


@pytest.mark.parametrize(("record", "message"), MISTAKES)
def test_a_mistake_in_a_line_names_it(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    written(tmp_path / "a.wav")
    manifest(tmp_path, line(), record)
    with pytest.raises(UserError, match=rf"train\.jsonl, line 2: {message}"):
        speech(tmp_path, faulty="skip").size("train")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("audio\trefs\na.wav\n", "line 2: has 1 values"),
        ("audio\trefs\n\n", "has the names of columns and no example"),
        ("audio\taudio\nx\ty\n", "line 1: names the column 'audio'"),
    ],
)
def test_a_mistake_in_a_table_names_the_line(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "train.tsv").write_text(table, "utf-8")
    with pytest.raises(UserError, match=message):
        speech(tmp_path, format="tsv").size("train")


# ------------------------------------------------------------------------------------------------------- faulty files


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "there is no such file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "cut short": (half, "is cut short"),
    "not audio": (lambda path: path.write_text("no sound " * 99), "is no audio"),
    "too long": (lambda path: written(path, noise(0.6)), r"lasts 0\.6 s, longer than dataset\.max_seconds=0\.5"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_refused_by_line_and_name_before_they_are_read(tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    for name in ("a.wav", "b.wav"):
        written(tmp_path / name)
    spoil(tmp_path / "b.wav")
    manifest(tmp_path, line(), line("b.wav"), line("b.wav"))
    with pytest.raises(UserError) as error:
        speech(tmp_path, max_seconds=0.5).size("train")
    expected = rf"train\.jsonl, line 2: .*b\.wav: {message}.*; 1 further examples of train have faults\n.*faulty=skip"
    assert error.match(expected)


@pytest.mark.parametrize("fault", [*FAULTS, "silent", "a flac cut short"])
def test_faulty_files_are_left_out_and_counted(tmp_path: Path, fault: str) -> None:
    name = "b.flac" if "flac" in fault else "b.wav"
    silent = (lambda path: written(path, np.zeros(800)), "is silent")
    spoil, message = {"silent": silent, "a flac cut short": (half, ""), **FAULTS}[fault]
    written(tmp_path / "a.wav")
    spoil(written(tmp_path / name))
    manifest(tmp_path, line(), line(name), line(), line(name))
    data = speech(tmp_path, max_seconds=0.5, faulty="skip")
    assert data.size("train") == 2
    assert [data.example("train", i).id for i in (0, 1)] == ["1", "3"]
    assert [error.where for error in data.faults["train"]] == [f"{tmp_path}/train.jsonl, line {k}" for k in (2, 4)]
    assert message == "" or data.faults["train"][0].problem.startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize("name", ["a\0.wav", "~nobody_at_all/a.wav"])
@pytest.mark.parametrize("faulty", ["refuse", "skip"])
def test_a_name_that_is_none_of_a_file_is_a_fault(tmp_path: Path, name: str, faulty: str) -> None:
    manifest(tmp_path, line(name))
    with pytest.raises(UserError, match=r"train\.jsonl, line 1: .*(is no name of a file|there is no such file)"):
        speech(tmp_path, faulty=faulty).size("train")


def test_a_missing_package_is_no_fault_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "a.wav")
    manifest(tmp_path, line())
    monkeypatch.setattr("tokenrl_cli.config.extras.find_spec", lambda name: None)
    for faulty in ("refuse", "skip"):
        with pytest.raises(SettingError, match="needs the package soundfile") as told:
            speech(tmp_path, faulty=faulty).size("train")
        assert "line 1" not in str(told.value)


def test_where_every_file_is_faulty_nothing_is_left(tmp_path: Path) -> None:
    manifest(tmp_path, line())
    with pytest.raises(UserError, match=r"line 1: .*there is no such file"):
        speech(tmp_path, faulty="skip").size("train")


def test_silence_names_its_line_when_it_is_read(tmp_path: Path) -> None:
    written(tmp_path / "a.wav", np.full(800, 0.5))
    manifest(tmp_path, line())
    example = speech(tmp_path).example("train", 0)
    with pytest.raises(UserError, match=r"train\.jsonl, line 1: .*a\.wav: is silent"):
        sound(example)


# ------------------------------------------------------------------------------------------------------------ arrays


def arrays(folder: Path, **changes: Any) -> Speech:
    manifest(folder, {"refs": "one"}, {"refs": "two"})
    frames = np.arange(24, dtype=np.float16).reshape(8, 3)
    values = {"mfcc": frames, "offsets": np.array([0, 3, 8])} | changes
    np.savez(folder / "train.npz", **{key: value for key, value in values.items() if value is not None})
    return speech(folder, arrays="mfcc")


def test_frames_are_read_from_arrays(tmp_path: Path) -> None:
    data = arrays(tmp_path)
    assert data.size("train") == 2
    found = [sound(data.example("train", i)) for i in (0, 1)]
    assert [each.dtype for each in found] == [np.float32] * 2
    np.testing.assert_array_equal(np.concatenate(found), np.arange(24).reshape(8, 3))
    assert [str(data.example("train", i).source) for i in (0, 1)] == ["train.npz[0]", "train.npz[1]"]


ONES = np.ones((8, 3), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mfcc": None}, r"train\.npz: has no array 'mfcc', only offsets"),
        ({"mfcc": np.ones(8)}, r"train\.npz: expected frames"),
        ({"offsets": np.array([0, 8])}, r"train\.npz: expected 3 integers under 'offsets' for the 2 examples of"),
        ({"offsets": np.array([0, 9, 8])}, r"train\.npz: expected 'offsets' that rise"),
        ({"offsets": np.array([0, 3, 9])}, r"train\.npz: expected 'offsets' that rise"),
        ({"offsets": np.array([0, 8, 8])}, r"train\.jsonl, line 2: .*train\.npz, frames 8 to 8: has no frames"),
        ({"mfcc": ONES}, r"train\.jsonl, line 1: .*is silent: all its frames are the same"),
        ({"mfcc": ONES * np.inf}, r"train\.jsonl, line 1: .*no finite numbers"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        arrays(tmp_path, **changes).size("train")


def test_an_npz_file_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    data = arrays(tmp_path)
    half(tmp_path / "train.npz")
    with pytest.raises(UserError, match=r"train\.npz: cannot be read as an npz file"):
        data.size("train")
    np.save(tmp_path / "train.npy", ONES)
    (tmp_path / "train.npy").rename(tmp_path / "train.npz")
    with pytest.raises(UserError, match=r"train\.npz: is no npz file"):
        data.size("train")
    (tmp_path / "train.npz").unlink()
    with pytest.raises(UserError, match=r"train\.npz: there is no such file"):
        data.size("train")


def test_arrays_and_a_folder_of_audio_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="audio_root: says where audio lies"):
        speech(tmp_path, arrays="mfcc", audio_root="x")


# --------------------------------------------------------------------------------------------------------- real data


def test_the_spoken_digits_are_read(tmp_path: Path) -> None:
    splits: dict[str, Any] = {"test_seen": "test_seen_connected", "test": "test_connected"}
    data = speech(real("fsdd"), splits=splits, audio_root="wav.zip", max_seconds=10.0)
    assert (data.size("test_seen"), data.size("test"), data.size("val")) == (200, 400, 200)
    example = data.example("test", 0)
    assert len(sound(example)) / 8000 == pytest.approx(example.columns["seconds"], abs=1e-3)
    assert example.columns["speaker"] == "george"


def test_the_cepstra_are_read() -> None:
    data = speech(real("an4"), arrays="mfcc")
    assert (data.size("val"), data.size("test")) == (90, 103)
    example = data.example("test", 102)
    assert sound(example).shape == (example.columns["frames"], 13)
