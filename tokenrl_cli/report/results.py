"""What a finished run amounts to: results.json."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenrl_cli.interfaces import Evaluation, Finding
from tokenrl_cli.metrics.significance import FEWEST_SENTENCES, Reason, known, paired_bootstrap, reason

RESAMPLES, SEED = 1000, 12345  # sacrebleu's own defaults, so that `sacrebleu_p` is what it prints


def results(
    rows: dict[str, Evaluation],
    objective: float | None,
    wall_time: float,
    spent: dict[str, float],
    findings: list[Finding],
) -> dict[str, Any]:
    """The summary of a run from its test evaluations "warm_start", "final" and "best".

    `difference` is final - warm start on the same sentences, of each metric, of the reward and of the reward's own
    corpus score: {"mean" over the whole test set, "low" and "high" of a 95 % interval, the two-sided "p" that belongs
    to it, "sacrebleu_p"}, by paired bootstrap. Where that says nothing all but the mean are None, and a finding says
    why. `decode` is how the test set was decoded. `spent` holds the tokens and seconds of the RL stage.
    """
    before, after = rows["warm_start"].corpus, rows["final"].corpus
    differences = {name: vars(paired_bootstrap(after[name], before[name], RESAMPLES, SEED)) for name in after}
    silent = {name: reason(after[name], before[name]) for name, each in differences.items() if each["p"] is None}
    fewest = min((known(after[name], before[name]) for name in silent), default=0)
    findings = [*findings, *without_intervals(silent, fewest, rows["final"].step, None)]
    return {
        "format": 1,
        "objective": objective,
        "steps": {name: rows[name].step for name in ("warm_start", "final", "best")},
        "decode": rows["final"].decode,
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


def without_intervals(
    silent: dict[str, Reason], fewest: int, step: int, key: str | None, lacking: str = "no interval and no p"
) -> list[Finding]:
    """One note for each reason why numbers have no interval; `silent` says which number has none why, `fewest` how
    many sentences had a score where those were too few, `key` the setting that gives more of them."""
    why = {
        "few_sentences": (
            f"only {fewest} sentence{'s have' if fewest != 1 else ' has'} a score, and with fewer than "
            f"{FEWEST_SENTENCES} a bootstrap finds differences that are not there; test on more examples"
        ),
        "not_a_number": "a score is no number, or infinite",
        "no_variation": "all sentences say the same, so nothing tells how much another test set would differ",
    }
    found = []
    for rule, text in why.items():
        names = [name for name, reason in silent.items() if reason == rule]
        if names:
            said = f"{lacking} of {', '.join(names)}: {text}"
            found.append(Finding(rule, "note", step, said, key if rule == "few_sentences" else None))
    return found


def peak_memory_mb() -> int:
    """The largest resident size of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: getrusage counts what the process that started this one had, too
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) // 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
