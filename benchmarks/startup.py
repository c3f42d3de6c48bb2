"""How long the command takes to answer: `--help` within 0.1 s, `--cfg job` within 0.5 s on a quiet machine.

python benchmarks/startup.py          writes benchmarks/results/startup.json; status 1 where a limit is exceeded
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 9
LIMITS = {  # seconds, median; None: measured only
    "--help": 0.1,
    "train --help": 0.1,
    "list": 0.1,
    "train --cfg job": 0.5,
    "train modle=gru": None,
}


def seconds(words: list[str]) -> list[float]:
    """Wall time of each call of a new process."""
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tokenrl_cli", *words], capture_output=True, check=False)
        taken.append(time.perf_counter() - start)
    return taken


def main() -> int:
    rows, slow = {}, False
    for line, limit in LIMITS.items():
        taken = seconds(line.split())
        median = statistics.median(taken)
        rows[line] = {"median_s": round(median, 3), "min_s": round(min(taken), 3), "limit_s": limit}
        slow = slow or (limit is not None and median > limit)
        print(f"tokenrl {line:<18} median {median:.3f} s, best {min(taken):.3f} s, limit {limit}")
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    report = {"benchmark": "startup", "repeats": REPEATS, "machine": machine, "commands": rows}
    (Path(__file__).parent / "results" / "startup.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
