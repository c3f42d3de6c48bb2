"""What the tests need of the libraries around them."""

from __future__ import annotations

import sys

from absl import logging  # rouge-score brings it
from hydra._internal.hydra import Hydra
from hypothesis import HealthCheck, settings

# absl's handler closes the stream it was made with whenever logging is configured anew, unless that is the standard
# one; under pytest it would be the capture of whichever test came first, and every later test would fail.
logging.get_absl_handler().python_handler.stream = sys.__stderr__

# Hypothesis measures time by default, and a busy machine would fail tests that are right.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Hydra composes every config twice, the first time only to look whether hydra.mode was given, which no test does.
Hydra.get_mode = lambda self, config_name, overrides: None
