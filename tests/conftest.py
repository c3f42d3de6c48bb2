"""What the tests need of the libraries around them."""

from __future__ import annotations

import sys

from absl import logging  # rouge-score brings it

# absl's handler closes the stream it was made with whenever logging is configured anew, unless that is the standard
# one; under pytest it would be the capture of whichever test came first, and every later test would fail.
logging.get_absl_handler().python_handler.stream = sys.__stderr__
