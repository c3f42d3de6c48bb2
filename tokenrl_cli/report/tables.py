"""The final table and what stands below it, as text; both displays draw it."""

from __future__ import annotations

import math
from typing import Any

ROWS = ("warm_start", "final", "best")
LAST = (
    "sampled_reward",
    "completions/mean_length",
    "completions/clipped_ratio",
    "entropy",
)  # columns after the metrics


def number(value: float | None, digits: int = 3) -> str:
    """A share with three decimals, a score on a scale of 100 with two; never "-0.000"."""
    if value is None:
        return "-"
    return unsigned_zero(f"{value:.2f}" if abs(value) >= 10 and digits == 3 else f"{value:.{digits}f}")


def unsigned_zero(text: str) -> str:
    """A printed number without the minus of a zero: "-0.000" -> "0.000"."""
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


def signed(value: float | None) -> str:
    """A difference, with its sign: "+0.000" where it is 0, "-" where there is none."""
    if value is None:
        return "-"
    text = unsigned_zero(f"{value:.3f}")
    return text if text[0] == "-" or not math.isfinite(value) else f"+{text}"


def with_interval(difference: dict[str, Any]) -> str:
    """ "+1.900 [+1.100, +2.700]"; the difference alone where there is no interval."""
    mean = signed(difference["mean"])
    if difference["low"] is None:
        return mean
    return f"{mean} [{signed(difference['low'])}, {signed(difference['high'])}]"


def final_table(results: dict[str, Any]) -> list[list[str]]:
    """One line a number of the test evaluation, whose decoding the header names: warm start, final, best; and what
    changed, where it is a metric or the reward.

    The change is final - warm start on the same sentences, with its 95 % interval and p; a dash where a bootstrap says
    nothing. Sampled reward, length and entropy come last.
    """
    test, changes = results["test"], results["difference"]
    names = [name for name in test["final"] if name not in LAST] + [name for name in LAST if name in test["final"]]
    head = f"test, {results['decode']}" if results.get("decode") else "test"
    table = [[head, *(row.replace("_", " ") for row in ROWS), "final - warm start", "p"]]
    for name in names:
        change = changes.get(name)
        difference = "" if change is None else with_interval(change)
        p = "" if change is None else number(change["p"])
        table.append([name, *(number(test[row].get(name)) for row in ROWS), difference, p])
    return table


def notes(results: dict[str, Any], run: str) -> list[str]:
    """Time, speed and memory; findings; where the run lies and what to type next."""
    speed = results["tokens_per_second"]
    parts = [f"{name} {value:,.0f} tokens/s" for name, value in speed.items() if value]
    said = [
        f"{results['wall_time_s']:.0f} s, {', '.join(parts)}, {results['peak_memory_mb']} MB at most".replace(
            ", ,", ","
        )
    ]
    said += [f"{finding['severity']}: {finding['text']}" for finding in results["findings"]]
    return [*said, f"run: {run}", f"tokenrl eval ckpt={run}", f"tokenrl generate ckpt={run}"]


def aligned(table: list[list[str]]) -> list[str]:
    """Columns of one width, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    ]
