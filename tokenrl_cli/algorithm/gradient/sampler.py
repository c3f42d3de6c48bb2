"""Sampling of the episodes that a policy gradient learns from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Literal

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.facts import needs
from tokenrl_cli.episodes.beam import beam_search
from tokenrl_cli.episodes.sampling import Decoding, concatenate, generate, logprobs_of, recite, rollout_of
from tokenrl_cli.functional.chunks import logits_of, over_states
from tokenrl_cli.interfaces import CONTINUATION, GREEDY, SAMPLED, Batch, Critic, ModelModule, Rollout, SettingError


class Sampler:
    """Collects the episodes of one rollout from N sources (prompts), K = `samples_per_source` for each.

    What a rollout consists of, by the role of its rows and in this order:

    SAMPLED        [N K] drawn from the policy with `decoding`; K rows of a source stand together. With `hypotheses`
                   "beam" they are drawn by no chance: the K best that a beam search with K beams finds
    CONTINUATION   for a critic that estimates V(s) by sampling: a prefix of a SAMPLED one, then new tokens
    DEMONSTRATION  [N] with `add_reference`: the demonstration, which is then one more sample of its source
    GREEDY         [N] with `greedy_baseline`: the greedy episode, whose reward is a baseline; never learned from

    With `forced_prefix` a SAMPLED or GREEDY episode begins with tokens of the demonstration (MIXER, Ranzato et al.
    2016, arXiv:1511.06732): `forced_prefix(number of rollouts so far)` is how many of the last tokens of a text are
    left to the policy, infinite for all of them. Forced tokens are not `chosen`, and their log-probability is 0.

    `size` = V. The constructor raises UserError for `add_reference` with top-k, top-p or epsilon in `decoding`: under a
    cut the policy may be unable to generate the demonstration, whose log-probability would be minus infinity. And for
    `hypotheses` "beam" with a temperature, cut, epsilon or forced prefix: a search compares the plain probabilities of
    whole texts.
    """

    def __init__(
        self,
        decoding: Decoding,
        samples_per_source: int,
        hypotheses: Literal["samples", "beam"],
        forced_prefix: Callable[[int], float],
        add_reference: bool,
        greedy_baseline: bool,
        critic: Critic,
        eos_id: int,
        size: int,
        seed: int,
    ) -> None:
        if add_reference and (decoding.cuts or decoding.epsilon > 0):
            problem = "the demonstration may be none of the texts that top_k, top_p and epsilon leave to choose from"
            raise SettingError("add_reference", problem, "leave them at 0, 1 and 0")
        if hypotheses == "beam" and not (decoding.plain and math.isinf(forced_prefix(0))):
            problem = (
                "a beam search draws no samples: temperature, top_k, top_p, epsilon and a prefix have no place in it"
            )
            raise SettingError("hypotheses=beam", problem, "leave them at 1, 0, 1, 0 and none")
        self.decoding, self.samples_per_source, self.forced_prefix = decoding, samples_per_source, forced_prefix
        self.searches = hypotheses == "beam"
        self.add_reference, self.greedy_baseline, self.critic = add_reference, greedy_baseline, critic
        self.greedy = replace(decoding, temperature=0.0, top_k=0, top_p=1.0, epsilon=0.0)
        self.eos_id, self.size, self.seed = eos_id, size, seed

    def reads_demonstrations(self) -> bool:
        """Returns whether rollouts hold tokens of demonstrations: added ones (`add_reference`), or forced prefixes (if
        `forced_prefix` is finite at the first rollout)."""
        return self.add_reference or math.isfinite(self.forced_prefix(0))

    def collect(self, model: ModelModule, batch: Batch, rollouts: int) -> Rollout:
        """Returns the episodes of every source of `batch`, without rewards, in the order samples, continuations,
        demonstrations, greedy episodes (the last three only where the settings need them; see the class). `rollouts` is
        the number of rollouts learned from before this one, on which `forced_prefix` depends.

        `model` must be in evaluation mode. The same seed and `batch.step` give the same random numbers. Raises
        NonFinite where a probability is not finite.
        """
        if self.searches:
            sampled = self._best(model, batch)
        else:
            sampled = self._episodes(model, batch, self.decoding, self.samples_per_source, SAMPLED, rollouts)
        parts = [sampled]
        if self.critic.continuations:
            parts.append(self._continuations(model, sampled))
        if self.add_reference:
            parts.append(self.demonstrations(model, batch))
        if self.greedy_baseline:
            parts.append(self._episodes(model, batch, self.greedy, 1, GREEDY, rollouts))
        return concatenate(parts)

    def _episodes(
        self, model: ModelModule, batch: Batch, decoding: Decoding, times: int, role: int, rollouts: int
    ) -> Rollout:
        """`times` episodes of each source, after the forced prefix where there is one."""
        draws = streams.generator(self.seed, "rollout", batch.step)
        tokens = batch.targets.repeat_interleave(times, 0)
        forced = self._forced(batch.target_mask, rollouts).repeat_interleave(times, 0)
        given = (tokens, forced) if bool(forced.any()) else None
        samples = generate(model, batch.source, batch.source_mask, decoding, times, self.eos_id, draws, given)
        return _not_chosen(rollout_of(batch, samples, role), forced)

    def _forced(self, target_mask: Tensor, rollouts: int) -> Tensor:
        """The tokens of the demonstrations that episodes begin with: all but the last ones. [B, R] -> bool [B, R]."""
        kept = (target_mask.sum(-1, keepdim=True) - self.forced_prefix(rollouts)).clamp(min=0)
        return target_mask & (torch.arange(target_mask.shape[1], device=target_mask.device) < kept)

    def likelihood_mask(self, target_mask: Tensor, rollouts: int) -> Tensor:
        """Returns the tokens of the demonstrations that the cross-entropy is a mean over: those that are forced on an
        episode after `rollouts` rollouts, or all of them where `forced_prefix` is infinite. `target_mask` [B, R] bool
        holds their real tokens -> [B, R] bool."""
        return self._forced(target_mask, rollouts) if math.isfinite(self.forced_prefix(rollouts)) else target_mask

    def _continuations(self, model: ModelModule, sampled: Rollout) -> Rollout:
        """From each state that the critic names, `critic.continuations` episodes that begin as the sampled one did."""
        rows, lengths = self.critic.states(sampled.mask & sampled.chosen)
        times = self.critic.continuations
        rows, lengths = rows.repeat_interleave(times), lengths.repeat_interleave(times)
        begun = sampled.rows(rows)
        forced = torch.arange(begun.actions.shape[1], device=rows.device) < lengths.unsqueeze(-1)
        draws = streams.generator(self.seed, "continuation", sampled.step)
        samples = generate(
            model, begun.source, begun.source_mask, self.decoding, 1, self.eos_id, draws, (begun.actions, forced),
            begun.source_row,
        )  # fmt: skip
        generated = {f.name: getattr(samples, f.name) for f in fields(samples)}
        role = torch.full_like(begun.role, CONTINUATION)
        return _not_chosen(replace(begun, role=role, parent=rows, chosen=samples.mask, **generated), forced)

    def _best(self, model: ModelModule, batch: Batch) -> Rollout:
        """The K best hypotheses of each source, with the log-probabilities that the policy gives their tokens. Rows
        without tokens, where there are fewer, are not valid."""
        search = replace(self.decoding, beam_size=self.samples_per_source)
        best = beam_search(model, batch.source, batch.source_mask, search, self.eos_id, self.samples_per_source)
        return self._scored(model, rollout_of(batch, best, SAMPLED))

    def demonstrations(self, model: ModelModule, batch: Batch) -> Rollout:
        """Returns a Rollout of one demonstration of each source as an episode, [N, R], without tokens, and not `valid`,
        where a source has none. `logprobs` are those that `model` gives its tokens under `decoding`, in its present
        mode, 0 where padded; without gradient."""
        return self._scored(model, recite(batch, self.eos_id))

    @torch.no_grad()
    def _scored(self, model: ModelModule, rollout: Rollout) -> Rollout:
        """The rollout with the log-probabilities of its tokens from a teacher-forced pass, valid where it has any."""
        output = model(rollout.source, rollout.source_mask, rollout.actions, rollout.source_row)

        def logprobs_in(hidden: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
            return (logprobs_of(logits_of(output, hidden), actions, self.decoding, None),)

        (logprobs,) = over_states(logprobs_in, self.size, rollout.mask, output.hidden, rollout.actions)
        return replace(rollout, logprobs=logprobs.masked_fill(~rollout.mask, 0.0), valid=rollout.mask.any(-1))


def check_weights(hypotheses: Literal["samples", "beam"], normalisation: Callable[..., Tensor]) -> None:
    """Raises UserError for `hypotheses` "beam" with a `normalisation` that does not weight episodes by their
    likelihoods, [N, K] of the K hypotheses of N sources: it would take the best hypotheses for samples."""
    if hypotheses == "beam" and "likelihoods" not in needs(normalisation):
        problem = "the best hypotheses are no samples, and this normalisation would weigh them like samples"
        remedy = "{here}/normalisation=self_normalised, which weights each by its probability"
        raise SettingError("hypotheses=beam", problem, remedy)


def _not_chosen(rollout: Rollout, forced: Tensor) -> Rollout:
    """The rollout, in which the tokens `forced` [B, P] are not `chosen` by the policy."""
    width = rollout.actions.shape[1]
    given = nn.functional.pad(forced[:, :width], (0, max(0, width - forced.shape[1])))
    return replace(rollout, chosen=rollout.chosen & ~given)
