"""How sums of per-sentence statistics become a corpus score: plain values, so that they can be kept beside them.

Each is called with the sums [k] of the statistics of some sentences and gives the score of those sentences.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mean:
    """(sum of numerators) / (sum of denominators); NaN where nothing counts."""

    def __call__(self, total: np.ndarray) -> float:
        return float(total[0] / total[1]) if total[1] > 0 else float("nan")


@dataclass(frozen=True)
class Rate:
    """(sum of errors) / (sum of the lengths of the references); where those are empty, the number of errors."""

    def __call__(self, total: np.ndarray) -> float:
        return float(total[0] / max(total[1], 1))


SACREBLEU = {  # its metrics -> those of their settings that matter once the statistics are there
    "BLEU": ("max_ngram_order", "smooth_method", "smooth_value", "effective_order"),
    "CHRF": ("char_order", "word_order", "beta"),
    "TER": (),
}


@dataclass(frozen=True)
class Sacrebleu:
    """The corpus score of a metric of sacrebleu, 0-100, from the statistics that the library itself extracts."""

    metric: str  # a key of SACREBLEU
    settings: dict[str, Any]

    @cached_property
    def library(self) -> Any:
        import sacrebleu.metrics as metrics

        return {"BLEU": metrics.BLEU, "CHRF": metrics.CHRF, "TER": metrics.TER}[self.metric](**self.settings)

    def __call__(self, total: np.ndarray) -> float:
        return float(self.library._compute_score_from_stats(total.tolist()).score)


KINDS = {"mean": Mean, "rate": Rate, "sacrebleu": Sacrebleu}


def sacrebleu_of(library: Any) -> Sacrebleu:
    """The aggregate of a metric object of sacrebleu."""
    name = type(library).__name__
    return Sacrebleu(name, {setting: getattr(library, setting) for setting in SACREBLEU[name]})


def described(aggregate: Any) -> dict[str, Any] | None:
    """{"kind": a key of KINDS, and its settings}; None of any other function, which cannot be kept."""
    kinds = [name for name, kind in KINDS.items() if type(aggregate) is kind]
    return {"kind": kinds[0], **asdict(aggregate)} if kinds else None


def rebuilt(description: dict[str, Any]) -> Any:
    """The aggregate that `described` describes. Raises ValueError where there is no such kind or setting."""
    settings = {name: value for name, value in description.items() if name != "kind"}
    try:
        aggregate = KINDS[description["kind"]](**settings)
        if isinstance(aggregate, Sacrebleu):
            _ = aggregate.library
    except (KeyError, TypeError) as error:
        raise ValueError(f"{description} is no way to compute a score from statistics: {error!r}") from None
    return aggregate
