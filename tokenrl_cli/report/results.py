"""What a finished run amounts to: results.json."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenrl_cli.interfaces import Evaluation, Finding
from tokenrl_cli.metrics.significance import paired_bootstrap

RESAMPLES, SEED = 1000, 12345  # sacrebleu's own defaults, so that the p-values are the same


def results(
    rows: dict[str, Evaluation],
    objective: float | None,
    wall_time: float,
    spent: dict[str, float],
    findings: list[Finding],
) -> dict[str, Any]:
    """The summary of a run from its test evaluations "warm_start", "final" and "best".

    `difference` is final - warm start on the same sentences: the mean over the whole test set, a 95 % interval and a
    two-sided p by paired bootstrap. `spent` holds the tokens and seconds of the RL stage.
    """
    before, after = rows["warm_start"].corpus, rows["final"].corpus
    differences = {name: paired_bootstrap(after[name], before[name], RESAMPLES, SEED).__dict__ for name in after}
    return {
        "format": 1,
        "objective": objective,
        "steps": {name: rows[name].step for name in ("warm_start", "final", "best")},
        "test": {name: rows[name].metrics for name in ("warm_start", "final", "best")},
        "difference": differences,
        "signatures": {name: score.signature for name, score in after.items()},
        "wall_time_s": round(wall_time, 3),
        "tokens_per_second": {
            name: round(spent["tokens"] / spent[name], 1) if spent[name] else None for name in ("rollout", "update")
        },
        "peak_memory_mb": peak_memory_mb(),
        "findings": [asdict(finding) for finding in findings],
    }


def peak_memory_mb() -> int:
    """The largest resident size of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: getrusage counts what the process that started this one had, too
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) // 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
