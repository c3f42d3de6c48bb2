"""Functions from sums of per-sentence statistics to a corpus score.

Each is called with the statistics of some sentences, summed [k], and returns the score of those sentences as one set: a
number. They are dataclasses of plain values, so that they can be saved beside the statistics (`described`) and restored
(`rebuilt`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mean:
    """Mean score, (sum of numerators) / (sum of denominators): [2] -> a number; NaN where the second sum is not above
    0."""

    def __call__(self, total: np.ndarray) -> float:
        return float(total[0] / total[1]) if total[1] > 0 else float("nan")


@dataclass(frozen=True)
class Rate:
    """Error rate, (sum of errors) / (sum of reference lengths): [2] -> a number, at least 0 and perhaps above 1, not a
    percentage; where the length is 0, the number of errors."""

    def __call__(self, total: np.ndarray) -> float:
        return float(total[0] / max(total[1], 1))


SACREBLEU = {  # sacrebleu's metrics -> those of their settings that are read when statistics become a score
    "BLEU": ("max_ngram_order", "smooth_method", "smooth_value", "effective_order"),
    "CHRF": ("char_order", "word_order", "beta"),
    "TER": (),
}


@dataclass(frozen=True)
class Sacrebleu:
    """Corpus score of a sacrebleu metric on the library's scale (BLEU and chrF 0-100, TER from 0, which may be above
    100), from sums [k] of the statistics that the library itself extracts."""

    metric: str  # a key of SACREBLEU
    settings: dict[str, Any]

    @cached_property
    def library(self) -> Any:
        """The sacrebleu metric object with these settings, made at the first access and kept. Raises TypeError for a
        setting that the metric does not have, KeyError for an unknown metric."""
        from sacrebleu import BLEU, CHRF, TER

        return {"BLEU": BLEU, "CHRF": CHRF, "TER": TER}[self.metric](**self.settings)

    def __call__(self, total: np.ndarray) -> float:
        return float(self.library._compute_score_from_stats(total.tolist()).score)


KINDS = {"mean": Mean, "rate": Rate, "sacrebleu": Sacrebleu}


def sacrebleu_of(library: Any) -> Sacrebleu:
    """Returns the `Sacrebleu` aggregate of a BLEU, CHRF or TER object of sacrebleu, with those of its settings that are
    read when statistics become a score. Raises KeyError for an object of another class."""
    name = type(library).__name__
    return Sacrebleu(name, {setting: getattr(library, setting) for setting in SACREBLEU[name]})


def described(aggregate: Any) -> dict[str, Any] | None:
    """Returns a dictionary for JSON that `rebuilt` can read: "kind", a key of KINDS, and the settings of the aggregate.
    None for any other function, such as a user's own, which cannot be saved."""
    kinds = [name for name, kind in KINDS.items() if type(aggregate) is kind]
    return {"kind": kinds[0], **asdict(aggregate)} if kinds else None


def rebuilt(description: dict[str, Any]) -> Any:
    """Returns the aggregate of a dictionary made by `described`. Raises ValueError where there is no such kind or
    setting."""
    settings = {name: value for name, value in description.items() if name != "kind"}
    try:
        aggregate = KINDS[description["kind"]](**settings)
        if isinstance(aggregate, Sacrebleu):
            _ = aggregate.library
    except (KeyError, TypeError) as error:
        raise ValueError(f"{description} is no way to compute a score from statistics: {error!r}") from None
    return aggregate
