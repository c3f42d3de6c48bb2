"""What an interpreter lacks is lent to one script: no more than that, and never torch or numpy."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.wheels import closure, environment, installed, plan, run, unpack, wanted

ROOT = Path(__file__).parents[2]
PRESENT = {"torch": "2.11.0", "numpy": "2.1.0", "old": "1.0", "there": "3.1"}


def wheel(folder: Path, name: str, version: str, *requires: str, tag: str = "py3-none-any") -> Path:
    path = folder / f"{name}-{version}-{tag}.whl"
    text = "".join(f"Requires-Dist: {each}\n" for each in requires)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n")
        file.writestr(f"{name}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n{text}")
    return path


def names(paths: list[Path]) -> list[str]:
    return [path.name.split("-")[0] for path in paths]


def test_what_is_there_and_new_enough_is_not_lent(tmp_path: Path) -> None:
    for name in ("old", "there", "new"):
        wheel(tmp_path, name, "9.0")
    lent = plan(["old>=2", "there>=3", "new"], tmp_path, PRESENT.get)
    assert (names(lent.wheels), lent.missing) == (["old", "new"], [])


def test_what_a_lent_package_needs_is_lent_too_and_no_extra_of_it(tmp_path: Path) -> None:
    wheel(tmp_path, "first", "1.0", "second>=2", "there", 'third; extra == "all"', 'fourth; python_version < "3"')
    wheel(tmp_path, "second", "2.5")
    lent = plan(["first"], tmp_path, PRESENT.get)
    assert (names(lent.wheels), lent.missing) == (["first", "second"], [])


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_torch_and_numpy_are_never_lent(tmp_path: Path, name: str) -> None:
    wheel(tmp_path, name, "99.0")
    wheel(tmp_path, "first", "1.0", f"{name}>=98")
    lent = plan(["first", name], tmp_path, PRESENT.get)
    assert (names(lent.wheels), lent.missing) == (["first"], [f"{name}>=98"])


def test_a_vendors_own_build_of_torch_will_do(tmp_path: Path) -> None:
    for version, missing in (("2.11.0a0+nv25", []), ("2.11.0+cu130", []), ("2.10.1", ["torch>=2.11"])):
        assert plan(["torch>=2.11"], tmp_path, {"torch": version}.get).missing == missing


def test_a_wheel_of_another_interpreter_or_version_does_not_serve(tmp_path: Path) -> None:
    wheel(tmp_path, "first", "1.0", tag="cp27-cp27m-win32")
    wheel(tmp_path, "second", "1.0")
    lent = plan(["first", "second>=2"], tmp_path, PRESENT.get)
    assert (lent.wheels, lent.missing) == ([], ["first", "second>=2"])


def test_a_script_sees_what_was_unpacked_before_all_else(tmp_path: Path) -> None:
    site = tmp_path / "site"
    unpack([wheel(tmp_path, "colorama", "9.9")], site)
    unpack([tmp_path / "colorama-9.9-py3-none-any.whl"], site)  # a second time changes nothing
    words = [sys.executable, "-c", "import colorama, tokenrl_cli; print(colorama.version)"]
    said = subprocess.run(words, capture_output=True, text=True, env=environment(site), cwd=tmp_path, check=True)
    assert said.stdout == "9.9\n"


def test_what_nobody_has_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.wheels.wanted", lambda project: ["nowhere-to-be-found>=3"])
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "script.py")
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.count("\n") == 1
    assert "lacks nowhere-to-be-found>=3: run `make gpu-wheels`" in said


def test_the_wheels_are_those_of_our_own_requirements(tmp_path: Path) -> None:
    found = closure(wanted(ROOT), installed, {"torch", "numpy"})
    assert {"hydra-core", "omegaconf", "antlr4-python3-runtime", "rouge-score", "nltk"} <= set(found)
    assert not {"torch", "numpy", "sympy", "pytest"} & set(found)


def make(*words: str, **variables: str) -> str:
    import os

    clean = {key: value for key, value in os.environ.items() if key != "PYTHON" and not key.startswith("MAKE")}
    done = subprocess.run(
        ["make", "-n", *words], capture_output=True, text=True, cwd=ROOT, env=clean | variables, check=True
    )
    return done.stdout


def test_an_interpreter_that_is_given_is_used_as_it_is() -> None:
    for said in (make("prove-gpu", PYTHON="python9"), make("prove-gpu", "PYTHON=python9")):
        assert said == "python9 benchmarks/wheels.py run wheels benchmarks/gpu.py\n"
    assert make("prove-gpu").splitlines()[-1] == ".venv/bin/python benchmarks/wheels.py run wheels benchmarks/gpu.py"
