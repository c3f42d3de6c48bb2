"""The final table and what stands below it, as text; both displays draw it."""

from __future__ import annotations

from typing import Any

ROWS = ("warm_start", "final", "best")
LAST = (
    "sampled_reward",
    "completions/mean_length",
    "completions/clipped_ratio",
    "entropy",
)  # columns after the metrics


def number(value: float | None, digits: int = 3) -> str:
    """A share with three decimals, a score on a scale of 100 with two."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 and digits == 3 else f"{value:.{digits}f}"


def final_table(results: dict[str, Any]) -> list[list[str]]:
    """One line a number of the greedy test evaluation: warm start, final, best; and what changed, where it is a metric.

    The change is final - warm start on the same sentences, with its 95 % interval and p. Sampled reward, length and
    entropy come last.
    """
    test, changes = results["test"], results["difference"]
    names = [name for name in test["final"] if name not in LAST] + [name for name in LAST if name in test["final"]]
    table = [["test, greedy", *(row.replace("_", " ") for row in ROWS), "final - warm start", "p"]]
    for name in names:
        change = changes.get(name)
        difference = "" if change is None else f"{change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
        p = "" if change is None else f"{change['p']:.3f}"
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
