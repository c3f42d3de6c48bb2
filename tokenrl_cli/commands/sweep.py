"""What a sweep says at once of a job that failed: Hydra runs the other jobs, and raises the first error at the end."""

from __future__ import annotations

import sys
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback


class Failures(Callback):
    def on_job_end(self, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        if job_return.status == JobStatus.FAILED:
            error = job_return._return_value  # its public name raises
            print(f"tokenrl: job {config.hydra.job.num} failed: {error}", file=sys.stderr, flush=True)
