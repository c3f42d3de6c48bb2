"""The lock files pin what pyproject.toml asks for, agree with each other, and name no index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NAMES = ("requirements.lock", "requirements-dev.lock", "requirements-hashes.lock")
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in NAMES}


def pins(name: str) -> dict[str, str]:
    """Distribution -> version."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", TEXTS[name], re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_names_no_index_and_no_build_of_torch(name: str) -> None:
    assert "://" not in TEXTS[name]
    assert not re.findall(r"^ *(?:--(?!hash=)|-[a-z] ).*", TEXTS[name], re.MULTILINE)
    assert not [each for each in pins(name) if re.match("torch|nvidia|cuda|triton", each)]


def test_every_dependency_is_pinned_to_a_version_that_is_allowed() -> None:
    for name, wanted in (
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]),
    ):
        pinned = {canonicalize_name(each): version for each, version in pins(name).items()}
        for requirement in map(Requirement, wanted):
            if requirement.name != "torch":
                assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, f"make lock: {requirement}"


def test_what_runs_is_the_same_for_everyone() -> None:
    runs = pins("requirements.lock")
    assert "pytest" not in runs
    assert runs.items() <= pins("requirements-dev.lock").items()
    assert pins("requirements-hashes.lock") == runs


def test_every_pin_for_deployment_has_hashes() -> None:
    blocks = re.split(r"^(?=[\w.-]+==)", TEXTS["requirements-hashes.lock"], flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins("requirements.lock"))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)
