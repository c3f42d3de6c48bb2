"""Which exceptions are failures of the machine, mistakes in the user's module or command line, or bugs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from tests.running import TINY, tokenrl
from tokenrl_cli.commandline import mistakes
from tokenrl_cli.commandline.mistakes import HOME, as_user_error, machine_error
from tokenrl_cli.commands import validate

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_what_the_system_refuses_is_told_with_path_cause_and_the_way_on(elsewhere: Path) -> None:
    (elsewhere / "file").write_text("")
    again = "tokenrl train resume=run"
    told = {
        "no path": machine_error(OSError(errno.ENOSPC, "x"), "run", again),
        "its path": machine_error(raised((elsewhere / "none" / "f").read_bytes), "run", again),
        "file": machine_error(raised(lambda: os.mkdir("file/x")), "run"),
        "rust": machine_error(SafetensorError("Error: I/O error: No space (os error 28)"), "run", again),
        "torch": machine_error(RuntimeError("[..] DefaultCPUAllocator: can't allocate memory: you tried"), "run"),
        "numpy": machine_error(raised(lambda: np.zeros(10**15)), "run"),
    }
    said = {name: str(error) for name, error in told.items()}
    assert said["no path"] == f"run: {os.strerror(errno.ENOSPC)}\n  make room, or name another place; then {again}"
    assert said["its path"].startswith(f"{elsewhere / 'none' / 'f'}: {os.strerror(errno.ENOENT)}\n")
    assert said["file"] == f"file/x: {os.strerror(errno.ENOTDIR)}"
    assert said["rust"] == said["no path"]
    assert said["torch"].startswith("memory: ")
    assert said["numpy"].startswith("memory: ")


def test_a_link_that_leads_nowhere_is_named(elsewhere: Path) -> None:
    (elsewhere / "outputs").symlink_to("/gone")
    error = machine_error(raised((elsewhere / "outputs" / "run").mkdir))
    assert "outputs is a link to /gone, which is not there" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("x"),
        KeyError("x"),
        OSError("no number"),
        OSError(errno.EBADF, "x"),
        BrokenPipeError(errno.EPIPE, "x"),
        FileNotFoundError(errno.ENOENT, "x", str(HOME / "missing.yaml")),
        UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "x"),
    ],
    ids=repr,
)
def test_what_the_system_has_not_refused_is_not_the_machines(error: Exception) -> None:
    assert machine_error(error, "run", "again") is None


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (RuntimeError("ours"), 1, "RuntimeError: ours"),
        (UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "ours"), 1, "UnicodeDecodeError"),
        (RecursionError("ours"), 1, "RecursionError: ours"),
        (OSError(errno.ENOSPC, "x"), 2, f"tokenrl: outputs: {os.strerror(errno.ENOSPC)}\n"),
    ],
    ids=repr,
)
def test_our_fault_shows_a_traceback_and_the_machines_one_line(
    error: Exception, status: int, told: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def assembled(config: Any, tokenizers: Any) -> None:
        raise error

    monkeypatch.setattr(validate, "assembled", assembled)
    assert tokenrl("validate", *TINY, "out=outputs") == status
    printed = capsys.readouterr().err
    assert told in printed
    assert ("Traceback" in printed) == (status == 1)
    assert "hydra/_internal" not in printed


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("body", "told", "entry"),
    [
        ("raise RuntimeError('mine')", "RuntimeError: mine", "./of_the_user.py"),
        ("open('absent')", "FileNotFoundError", "of_the_user"),
        ("raise SystemExit(3)", "ends the program", "of_the_user.py"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "of_the_user"),
        ("raise GeneratorExit", "GeneratorExit", "of_the_user.py"),
        ("raise type('Mine', (BaseException,), {})('x\\ny')", "Mine: x y", "of_the_user"),
        ("self.__init__()", "RecursionError", "of_the_user"),
        ("b'\\xff'.decode()", "UnicodeDecodeError", "of_the_user.py"),
        ("raise BrokenPipeError", "BrokenPipeError", "of_the_user"),
        ("raise OSError(28, 'full', '/x')", "OSError", "of_the_user.py"),
    ],
)
def test_what_a_users_module_does_is_named_with_its_line(
    body: str, told: str, entry: str, elsewhere: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "of_the_user", raising=False)
    lines = ["class Mine:", "    def __init__(self):", f"        {body}", "    def __call__(self, texts): ..."]
    (elsewhere / "of_the_user.py").write_text("\n".join(lines) + "\n")
    words = ["~reward", "+reward={_target_: of_the_user.Mine}", f"imports=[{entry}]"]
    monkeypatch.delitem(sys.modules, str(elsewhere / "of_the_user.py"), raising=False)
    assert tokenrl("validate", *TINY, *words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"tokenrl: {elsewhere / 'of_the_user.py'}, line 3: ")
    assert told in printed
    assert "Traceback" not in printed


def test_a_config_file_that_cannot_be_read_is_named(elsewhere: Path, capsys: Capture) -> None:
    (elsewhere / "mine" / "reward").mkdir(parents=True)
    (elsewhere / "mine" / "reward" / "own.yaml").write_bytes(b"# \xe9\nx: 1\n")
    assert tokenrl("validate", "--config-dir", "mine", "reward=own") == 2
    printed = capsys.readouterr().err
    assert tokenrl("list", "reward", "--config-dir", "mine") == 2
    assert "mine/reward/own.yaml: is not UTF-8: byte 0xe9" in capsys.readouterr().err
    assert "mine/reward/own.yaml: cannot be read: UnicodeDecodeError" in printed
    assert "Traceback" not in printed


def test_a_line_that_no_parser_can_read_is_refused(elsewhere: Path, capsys: Capture) -> None:
    assert tokenrl("validate", f"+x={'[' * 400}{']' * 400}") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_of_two_modules_on_the_way_the_last_one_counts(elsewhere: Path) -> None:
    error = raised(lambda: mistakes._link(None))  # type: ignore[arg-type]
    assert as_user_error(error, [__name__]) is None, "called by a module of the user's, but raised in ours"
