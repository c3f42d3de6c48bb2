"""Beam search, batched over sources."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tokenrl_cli.episodes.sampling import NO_NUMBERS, Decoding, Samples, distribution
from tokenrl_cli.interfaces import Model
from tokenrl_cli.optim import NonFinite


@torch.no_grad()
def beam_search(model: Model, source: Tensor, source_mask: Tensor, decoding: Decoding, eos_id: int) -> Samples:
    """Returns the best hypothesis that a beam search with `decoding.beam_size` beams finds for each of N sources: N
    rows with actions and mask [N, T], T the length of the longest, and `ended` [N]. `logprobs` [N, T] are 0, as nothing
    was sampled, and `support` is None. No gradients. source [N, S] int64 (or [N, S, F] frames), source_mask [N, S].

    Hypotheses are compared by log p / lp with lp = ((5 + length) / 6) ** length_penalty (Wu et al. 2016,
    arXiv:1609.08144, equation 14; EOS is counted in the length). p is the policy's own probability: forbidden tokens
    are left out, but temperature, top-k, top-p and epsilon are ignored. At each step the continuations of all
    unfinished hypotheses of a source are ranked together; one that ends in EOS is finished if it is among the best
    `beam_size`. The search for a source stops when it has as many finished hypotheses as beams, or when no unfinished
    one can score higher. At `decoding.max_length` tokens the unfinished ones are compared, too; their `ended` is False.
    One beam is greedy decoding.

    Does not change the model's mode: call `model.eval()` first to switch dropout off. Raises NonFinite where a source
    has no hypothesis with a finite probability.
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
    if not bool(best.score.isfinite().all()):
        raise NonFinite(NO_NUMBERS)
    return best.samples()


def penalty(length: int, decoding: Decoding) -> float:
    """Returns lp = ((5 + length) / 6) ** length_penalty, by which the log-probability of a hypothesis of `length`
    tokens, EOS included, is divided (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
    divisor: float = ((5 + length) / 6) ** decoding.length_penalty
    return divisor


class Best:
    """The best hypothesis of each of `total` sources so far, of at most `limit` tokens, and how many were found
    (`found`), those cut at the limit included. `like` is any tensor with the type and device of the scores. Before the
    first `take` all are empty with score -inf."""

    def __init__(self, total: int, limit: int, like: Tensor) -> None:
        self.score = like.new_full((total,), -torch.inf)  # normalised
        self.actions = torch.zeros(total, limit, dtype=torch.int64, device=like.device)
        self.lengths = torch.zeros(total, dtype=torch.int64, device=like.device)
        self.ended = torch.zeros(total, dtype=torch.bool, device=like.device)
        self.found = torch.zeros(total, dtype=torch.int64, device=like.device)

    def take(self, actions: Tensor, scores: Tensor, length: int, ended: bool) -> None:
        """Compares C hypotheses (at least one) of each of the N = `total` sources, all of the same `length` in tokens,
        with the best so far, and keeps the better one, the older one at equal scores. actions [N, C, limit] int64, of
        which the first `length` columns are used; scores [N, C], log p / lp (see `penalty`), -inf where
        there is no hypothesis. Adds to `found` [N] the number of scores above -inf. `ended` is stored with each new
        best one: True for hypotheses that end in EOS, False for those cut at the limit."""
        score, place = scores.max(1)
        better = score > self.score
        chosen = actions[torch.arange(len(actions), device=actions.device), place]
        self.score = torch.where(better, score, self.score)
        self.actions = torch.where(better.unsqueeze(1), chosen, self.actions)
        self.lengths = torch.where(better, length, self.lengths)
        self.ended = torch.where(better, ended, self.ended)
        self.found = self.found + (scores > -torch.inf).sum(1)

    def samples(self) -> Samples:
        """Returns the best hypotheses as `Samples`: actions, 0 where masked, and mask [N, T], T the longest length;
        `ended` [N]; log-probabilities [N, T] of 0, because nothing was drawn; `support` None. A source for which
        nothing was found has no tokens."""
        length = int(self.lengths.max())
        mask = torch.arange(length, device=self.lengths.device) < self.lengths.unsqueeze(1)
        nothing = torch.zeros(mask.shape, dtype=self.score.dtype, device=mask.device)
        return Samples(self.actions[:, :length].masked_fill(~mask, 0), mask, nothing, None, self.ended)
