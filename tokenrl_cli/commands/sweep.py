"""What a sweep says: at once of a job that failed (Hydra runs the others, and raises its error at the end); in the end,
where all went well, one table."""

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
    def on_job_end(self, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        if job_return.status == JobStatus.FAILED:
            error = job_return._return_value  # its public name raises
            print(f"tokenrl: job {config.hydra.job.num} failed: {error}", file=sys.stderr, flush=True)


class Summary(Callback):
    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        self.began = time.time()

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """One line a job: what it was told, and what its last policy says of the test set; how it was decoded is in
        the override that differs, or in the header."""
        files = [file for file in Path(config.hydra.sweep.dir).rglob("results.json") if self._is_job(file)]
        if len(files) < 2:
            return
        jobs = sorted((file.parent for file in files), key=lambda run: _number(run.name))
        results = [json.loads((run / "results.json").read_text("utf-8")) for run in jobs]
        told = [result["overrides"] for result in results]
        everywhere = set.intersection(*map(set, told))
        ended = [result["test"]["final"] for result in results]
        decoded = ", ".join(dict.fromkeys(str(result["decode"]) for result in results))
        found = dict.fromkeys(name for each in ended for name in each)
        names = [name for name in found if not name.startswith(("policy/", "q/", "completions/"))]
        table = [[f"test, {decoded}", *names]]
        for words, each in zip(told, ended, strict=True):
            apart = " ".join(word for word in words if word not in everywhere)
            table.append([apart, *(_shown(each, name) for name in names)])
        print("", *aligned(table), f"runs: {config.hydra.sweep.dir}", sep="\n", flush=True)

    def _is_job(self, file: Path) -> bool:
        """A run of this sweep: neither an older one beside it, nor an evaluation of one."""
        return (file.parent / "checkpoints").is_dir() and file.stat().st_mtime >= self.began


def _shown(metrics: dict[str, float | None], name: str) -> str:
    """NaN is null in a file of results; what is not in it at all was not measured."""
    value = metrics.get(name)
    return number(math.nan if value is None and name in metrics else value)


def _number(name: str) -> tuple[int, str]:
    """Jobs in the order they ran: 2 before 10."""
    return (int(name) if name.isdecimal() else -1, name)
