"""What a run is made of, in the one line that stands at its beginning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Start:
    """Facts of a run that are known before its first step."""

    parameters: int
    vocabulary: int  # of the targets
    source_vocabulary: int | None  # None: the sources share that of the targets
    data: str  # name of the data set
    examples: int | None  # of its training split; None: unlimited
    stages: tuple[tuple[str, int, int], ...]  # name, steps, examples a step
    device: str
    precision: str
    seed: int

    def line(self) -> str:
        """ "1.24 M parameters, vocabulary 3,000, data/e2e: 42,061 examples, warm start 400 steps = 0.6 epochs, ..." """
        words = f"vocabulary {self.vocabulary:,}"
        if self.source_vocabulary is not None:
            words += f" (sources {self.source_vocabulary:,})"
        many = "unlimited examples" if self.examples is None else f"{self.examples:,} examples"
        stages = [self._stage(*stage) for stage in self.stages]
        parts = [f"{_short(self.parameters)} parameters", words, f"{self.data}: {many}", *stages]
        return ", ".join([*parts, self.device, self.precision, f"seed {self.seed}"])

    def _stage(self, name: str, steps: int, size: int) -> str:
        shown = named(name)
        if not steps:
            return f"no {shown}"
        epochs = f" = {steps * size / self.examples:.2g} epochs" if self.examples else ""
        return f"{shown} {steps:,} steps{epochs}"


def named(stage: str) -> str:
    """A stage in words: "warm start", "RL"."""
    return {"train": "RL"}.get(stage, stage.replace("_", " "))


def _short(count: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size * 0.9995:
            return f"{count / size:.3g} {unit}"
    return str(count)
