"""What a finished run says of itself."""

from __future__ import annotations

import subprocess
import sys

from tokenrl_cli.report.results import peak_memory_mb


def test_peak_memory_is_that_of_this_process_and_not_of_the_one_that_started_it() -> None:
    """A large parent, such as a study that holds many results, makes no run larger."""
    large = bytearray(300 * 2**20)
    large[:: 2**12] = b"x" * len(large[:: 2**12])
    command = "from tokenrl_cli.report.results import peak_memory_mb; print(peak_memory_mb())"
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    mine = peak_memory_mb()
    assert mine >= 300 and 10 < int(said) < mine - 150 and len(large)
