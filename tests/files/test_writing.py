"""Atomic writing: a file has its name only when it is complete, and no link is followed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tokenrl_cli.files.writing import whole, whole_folder, write
from tokenrl_cli.interfaces import UserError


def test_it_has_its_name_only_when_all_of_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("before")
    with whole(path) as to:
        to.write("ü\r\n")
        to.flush()
        assert path.read_text() == "before"
    assert path.read_bytes() == "ü\r\n".encode()
    assert os.listdir(tmp_path) == ["out.txt"]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with pytest.raises(ZeroDivisionError), whole(path) as to:
        to.write(str(1 // 0))
    assert os.listdir(tmp_path) == []


def test_a_name_that_was_taken_meanwhile_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    writing = whole(path, replaces=False)
    writing.__enter__().write("mine")
    path.write_text("another's")
    with pytest.raises(UserError, match="exists by now"):
        writing.__exit__(None, None, None)
    assert path.read_text() == "another's"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    path = tmp_path / "out.txt"
    for name in ("out.txt", f".out.txt.{os.getpid()}.part"):
        (tmp_path / name).symlink_to("precious")
    write(path, "new")
    assert (tmp_path / "precious").read_text() == "kept"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_an_error_of_the_disk_has_the_name_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full") as caught:
        write(tmp_path / "out.txt", "x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "out.txt"))
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError) as gone:
        write(tmp_path / "gone" / "out.txt", "x")
    assert gone.value.filename == str(tmp_path / "gone" / "out.txt")


def test_a_folder_has_its_name_only_when_all_of_it_is_written(tmp_path: Path) -> None:
    place = tmp_path / "above" / "it"
    for _ in range(2):
        with whole_folder(place) as part:
            (part / "inner").mkdir()
            (part / "inner" / "file").write_text("one")
            (part / "inner" / "file").chmod(0o600)
            assert not place.exists() or not any(place.iterdir())
        assert (place / "inner" / "file").read_text() == "one"
        assert (place / "inner" / "file").stat().st_mode & 0o777 == 0o666 & ~_umask(), "as other files"
        assert os.listdir(tmp_path / "above") == ["it"]
        (place / "inner" / "file").unlink()
        (place / "inner").rmdir()  # an empty folder may be filled


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_that_fails_leaves_nothing_and_one_with_files_stays(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "it") as part:
        (part / "file").write_text(str(1 // len((part / "half").write_bytes(b"half") * "")))
    assert os.listdir(tmp_path) == []
    writing = whole_folder(tmp_path / "it")
    writing.__enter__()
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "theirs").write_text("kept")
    with pytest.raises(UserError, match="is not empty"):
        writing.__exit__(None, None, None)
    assert os.listdir(tmp_path) == ["it"]
    (tmp_path / "link").symlink_to("gone")
    for name, message in (("it", "is not empty"), ("it/theirs", "is a file"), ("link", "is a link to gone")):
        with pytest.raises(UserError, match=message), whole_folder(tmp_path / name):
            pass
    assert (tmp_path / "it" / "theirs").read_text() == "kept"
