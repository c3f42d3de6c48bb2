"""Callbacks of Hydra for sweeps: one prints the error of a failed job at once, one a table of all jobs at the end."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback

from tokenrl_cli.report.layout import number
from tokenrl_cli.report.results_table import aligned


class Failures(Callback):
    """Prints the error of a job to standard error when it fails. Hydra itself raises it only after all other jobs."""

    def on_job_end(self, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        """Called by Hydra after each job of a sweep; prints the error if the job failed."""
        if job_return.status == JobStatus.FAILED:
            error = job_return._return_value  # the public property return_value would raise it
            print(f"tokenrl: job {config.hydra.job.num} failed: {error}", file=sys.stderr, flush=True)


class Summary(Callback):
    """Prints a table of the results on test when a sweep over `train` has ended, if none of its jobs failed."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Called by Hydra before the first job; remembers the time, so that results of older runs in the same directory
        are left out."""
        self.began = time.time()

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Called by Hydra after the last job; prints one line per finished job with the overrides in which it differs
        from the others, and the metrics of its final policy on test. Prints nothing for fewer than two finished
        jobs."""
        files = [file for file in Path(config.hydra.sweep.dir).rglob("results.json") if self._is_job(file)]
        if len(files) < 2:
            return
        jobs = sorted((file.parent for file in files), key=lambda run: _number(run.name))
        results = [json.loads((run / "results.json").read_text("utf-8")) for run in jobs]
        overrides = [result["overrides"] for result in results]
        common = set.intersection(*map(set, overrides))
        final = [result["test"]["final"] for result in results]
        decoded = ", ".join(dict.fromkeys(str(result["decode"]) for result in results))
        found = dict.fromkeys(name for each in final for name in each)
        names = [name for name in found if not name.startswith(("policy/", "q/", "completions/"))]
        table = [[f"test, {decoded}", *names]]
        for words, each in zip(overrides, final, strict=True):
            different = " ".join(word for word in words if word not in common)
            table.append([different, *(_shown(each, name) for name in names)])
        print("", *aligned(table), f"runs: {config.hydra.sweep.dir}", sep="\n", flush=True)

    def _is_job(self, file: Path) -> bool:
        """Whether a results.json belongs to a run of this sweep, not to an older run or to an evaluation."""
        return (file.parent / "checkpoints").is_dir() and file.stat().st_mtime >= self.began


def _shown(metrics: dict[str, float | None], name: str) -> str:
    """A number of a results file as text: there null means NaN, and a missing name that it was not computed ("-")."""
    value = metrics.get(name)
    return number(math.nan if value is None and name in metrics else value)


def _number(name: str) -> tuple[int, str]:
    """The sort key of a job's directory by its number, so that 2 comes before 10."""
    return (int(name) if name.isdecimal() else -1, name)
