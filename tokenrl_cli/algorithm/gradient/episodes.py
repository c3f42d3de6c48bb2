"""Episodes with everything that the loss of a policy gradient reads."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

from torch import Tensor

from tokenrl_cli.interfaces import DEMONSTRATION, Rollout


@dataclass(frozen=True)
class EpisodesWithAdvantages:
    """B rewarded episodes that are learned from: samples, and demonstrations that were added as samples."""

    episodes: Rollout
    advantages: Tensor  # [B, T], A_t; 0 at tokens that are not learned from
    weights: Tensor  # [B, T], w_t of the aggregation over the optimiser step that the rows belong to
    values: Tensor  # [B, T], V(s_t) of the critic when the episodes were sampled
    returns: Tensor  # [B, T], G_t, which the critic is trained to predict
    first: Tensor  # [B] bool, one row of each source: there its demonstration is counted in the cross-entropy
    likelihood_mask: Tensor  # [B, R] bool, the tokens of the demonstration that the cross-entropy counts

    def __len__(self) -> int:
        return len(self.episodes)

    def rows(self, index: slice | Tensor) -> EpisodesWithAdvantages:
        """Returns the episodes at `index`, in its order, with their rows of every tensor, [B', T] and so on for B'
        episodes. `index` is a slice, or a tensor [B'] int64 of row numbers or [B] bool. `weights` stay those of the
        optimiser step that they were computed for."""
        others = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "episodes"}
        return EpisodesWithAdvantages(self.episodes.rows(index), **others)

    @cached_property
    def usable(self) -> Tensor:
        """bool [B, T]: the tokens of `learned_tokens` in episodes that are True in `episodes.valid`: they have a
        reward, and were not dropped, as duplicates or as groups of equal scores."""
        return learned_tokens(self.episodes) & self.episodes.valid.unsqueeze(-1)

    @cached_property
    def sampled(self) -> Tensor:
        """bool [B, T]: the tokens of `usable` that the policy generated itself: no padding, no forced tokens, nothing
        of an added demonstration, and nothing of an episode that does not count (without a reward, or dropped)."""
        return self.usable & self.episodes.chosen


def learned_tokens(episodes: Rollout) -> Tensor:
    """Returns bool [B, T]: real tokens that the policy generated, whatever the role of the episode, greedy ones
    included, and all real tokens of a demonstration that was added as a sample; not those that were forced on the
    policy. Whether the episode has a reward (`valid`) is not read."""
    added = (episodes.role == DEMONSTRATION).unsqueeze(-1)
    return episodes.mask & (episodes.chosen | added)
