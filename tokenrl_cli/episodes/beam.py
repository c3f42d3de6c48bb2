"""Beam search, batched over sources."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tokenrl_cli.episodes.sampling import NO_NUMBERS, Decoding, Samples, distribution
from tokenrl_cli.interfaces import Model
from tokenrl_cli.optim import NonFinite


@torch.no_grad()
def beam_search(
    model: Model, source: Tensor, source_mask: Tensor, decoding: Decoding, eos_id: int, hypotheses: int = 1
) -> Samples:
    """Returns the best H = `hypotheses` (at most `decoding.beam_size`) that a beam search with `decoding.beam_size`
    beams finds for each of N sources: N * H rows with actions and mask [N * H, T], T the length of the longest, and
    `ended` [N * H]; those of a source next to each other, the best first, all of them different, and where fewer than H
    were found rows without tokens at the end. `logprobs` [N * H, T] are 0, as nothing was sampled, and `support` is
    None. No gradients. source [N, S] int64 (or [N, S, F] frames), source_mask [N, S].

    Hypotheses are compared by log p / lp with lp = ((5 + length) / 6) ** length_penalty (Wu et al. 2016,
    arXiv:1609.08144, equation 14; EOS is counted in the length). p is the policy's own probability: forbidden tokens
    are left out, but temperature, top-k, top-p and epsilon are ignored. At each step the continuations of all
    unfinished hypotheses of a source are ranked together; one that ends in EOS is finished if it is among the best
    `beam_size`. The search for a source stops when it has as many finished hypotheses as beams, or when no unfinished
    one can score higher than the last of the best H. At `decoding.max_length` tokens the unfinished ones are compared,
    too; their `ended` is False. One beam is greedy decoding.

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
            best = Best(total, hypotheses, limit, logprobs)
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
        elif bool(((best.found >= beams) | (best.scores[:, -1] >= hope)).all()):
            break
        open_scores = open_scores.masked_fill((best.found >= beams).unsqueeze(1), -torch.inf)
        previous = actions[:, :, t].flatten()
        state = state.reorder((first + origin.gather(1, kept)).flatten())
    assert best is not None
    if not bool(best.scores[:, 0].isfinite().all()):
        raise NonFinite(NO_NUMBERS)
    return best.samples()


def penalty(length: int, decoding: Decoding) -> float:
    """Returns lp = ((5 + length) / 6) ** length_penalty, by which the log-probability of a hypothesis of `length`
    tokens, EOS included, is divided (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
    divisor: float = ((5 + length) / 6) ** decoding.length_penalty
    return divisor


class Best:
    """The best H hypotheses of each of N sources so far, best first, each of at most `limit` tokens, and how many were
    found (`found` [N]), those cut at the limit included. `like` is any tensor with the type and device of the scores.
    Before the first `take` all are empty with score -inf."""

    def __init__(self, total: int, hypotheses: int, limit: int, like: Tensor) -> None:
        shape, device = (total, hypotheses), like.device
        self.scores = like.new_full(shape, -torch.inf)  # normalised
        self.actions = torch.zeros(*shape, limit, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(shape, dtype=torch.int64, device=device)
        self.ended = torch.zeros(shape, dtype=torch.bool, device=device)
        self.found = torch.zeros(total, dtype=torch.int64, device=device)

    def take(self, actions: Tensor, scores: Tensor, length: int, ended: bool) -> None:
        """Compares C hypotheses (at least one) of each of the N sources, all of the same `length` in tokens, with the
        best so far, and keeps the better ones, the older one at equal scores. actions [N, C, limit] int64, of which the
        first `length` columns are used; scores [N, C], log p / lp (see `penalty`), -inf where there is no hypothesis.
        Adds to `found` [N] the number of scores above -inf. `ended` is stored with each new one: True for hypotheses
        that end in EOS, False for those cut at the limit."""
        ranked, order = torch.cat([self.scores, scores], 1).sort(dim=1, descending=True, stable=True)
        order = order[:, : self.scores.shape[1]]

        def kept(old: Tensor, new: Tensor) -> Tensor:
            both = torch.cat([old, new], 1)
            return both.gather(1, order.view(*order.shape, *[1] * (both.dim() - 2)).expand(-1, -1, *both.shape[2:]))

        self.scores = ranked[:, : self.scores.shape[1]]
        self.actions = kept(self.actions, actions)
        self.lengths = kept(
            self.lengths, self.lengths.new_full(scores.shape, length).masked_fill(scores == -torch.inf, 0)
        )
        self.ended = kept(self.ended, self.ended.new_full(scores.shape, ended))
        self.found = self.found + (scores > -torch.inf).sum(1)

    def samples(self) -> Samples:
        """Returns the best hypotheses as `Samples` of N * H rows: actions, 0 where masked, and mask [N * H, T], T the
        longest length; `ended` [N * H]; log-probabilities [N * H, T] of 0, because nothing was drawn; `support` None.
        A row for which nothing was found has no tokens."""
        length, lengths = int(self.lengths.max()), self.lengths.flatten()
        mask = torch.arange(length, device=lengths.device) < lengths.unsqueeze(1)
        nothing = torch.zeros(mask.shape, dtype=self.scores.dtype, device=mask.device)
        actions = self.actions.flatten(0, 1)[:, :length].masked_fill(~mask, 0)
        return Samples(actions, mask, nothing, None, self.ended.flatten())
