"""What a run writes down while it goes: metrics.jsonl, samples.jsonl, results.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tokenrl_cli.files import disk, writing
from tokenrl_cli.interfaces import Evaluation

FILES = ("metrics.jsonl", "samples.jsonl")


class Journal:
    """Appends whole lines, each written at once. NaN and infinity become null: the files are plain JSON. The
    screen shows them as they are. Half of a surrogate pair is written as JSON can: \\ud800."""

    def __init__(self, run: Path) -> None:
        self.run = run
        run.mkdir(parents=True, exist_ok=True)

    def metrics(
        self, step: int, stage: str, split: str, decode: str | None, time: float, metrics: dict[str, float]
    ) -> None:
        record: dict[str, Any] = {"step": step, "stage": stage, "split": split}
        if decode is not None:
            record["decode"] = decode
        self._append("metrics.jsonl", record | {"time": round(time, 3), "metrics": metrics})

    def samples(self, evaluation: Evaluation, count: int) -> None:
        """The first `count` texts of an evaluation, with what the reward says of each; where that has a name of ours,
        as reward/NAME."""
        where = {"step": evaluation.step, "stage": evaluation.stage, "split": evaluation.split}
        for i in range(min(count, len(evaluation.hypotheses))):
            said = {
                "source": evaluation.sources[i],
                "hypothesis": evaluation.hypotheses[i],
                "references": evaluation.references[i],
                "score": evaluation.scores[i],
            }
            said = where | {"decode": evaluation.decode} | said
            more = {f"reward/{name}" if name in said else name: at[i] for name, at in evaluation.columns.items()}
            self._append("samples.jsonl", said | more)

    def results(self, results: dict[str, Any]) -> None:
        """results.json, all of it or none: its presence says that the run is finished."""
        text = json.dumps(plain(results), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        writing.write(self.run / "results.json", text)

    def position(self) -> dict[str, int]:
        """How far each file is written, in bytes."""
        return {name: (self.run / name).stat().st_size if (self.run / name).exists() else 0 for name in FILES}

    def cut(self, position: dict[str, int]) -> None:
        """Takes back all that was written after `position`, a torn last line included, and the results."""
        disk.discard(self.run / "results.json")
        for name in FILES:
            disk.cut(self.run / name, position.get(name, 0))

    def _append(self, name: str, record: dict[str, Any]) -> None:
        disk.append(self.run / name, json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """For JSON: NaN and infinity as None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
