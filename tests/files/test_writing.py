"""Atomic writing: a file has its name only when it is complete, and no link is followed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tokenrl_cli.files.writing import whole, write
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
