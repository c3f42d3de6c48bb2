"""Beam search, batched over sources."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tokenrl_cli.episodes.sampling import Decoding, Samples, distribution
from tokenrl_cli.interfaces import Model


@torch.no_grad()
def beam_search(model: Model, source: Tensor, source_mask: Tensor, decoding: Decoding, eos_id: int) -> Samples:
    """Returns the best of the hypotheses that `decoding.beam_size` beams find for each of the N sources: samples with N
    rows, actions and mask [N, T], without gradients. source and source_mask [N, S].

    Hypotheses are compared by log p / lp, lp = ((5 + length) / 6) ** length_penalty (Wu et al. 2016, arXiv:1609.08144,
    equation 14; EOS counted), with p the policy's own probability: temperature, top-k, top-p and epsilon are ignored,
    forbidden tokens are not. A hypothesis ends when EOS is among the best `beam_size` continuations of its source; a
    source is done when it has as many as there are beams, or no open one can overtake. At `decoding.max_length` tokens
    the open hypotheses compete, too, and have `ended` False. One beam is greedy decoding. The model's mode (dropout) is
    not changed.
    """
    plain = replace(decoding, temperature=1.0, top_k=0, top_p=1.0, epsilon=0.0)
    beams, limit, total, device = decoding.beam_size, decoding.max_length, len(source), source.device
    state = model.start(source, source_mask).repeat(beams)
    first = torch.arange(total, device=device).unsqueeze(1) * beams  # [N, 1], row of each source's first beam
    actions = torch.zeros(total, beams, limit, dtype=torch.int64, device=device)
    open_scores: Tensor | None = None  # [N, beams] log-probabilities
    best: Best | None = None
    previous: Tensor | None = None
    for t in range(limit):
        output, state = model.step(state, previous)
        logprobs, _ = distribution(output.logits[:, 0], plain)
        size = logprobs.shape[-1]
        if open_scores is None or best is None:
            open_scores = logprobs.new_full((total, beams), -torch.inf)
            open_scores[:, 0] = 0.0  # all beams start alike: only one may speak
            best = Best(total, limit, logprobs)
        every = (open_scores.unsqueeze(-1) + logprobs.view(total, beams, size)).flatten(1)
        scores, places = every.topk(min(2 * beams, every.shape[1]), dim=1)  # half of them may be EOS
        origin, token = places // size, places % size
        ends = token == eos_id
        longer = actions.gather(1, origin.unsqueeze(-1).expand(-1, -1, limit))
        longer[:, :, t] = token
        ended = ends & (torch.arange(scores.shape[1], device=device) < beams)
        best.take(longer, scores.masked_fill(~ended, -torch.inf) / penalty(t + 1, decoding), t + 1, True)
        open_scores, kept = scores.masked_fill(ends, -torch.inf).topk(beams, dim=1)
        actions = longer.gather(1, kept.unsqueeze(-1).expand(-1, -1, limit))
        hope = open_scores[:, 0] / max(penalty(t + 2, decoding), penalty(limit, decoding))
        if t + 1 == limit:
            best.take(actions, open_scores / penalty(limit, decoding), limit, False)
        elif bool(((best.found >= beams) | (best.score >= hope)).all()):
            break
        open_scores = open_scores.masked_fill((best.found >= beams).unsqueeze(1), -torch.inf)
        previous = actions[:, :, t].flatten()
        state = state.reorder((first + origin.gather(1, kept)).flatten())
    assert best is not None
    return best.samples()


def penalty(length: int, decoding: Decoding) -> float:
    """Returns lp = ((5 + length) / 6) ** length_penalty, by which the log-probability of a hypothesis of `length`
    tokens is divided (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
    divisor: float = ((5 + length) / 6) ** decoding.length_penalty
    return divisor


class Best:
    """The best finished hypothesis of each source so far."""

    def __init__(self, total: int, limit: int, like: Tensor) -> None:
        self.score = like.new_full((total,), -torch.inf)  # normalised
        self.actions = torch.zeros(total, limit, dtype=torch.int64, device=like.device)
        self.lengths = torch.zeros(total, dtype=torch.int64, device=like.device)
        self.ended = torch.zeros(total, dtype=torch.bool, device=like.device)
        self.found = torch.zeros(total, dtype=torch.int64, device=like.device)

    def take(self, actions: Tensor, scores: Tensor, length: int, ended: bool) -> None:
        """Compares C hypotheses of one `length` for each source, actions [N, C, L] with normalised scores [N, C], with
        the best so far, replaces that where one is better, and counts them in `found`. A score of -inf marks a place
        without a hypothesis. `ended` is False where they were cut at the limit."""
        score, place = scores.max(1)
        better = score > self.score
        chosen = actions[torch.arange(len(actions), device=actions.device), place]
        self.score = torch.where(better, score, self.score)
        self.actions = torch.where(better.unsqueeze(1), chosen, self.actions)
        self.lengths = torch.where(better, length, self.lengths)
        self.ended = torch.where(better, ended, self.ended)
        self.found = self.found + (scores > -torch.inf).sum(1)

    def samples(self) -> Samples:
        """Returns the best hypotheses as samples: actions and mask [N, T], T the longest length, and log-probabilities
        [N, T] of 0, because nothing was drawn, as in greedy decoding."""
        length = int(self.lengths.max())
        mask = torch.arange(length, device=self.lengths.device) < self.lengths.unsqueeze(1)
        nothing = torch.zeros(mask.shape, dtype=self.score.dtype, device=mask.device)
        return Samples(self.actions[:, :length].masked_fill(~mask, 0), mask, nothing, None, self.ended)
