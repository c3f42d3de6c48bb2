"""The summary of a finished run, as it is written to results.json."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenrl_cli.interfaces import Evaluation, Finding
from tokenrl_cli.metrics.significance import FEWEST_SENTENCES, Reason, known, paired_bootstrap, reason

RESAMPLES, SEED = 1000, 12345  # sacrebleu's defaults, so that `sacrebleu_p` equals the p that it prints


def results(
    rows: dict[str, Evaluation],
    objective: float | None,
    wall_time: float,
    spent: dict[str, float],
    findings: list[Finding],
) -> dict[str, Any]:
    """Returns the summary of a run, as plain values for JSON; NaN and infinity are left as they are.

    `rows` are the evaluations on the same test set of all three policies, "warm_start", "final" and "best"; `objective`
    is written as it is; `wall_time` is in seconds; `spent` holds the number of "tokens" of the RL stage, and the
    seconds of its "rollout" and "update", from which tokens_per_second follows, None for 0 seconds. `peak_memory_mb` is
    that of this process so far, in MiB. `findings` are those of the run so far.

    In the result `difference` is final - warm start on the same sentences, for each corpus score, those of the reward
    included: {"mean" over the whole test set, "low" and "high" of a 95 % interval, the two-sided "p" that belongs to
    the interval, "sacrebleu_p"}, by paired bootstrap. If a bootstrap cannot tell, all but the mean are None, and a
    finding that is added gives the reason. `decode` names the decoding of the test set. Raises ValueError where the
    evaluations "warm_start" and "final" have different numbers of sentences.
    """
    before, after = rows["warm_start"].corpus, rows["final"].corpus
    differences = {name: vars(paired_bootstrap(after[name], before[name], RESAMPLES, SEED)) for name in after}
    unknown = {name: reason(after[name], before[name]) for name, each in differences.items() if each["p"] is None}
    fewest = min((known(after[name], before[name]) for name in unknown), default=0)
    findings = [*findings, *interval_findings(unknown, fewest, rows["final"].step, None)]
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


def interval_findings(
    unknown: dict[str, Reason], fewest: int, step: int, key: str | None, lacking: str = "no interval and no p"
) -> list[Finding]:
    """Returns one note for each reason why numbers have no interval; [] if all have one.

    `unknown` maps the name of each number without an interval to the reason, `fewest` is the smallest number of
    sentences with a score, `step` that of the findings, `key` the setting that would give more sentences (None: there
    is none), `lacking` the beginning of the sentence.
    """
    why = {
        "few_sentences": (
            f"only {fewest} sentence{'s have' if fewest != 1 else ' has'} a score, and with fewer than "
            f"{FEWEST_SENTENCES} a bootstrap reports differences that do not exist; test on more examples"
        ),
        "not_a_number": "a score is NaN or infinite",
        "no_variation": "all sentences have the same score, so the result on another test set cannot be estimated",
    }
    found = []
    for rule, text in why.items():
        names = [name for name, reason in unknown.items() if reason == rule]
        if names:
            sentence = f"{lacking} of {', '.join(names)}: {text}"
            found.append(Finding(rule, "note", step, sentence, key if rule == "few_sentences" else None))
    return found


def peak_memory_mb() -> int:
    """Returns the largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where getrusage would include the memory of the process that started this one
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) // 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, others in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
