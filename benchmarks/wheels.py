"""Runs a script with an interpreter as it is, lending it the few packages that it lacks.

    python benchmarks/wheels.py fill FOLDER [NAME ...]      downloads wheels into FOLDER, and those of NAMEs
    python benchmarks/wheels.py run FOLDER SCRIPT [...]     runs SCRIPT; what is missing is unpacked from FOLDER

For a machine with a GPU, torch and numpy, but without a package index. Nothing is installed there: wheels of what is
missing, or too old for pyproject.toml, are unpacked into .device/, which only that script sees. torch and numpy are
never among them. `fill` needs an environment with tokenrl's dependencies, for it takes their versions, and an index.
It leaves out numba and llvmlite, which are large and stand beside numpy on most machines: name them to have them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email import message_from_bytes
from importlib import metadata
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
OWN = {"torch", "numpy"}  # the machine's: never replaced
LARGE = {"numba", "llvmlite"}
UNUSED = {"huggingface-hub"}  # for a download that never takes place here: tokenizers works without
TARGET = "3.12"  # Python of the machines that the wheels are for
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_12_x86_64",
             "manylinux2010_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64")  # fmt: skip

Requires = Callable[[str], list[str] | None]  # name -> its requirements; None where it is not known


@dataclass
class Plan:
    """What is to be unpacked, and what nobody has."""

    wheels: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def packaging() -> tuple[ModuleType, ModuleType, ModuleType]:
    """Of the library that reads requirements, or of the copy that pip carries."""
    try:
        from packaging import requirements, tags, utils
    except ImportError:
        from pip._vendor.packaging import requirements, tags, utils  # type: ignore[no-redef]
    return requirements, tags, utils


def wanted(project: Path) -> list[str]:
    """The requirements that pyproject.toml names."""
    return tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]


def closure(requirements: Iterable[str], requires: Requires, leave: set[str]) -> list[str]:
    """Names of the distributions that these need, themselves included, without `leave` and what only those need."""
    reader, _, utils = packaging()
    found: list[str] = []
    todo = list(requirements)
    while todo:
        asked = reader.Requirement(todo.pop(0))
        name = utils.canonicalize_name(asked.name)
        if name in leave or name in found or not applies(asked):
            continue
        found.append(name)
        todo += requires(name) or []
    return found


def applies(asked: object) -> bool:
    """Whether this machine is meant: no extra is ever asked for."""
    marker = asked.marker  # type: ignore[attr-defined]
    return marker is None or marker.evaluate({"extra": ""})


def installed(name: str) -> list[str] | None:
    """Requirements of a distribution that is installed."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return None


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def plan(requirements: Iterable[str], folder: Path, present: Callable[[str], str | None] = version) -> Plan:
    """Which wheels of the folder to lend: of every requirement that no installed version meets, and of what it needs.

    Of what is there and new enough nothing is asked further, nor of torch and numpy.
    """
    reader, _, utils = packaging()
    lent = Plan()
    todo, seen = list(requirements), set()
    while todo:
        text = todo.pop(0)
        asked = reader.Requirement(text)
        name = utils.canonicalize_name(asked.name)
        if text in seen or name in UNUSED or not applies(asked):
            continue
        seen.add(text)
        have = present(name)
        if have is not None and name in OWN:
            have = re.match(r"[\d.]*\d", have).group()  # type: ignore[union-attr]  # a vendor's 2.11.0a0 will do for 2.11
        if have is not None and asked.specifier.contains(have, prereleases=True):
            continue
        wheel = None if name in OWN else find(folder, name, asked.specifier)
        if wheel is None:
            lent.missing.append(f"{name}{asked.specifier}")
        elif wheel not in lent.wheels:
            lent.wheels.append(wheel)
            todo += of_wheel(wheel)
    return lent


def find(folder: Path, name: str, specifier: object) -> Path | None:
    """The newest wheel of the folder that this interpreter can read and the requirement allows."""
    _, tags, utils = packaging()
    mine = set(tags.sys_tags())
    found = []
    for path in sorted(folder.glob("*.whl")):
        called, number, _, theirs = utils.parse_wheel_filename(path.name)
        if called == name and mine & theirs and specifier.contains(number, prereleases=True):  # type: ignore[attr-defined]
            found.append((number, path))
    return max(found)[1] if found else None


def of_wheel(path: Path) -> list[str]:
    """The requirements that a wheel names."""
    with zipfile.ZipFile(path) as wheel:
        inside = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(wheel.read(inside)).get_all("Requires-Dist") or []


def unpack(wheels: Iterable[Path], into: Path) -> None:
    """Their contents into a folder of their own, each once: a wheel is an archive of what is imported."""
    into.mkdir(parents=True, exist_ok=True)
    for path in wheels:
        done = into / f".{path.name}"
        if not done.exists():
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(into)
            done.touch()


def environment(site: Path | None) -> dict[str, str]:
    """Where the script finds tokenrl, and before all else what is lent."""
    path = [str(each) for each in (site, ROOT) if each is not None]
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([*path, *([before] if before else [])])}


def run(folder: Path, script: str, *arguments: str) -> None:
    """Becomes the script. Exit status 2, and one line, where something is missing that the folder does not hold."""
    lent = plan(wanted(ROOT), folder)
    if lent.missing:
        remedy = f"run `make gpu-wheels` where there is an index, and bring {folder.name}/"
        if here := sorted(OWN & {name.split("=")[0].split(">")[0] for name in lent.missing}):
            remedy = f"{' and '.join(here)} must be this machine's own"
        sys.exit(_say(f"{sys.executable} lacks {', '.join(lent.missing)}: {remedy}"))
    site = None
    if lent.wheels:
        site = ROOT / ".device" / f"site-{sys.version_info.major}.{sys.version_info.minor}"
        unpack(lent.wheels, site)
        _say(f"lent from {folder}: {', '.join(path.name.split('-')[0] for path in lent.wheels)}")
    os.execve(sys.executable, [sys.executable, script, *arguments], environment(site))


def _say(text: str) -> int:
    print(f"gpu: {text}", file=sys.stderr, flush=True)
    return 2


def fill(folder: Path, *named: str) -> None:
    """Downloads, or builds from source, a wheel of everything that tokenrl needs but torch, numpy and what is large."""
    folder.mkdir(parents=True, exist_ok=True)
    leave = (OWN | UNUSED | LARGE) - set(named)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    binary = [*(word for platform in PLATFORMS for word in ("--platform", platform)), "--python-version", TARGET,
              "--implementation", "cp", "--only-binary", ":all:"]  # fmt: skip
    for name in closure(wanted(ROOT), installed, leave):
        exact = f"{name}=={version(name)}"
        done = subprocess.run([*pip, "download", "--no-deps", "-d", str(folder), *binary, exact], capture_output=True)
        if done.returncode != 0:  # only its source is offered: pure Python, the same wheel everywhere
            subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), exact], check=True)
    held = sorted(folder.glob("*.whl"))
    size = sum(path.stat().st_size for path in held) / 2**20
    print(f"{folder}: {len(held)} wheels, {size:.0f} MB, for Python {TARGET} on Linux (x86-64)")
    if foreign := [path.name for path in held if path.name.endswith("-linux_x86_64.whl")]:
        print(f"built for the Python here alone: {', '.join(foreign)}", file=sys.stderr)


def main(words: list[str]) -> None:
    if len(words) < 2 or words[0] not in ("fill", "run") or (words[0] == "run" and len(words) < 3):
        sys.exit(__doc__)
    {"fill": fill, "run": run}[words[0]](Path(words[1]), *words[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
