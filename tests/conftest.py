"""What the tests need of the libraries around them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import logging  # rouge-score brings it
from hydra._internal.hydra import Hydra
from hypothesis import HealthCheck, settings

# absl's handler closes the stream it was made with whenever logging is configured anew, unless that is the standard
# one; under pytest it would be the capture of whichever test came first, and every later test would fail.
logging.get_absl_handler().python_handler.stream = sys.__stderr__

# Hypothesis measures time by default, and a busy machine would fail tests that are right.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# No test cuts the power, and waiting for the disk takes a tenth of the time of all of them.
os.fsync = lambda descriptor: None

# Hydra composes every config twice, the first time only to look whether hydra.mode was given, which no test does.
Hydra.get_mode = lambda self, config_name, overrides: None


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
