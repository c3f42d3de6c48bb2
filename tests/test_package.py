"""The wheel, installed by itself in a clean environment, works from another directory."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.running import TINY

REPOSITORY = Path(__file__).resolve().parent.parent


def call(*words: str | Path, cwd: Path) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TOKENRL"))}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd, env=clean)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=REPOSITORY)
    return next(out.glob("tokenrl-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment's bin/. Nothing is downloaded: a .pth file lends it the packages installed here, the way
    that runs none of their own .pth files, so that the checkout is not lent as well."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=home)
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    lent = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "lent.pth").write_text("\n".join(lent) + "\n")
    return python.parent


def test_the_wheel_carries_every_yaml_and_every_module(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("conf", "tokenrl_cli/conf"), ("tokenrl_cli", "tokenrl_cli")):
        for file in (REPOSITORY / folder).rglob("*"):
            if file.suffix in (".yaml", ".py"):
                assert f"{inside}/{file.relative_to(REPOSITORY / folder).as_posix()}" in held
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert "tokenrl_cli/py.typed" in held, "without it no type checker reads the annotations of an installed package"
    assert not [name for name in held if name.startswith(("tests", "benchmarks", "conf"))]


def test_the_installed_command_shows_its_own_configuration(installed: Path, tmp_path: Path) -> None:
    place = call(installed / "python", "-c", "import tokenrl_cli; print(tokenrl_cli.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(installed.parent)
    assert call(installed / "tokenrl", "--version", cwd=tmp_path).startswith("tokenrl ")
    shown = call(installed / "tokenrl", "train", "--info", "searchpath", cwd=tmp_path)
    assert f"file://{Path(place.strip()).parent / 'conf'}" in shown
    assert "lstm" in call(installed / "python", "-m", "tokenrl_cli", "list", "model", cwd=tmp_path)


def test_the_installed_command_trains_and_evaluates_in_another_directory(installed: Path, tmp_path: Path) -> None:
    call(installed / "tokenrl", "train", *TINY, "~metrics.bleu", "hydra.run.dir=run", cwd=tmp_path)
    assert (tmp_path / "run" / "results.json").is_file()
    call(installed / "tokenrl", "eval", "ckpt=run", "examples=4", cwd=tmp_path)
    assert (tmp_path / "run" / "eval" / "test-greedy-examples=4" / "results.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
