"""The final table and what stands below it, as text; both displays draw it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenrl_cli.report.layout import cells, number, padded, signed
from tokenrl_cli.report.run_header import named

ROWS = ("warm_start", "final", "best")
LAST = (
    "sampled_reward",
    "completions/mean_length",
    "completions/clipped_ratio",
    "entropy",
)  # columns after the metrics


def final_table(results: dict[str, Any]) -> list[list[str]]:
    """One line a number of the test evaluation, whose decoding the header names: warm start, final, best; and what
    changed, where it is a metric or the reward.

    The header names the step of each; a policy that is several of them at once stands in one column. The change is
    final - warm start on the same sentences, with its 95 % interval and p, a dash where a bootstrap says nothing.
    Sampled reward, length and entropy come last.
    """
    test, changes = results["test"], results["difference"]
    names = [name for name in test["final"] if name not in LAST] + [name for name in LAST if name in test["final"]]
    columns = same_policies(test, results.get("steps", {}))
    heads = [_head(rows, results.get("steps", {})) for rows in columns]
    compared = len(columns) > 1 and "final" not in columns[0]
    table = [[f"test, {results.get('decode', 'greedy')}", *heads, *(["final - warm start", "p"] if compared else [])]]
    for name in names:
        line = [name.removeprefix("completions/"), *(number(test[rows[0]].get(name)) for rows in columns)]
        if compared:
            change, value = changes.get(name), test["final"][name]
            line.append(with_interval(change, value) if change else "")
            line.append("" if not change else "-" if change["p"] is None else f"{change['p']:.3f}")
        table.append(line)
    return table


def with_interval(change: dict[str, Any], value: float | None = None) -> str:
    """ "+1.900 [+1.100, +2.700]", as precise as the `value` that changed; without an interval the difference alone."""
    mean, low, high = (signed(change[key], value) for key in ("mean", "low", "high"))
    return mean if change["low"] is None else f"{mean} [{low}, {high}]"


def same_policies(test: dict[str, dict[str, float]], steps: dict[str, int]) -> list[list[str]]:
    """The rows, those together that stand at the same step and have the same numbers."""
    columns: list[list[str]] = []
    for row in ROWS:
        for rows in columns:
            if steps.get(row) == steps.get(rows[0]) and repr(test[row]) == repr(test[rows[0]]):
                rows.append(row)
                break
        else:
            columns.append([row])
    return columns


def _head(rows: list[str], steps: dict[str, int]) -> str:
    step = f" ({steps[rows[0]]})" if rows[0] in steps else ""
    return " = ".join(map(named, rows)) + step


def notes(results: dict[str, Any], run: str, then: Sequence[str] = ()) -> list[str]:
    """Time, speed and memory; findings; where the run lies, and `then`, the commands to type next."""
    speed = results["tokens_per_second"]
    parts = [f"{name} {value:,.0f} tokens/s" for name, value in speed.items() if value]
    said = [
        f"{results['wall_time_s']:.0f} s, {', '.join(parts)}, {results['peak_memory_mb']} MB at most".replace(
            ", ,", ","
        )
    ]
    said += [f"{finding['severity']}: {finding['text']}" for finding in results["findings"]]
    return [*said, f"run: {run}", *then]


def aligned(table: list[list[str]]) -> list[str]:
    """Columns of one width, the first to the left, the others to the right."""
    widths = [max(cells(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(padded(cell, width, i > 0) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]
