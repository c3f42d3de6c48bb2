"""The modules that a command line names: what they do while they are imported is told as theirs, with its line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.running import TINY, tokenrl
from tokenrl_cli.config.build import locate
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.usercode.modules import import_all

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine_elsewhere.py").write_text("class Mine: pass\n")
    (tmp_path / "random.py").write_text("class Mine: pass\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import argparse\n\nargparse.ArgumentParser().parse_args()\n", "line 3: .* ended the program while .* 2"),
        (
            "import sys\nsys.exit('no data')\n",
            "line 2: .* ended the program while it was imported .SystemExit: no data",
        ),
        ("import os\nos._exit(4)\n", r"line 2: .* ended the program while it was imported .SystemExit: os._exit\(4\)"),
        ("raise KeyboardInterrupt\n", "failed: KeyboardInterrupt .*line 1"),
        ("\ninput()\n", "failed: EOFError: EOF when reading a line .*line 2"),
        ("def f(:\n", "failed: SyntaxError: invalid syntax .*line 1"),
        ("import json\njson.loads('{')\n", "failed: json.decoder.JSONDecodeError: .*line 2"),
        (
            "import surely_not_installed\n",
            "ModuleNotFoundError: No module named 'surely_not_installed' .*line 1",
        ),
        ("def f():\n    raise OSError(2, 'gone')\nf()\n", "failed: FileNotFoundError: .*line 2"),
    ],
)
@pytest.mark.parametrize("entry", ["of_the_user.py", "of_the_user"])
def test_what_goes_wrong_in_a_module_is_told_with_its_line(
    folder: Path, entry: str, text: str, told: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tokenrl", "train", "model=lstm"])
    (folder / "of_the_user.py").write_text(text)
    with pytest.raises(UserError, match=f"imports=.{entry}.: .*{told}") as raised:
        import_all([entry])
    assert "of_the_user.py" in str(raised.value)
    assert "tokenrl: error" not in capsys.readouterr().err  # what argparse says, it says in the module's name


def test_a_module_changes_neither_the_directory_nor_the_streams(folder: Path) -> None:
    (folder / "rude.py").write_text("import os, sys\nos.chdir('/')\nsys.stdout.close()\nsys.stdout = None\n")
    before = sys.stdout, sys.stdin, sys.argv
    import_all(["rude.py"])
    assert (sys.stdout, sys.stdin, sys.argv) == before
    assert os.getcwd() == str(folder)
    print("still open")


@pytest.mark.parametrize(
    ("entry", "target"),
    [
        ("deep/mine_elsewhere.py", "mine_elsewhere.Mine"),
        ("./deep/mine_elsewhere.py", "mine_elsewhere.Mine"),
        ("random.py", "random.Mine"),
        ("deep.mine_elsewhere", "deep.mine_elsewhere.Mine"),
        ("deep", "deep.mine_elsewhere.Mine"),
    ],
)
def test_a_module_may_be_named_by_its_file_or_its_name(entry: str, target: str) -> None:
    import_all([entry])
    assert locate(target, [entry]).__name__ == "Mine"


def test_a_file_that_shares_its_name_with_a_library_makes_nothing_of_the_library_choosable() -> None:
    with pytest.raises(UserError, match="has no public 'Random'"):
        locate("random.Random", ["random.py"])
    Path("random.py").write_text("from secrets import SystemRandom\n")
    Path("again.py").write_text("from random import Random\n")
    with pytest.raises(UserError, match="is defined in random"):
        locate("again.Random", ["again.py", "deep/random.py"])


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("absent.py", "there is no file .*/absent.py"),
        ("absent", r"there is no module absent\n .*imports=\[FOLDER/NAME.py\]"),
        ("mine_elsewhere", r"there is no module mine_elsewhere\n .*imports=\[deep/mine_elsewhere.py\]"),
        ("./random", r"neither a dotted name nor a file that ends in .py\n .*imports=\[./random.py\]"),
        ("deep/mine_elsewhere", "neither a dotted name nor a file"),
        ("random", r"random is a library .*, and there is .*/random.py, too\n .*imports=\[random.py\]"),
        ("", "neither a dotted name nor a file"),
    ],
)
def test_an_entry_that_names_no_module_is_refused(entry: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        import_all([entry])


def test_a_command_imports_all_that_its_line_names(folder: Path, capsys: Capture) -> None:
    assert tokenrl("validate", *TINY, "imports=[absent.py]") == 2
    (folder / "of_the_user.py").write_text("import argparse\nargparse.ArgumentParser().parse_args()\n")
    assert tokenrl("validate", *TINY, "imports=[of_the_user.py]") == 2
    told = capsys.readouterr().err
    assert "tokenrl: imports=[absent.py]: there is no file" in told
    assert "tokenrl: imports=[of_the_user.py]: of_the_user.py, line 2: of_the_user.py ended the program" in told
