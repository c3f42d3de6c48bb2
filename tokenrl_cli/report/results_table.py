"""The final table of a run and the lines below it, as text. Both displays print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenrl_cli.report.layout import cells, number, padded, signed
from tokenrl_cli.report.run_header import stage_name

ROWS = ("warm_start", "final", "best")
LAST = (
    "sampled_reward",
    "completions/mean_length",
    "completions/clipped_ratio",
    "entropy",
)  # lines that stand below the other numbers


def final_table(results: dict[str, Any]) -> list[list[str]]:
    """Returns the cells of the final table, header first: one row per number of the evaluation on test, one column per
    policy. `results` is as in results.json.

    The policies are those after the warm start, at the end and at the best checkpoint; the header gives their steps. A
    policy that is several of these at once has one column. The last two columns are the difference final - warm start
    on the same sentences with its 95 % interval, and its p, for metrics and rewards only; a dash stands for a p that
    the bootstrap could not compute. Both are left out where the policy at the end is the one after the warm start.
    Sampled reward, length, the share of cut texts and entropy come last.
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
    """Returns a difference ("mean", "low" and "high" of `change`) and its interval as text, such as "+1.900 [+1.100,
    +2.700]", with as many decimals as the `value` that changed (None: each with its own); the difference alone if it
    has no interval."""
    mean, low, high = (signed(change[key], value) for key in ("mean", "low", "high"))
    return mean if change["low"] is None else f"{mean} [{low}, {high}]"


def same_policies(test: dict[str, dict[str, float]], steps: dict[str, int]) -> list[list[str]]:
    """Returns the names in ROWS ("warm_start", "final", "best") in groups: those with the same step and the same
    numbers are one policy and form one group. `test` maps each of the three names to its metrics, `steps` to its
    step."""
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
    """The head of a column, such as "final = best (400)"."""
    step = f" ({steps[rows[0]]})" if rows[0] in steps else ""
    return " = ".join(map(stage_name, rows)) + step


def closing_lines(results: dict[str, Any], run: str, then: Sequence[str] = ()) -> list[str]:
    """Returns the lines below the table: time, speed and memory, in one; one for each finding; the directory of the
    run; the commands to type `then`. Not wrapped or escaped."""
    speed = results["tokens_per_second"]
    parts = [f"{name} {value:,.0f} tokens/s" for name, value in speed.items() if value]
    lines = [
        f"{results['wall_time_s']:.0f} s, {', '.join(parts)}, {results['peak_memory_mb']} MB at most".replace(
            ", ,", ","
        )
    ]
    lines += [f"{finding['severity']}: {finding['text']}" for finding in results["findings"]]
    return [*lines, f"run: {run}", *then]


def aligned(table: list[list[str]]) -> list[str]:
    """Returns the rows of a table, at least one, all with as many cells, as lines of any length, each column padded to
    its widest cell: the first left-aligned, the others right."""
    widths = [max(cells(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(padded(cell, width, i > 0) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]
