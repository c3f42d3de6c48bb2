"""Several rewards at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokenrl_cli.episodes.scoring import per_text, scored
from tokenrl_cli.interfaces import HasParts, Part, ReadsReferences, Reward, Scored, SettingError, Texts


class Mixture:
    """The sum of several rewards, sum_i weight_i * (scale_i * score_i + shift_i). `weights`, `scales` and `shifts` map
    names of `parts`; a part that is not named has weight and scale 1 and shift 0.

    Credit is given to each part separately, so a dense part and one that is known only at the end go together; each is
    logged by its name, before it is scaled. `normalize` replaces scale and shift by those that give each part mean 0
    and standard deviation 1 over the sampled texts of the batch: a part of any scale has the influence that its weight
    gives it, but what is optimised then moves with the batch. This is done where credit is given; a call and evaluation
    do not normalise. NaN in a part makes the sum NaN. Raises SettingError without parts, for a name that is no part,
    for `normalize` beside scales or shifts, and for a mixture as a part.
    """

    def __init__(
        self,
        parts: dict[str, Reward],
        weights: dict[str, float],
        scales: dict[str, float],
        shifts: dict[str, float],
        normalize: bool,
    ) -> None:
        if not parts:
            raise SettingError("parts", "has no part", "+reward@{here}.parts.bleu=bleu")
        for key, values in (("weights", weights), ("scales", scales), ("shifts", shifts)):
            for name in values:
                if name not in parts:
                    raise SettingError(f"{key}.{name}", f"there is no such part; there are {', '.join(parts)}")
        if normalize and (scales or shifts):
            raise SettingError("normalize", "chooses scale and shift itself", "{here}.scales={} {here}.shifts={}")
        for name, part in parts.items():
            if isinstance(part, HasParts):
                raise SettingError(f"parts.{name}", "is a mixture itself", "name its parts beside the others")
        self.parts = [
            Part(name, part, weights.get(name, 1.0), scales.get(name, 1.0), shifts.get(name, 0.0), normalize)
            for name, part in parts.items()
        ]

    @property
    def needs_references(self) -> bool:
        """True where any part has `needs_references` True."""
        return any(isinstance(each.reward, ReadsReferences) and each.reward.needs_references for each in self.parts)

    def __call__(self, texts: Texts) -> Scored:
        """Returns a Scored: the sum for each text, [B] float64, never normalised, without metrics, and as columns the
        score of each part before it is scaled, by its name, and the part's own columns, as NAME/COLUMN. A part that
        gives one number a token, [B, T], enters with its sum. Raises UserError where a part gives something else."""
        total = np.zeros(len(texts.hypotheses))
        columns: dict[str, list[Any]] = {}
        for part in self.parts:
            said = scored(part.reward, texts)
            whole = per_text(said.scores, texts.mask)
            total += part.weight * (part.scale * whole + part.shift)
            columns[part.name] = whole.tolist()
            columns |= {f"{part.name}/{name}": values for name, values in said.columns.items()}
        return Scored(total, {}, columns)
