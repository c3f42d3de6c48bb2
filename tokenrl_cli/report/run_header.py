"""The line that describes a run when it starts: model size, vocabulary, data, stages and device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunHeader:
    """Facts about a run that are known before its first step."""

    parameters: int
    learning: int  # how many of them learn
    vocabulary: int  # number of target tokens
    source_vocabulary: int | None  # number of source tokens; None: one vocabulary serves both, or they are recordings
    data: str  # name of the data set
    examples: int | None  # in the training split; None: unlimited
    stages: tuple[tuple[str, int, int], ...]  # name, steps, examples per step
    device: str
    precision: str
    seed: int

    def line(self) -> str:
        """Returns the facts in one line: "1.24 M parameters, vocabulary 3,000, data/e2e: 42,061 examples, warm start
        400 steps = 0.6 epochs, ..."."""
        vocabulary = f"vocabulary {self.vocabulary:,}"
        if self.source_vocabulary is not None:
            vocabulary += f" (sources {self.source_vocabulary:,})"
        examples = "unlimited examples" if self.examples is None else f"{self.examples:,} examples"
        stages = [self._stage(*stage) for stage in self.stages]
        size = f"{_rounded(self.parameters)} parameters"
        if self.learning < self.parameters:
            size += f" of which {_rounded(self.learning)} learn"
        parts = [size, vocabulary, f"{self.data}: {examples}", *stages]
        return ", ".join([*parts, self.device, self.precision, f"seed {self.seed}"])

    def _stage(self, name: str, steps: int, size: int) -> str:
        """A stage with its steps and, if the data are limited, its epochs."""
        label = stage_name(name)
        if not steps:
            return f"no {label}"
        epochs = f" = {steps * size / self.examples:.2g} epochs" if self.examples else ""
        return f"{label} {steps:,} steps{epochs}"


def stage_name(stage: str) -> str:
    """Returns the name of a stage as users read it: "RL" for "train", "warm start" for "warm_start"; any other with
    spaces for underscores."""
    return {"train": "RL"}.get(stage, stage.replace("_", " "))


def _rounded(count: int) -> str:
    """A count in three digits and a unit: "1.24 M"."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size * 0.9995:
            return f"{count / size:.3g} {unit}"
    return str(count)
