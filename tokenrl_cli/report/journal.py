"""The files in which a run records its numbers and texts: metrics.jsonl, samples.jsonl and results.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tokenrl_cli.files import disk, writing
from tokenrl_cli.interfaces import Evaluation

FILES = ("metrics.jsonl", "samples.jsonl")


class Journal:
    """Writes the records of one run; makes the directory of the run if it is missing.

    Each line is appended to its file in one piece, and the file is closed again. NaN and infinity become null, because
    JSON has no such numbers. Half of a surrogate pair, which UTF-8 cannot hold, is written as its escape, \\ud800.
    Raises UserError where metrics.jsonl or samples.jsonl is a link, OSError where a file cannot be written.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        run.mkdir(parents=True, exist_ok=True)

    def metrics(
        self, step: int, stage: str, split: str, decode: str | None, time: float, metrics: dict[str, float]
    ) -> None:
        """Appends a line to metrics.jsonl, with `metrics` as a dictionary of its own. `step` counts the steps of the
        run, `time` is in seconds since its start; `decode` names the decoding of an evaluation and is None for
        training, whose line has no such key."""
        record: dict[str, Any] = {"step": step, "stage": stage, "split": split}
        if decode is not None:
            record["decode"] = decode
        self._append("metrics.jsonl", record | {"time": round(time, 3), "metrics": metrics})

    def samples(self, evaluation: Evaluation, count: int) -> None:
        """Appends the first `count` texts of an evaluation to samples.jsonl, with the columns that the reward gives for
        each; a column whose name is a field of the line already is written as reward/NAME."""
        where = {"step": evaluation.step, "stage": evaluation.stage, "split": evaluation.split}
        for i in range(min(count, len(evaluation.hypotheses))):
            text = {
                "source": evaluation.sources[i],
                "hypothesis": evaluation.hypotheses[i],
                "references": evaluation.references[i],
                "score": evaluation.scores[i],
            }
            record = where | {"decode": evaluation.decode} | text
            columns = evaluation.columns.items()
            more = {f"reward/{name}" if name in record else name: values[i] for name, values in columns}
            self._append("samples.jsonl", record | more)

    def results(self, results: dict[str, Any]) -> None:
        """Writes results.json, whole or not at all, in place of an existing one. A run that has this file is
        finished."""
        text = json.dumps(json_values(results), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        writing.write(self.run / "results.json", text)

    def position(self) -> dict[str, int]:
        """Returns {"metrics.jsonl": ..., "samples.jsonl": ...}, the current size of each file in bytes; 0 for a file
        that does not exist. A checkpoint stores it, and a resumed run passes it to `cut`."""
        return {name: (self.run / name).stat().st_size if (self.run / name).exists() else 0 for name in FILES}

    def cut(self, position: dict[str, int]) -> None:
        """Removes what was written after `position` returned these sizes, an incomplete last line included, and
        results.json, so that a resumed run appends where its checkpoint was. A file that is not named is emptied; one
        that is missing or shorter stays as it is. Raises UserError where a file is a link."""
        disk.discard(self.run / "results.json")
        for name in FILES:
            disk.cut(self.run / name, position.get(name, 0))

    def _append(self, name: str, record: dict[str, Any]) -> None:
        """Appends a record to a file as one line of JSON."""
        disk.append(self.run / name, json.dumps(json_values(record), ensure_ascii=False, allow_nan=False) + "\n")


def json_values(value: Any) -> Any:
    """Returns a copy of `value` for JSON: at any depth NaN and infinity become None, and tuples become lists. Keys and
    values of other types stay as they are, whether or not JSON has them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: json_values(item) for key, item in value.items()}
    return [json_values(item) for item in value] if isinstance(value, list | tuple) else value
