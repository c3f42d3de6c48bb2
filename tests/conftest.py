"""What the tests need of the libraries around them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import logging  # rouge-score brings it
from hypothesis import HealthCheck, settings

from tests.composing import compose_once
from tokenrl_cli.data import batching

# absl's handler closes the stream it was made with whenever logging is configured anew, unless that is the standard
# one; under pytest it would be the capture of whichever test came first, and every later test would fail.
logging.get_absl_handler().python_handler.stream = sys.__stderr__

# Hypothesis measures time by default, and a busy machine would fail tests that are right.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# No test cuts the power, and waiting for the disk takes a tenth of the time of all of them.
os.fsync = lambda descriptor: None

compose_once()

# A third of a tiny run of an unlimited data set is reading the first thousand examples, to say what is in them.
batching.SEEN = 100


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is marked as slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow all but `n` cases, spread evenly, of each test that is marked as `sample(n)`."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sample"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for found in cases.values():
        (n,) = found[0].get_closest_marker("sample").args
        kept = {round(i * (len(found) - 1) / max(n - 1, 1)) for i in range(n)}
        for i, item in enumerate(found):
            if i not in kept:
                item.add_marker("slow")


@pytest.fixture(autouse=True)
def nothing_imported_stays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Modules of the user's that a test wrote and imported are gone after it, and so is what it put on the path.

    Another test may write a module of the same name elsewhere; it would get this one.
    """
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    base = tmp_path_factory.getbasetemp()
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(base):
            del sys.modules[name]
