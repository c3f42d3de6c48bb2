"""How tokens are sampled: `Decoding`, the one `distribution`, and `generate`, the only autoregressive loop.

The sampler and the scorer call the same `distribution`, so the importance ratio of the first pass is 1 whatever the
temperature or the cut. Randomness is one uniform number for every (row, step), drawn in advance: the tokens of a row do
not depend on which other rows have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from tokenrl_cli.config.ranges import CountOrZero, Ge, Gt, Le, Probability, Size, SizeOrZero, Weight
from tokenrl_cli.functional.masking import first_of_each
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import CONTINUATION, DEMONSTRATION, PER_SOURCE, Batch, Model, Rollout, State
from tokenrl_cli.optim import NonFinite

NO_NUMBERS = "its probabilities are no numbers: the weights are too large to be computed with"


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen from a policy. `max_length` is in tokens, EOS included. `temperature` divides the logits
    (0: the best token). `top_k` (0: all) and `top_p` (1: all) cut the less probable tokens off. `epsilon` is the share
    of a uniform distribution over the tokens left. `forbidden` are ids that are never chosen. `beam_size` above 1 means
    `beam_search`, and `length_penalty` is the exponent of its `penalty`; `generate` and `distribution` do not read
    these two."""

    max_length: Size
    temperature: Weight
    top_k: SizeOrZero
    top_p: Annotated[float, Gt(0), Le(1)]
    epsilon: Probability
    forbidden: Sequence[CountOrZero]
    beam_size: Size
    length_penalty: Annotated[float, Ge(-10), Le(10)]

    def idle(self) -> list[tuple[str, str, float]]:
        """Returns (name, why, value) for each setting that is switched on but has no effect beside the others; `value`
        is the one that turns it off. A beam search draws no samples, nothing cuts off the best token of greedy
        decoding, and one hypothesis needs no length penalty. [] where every setting counts."""
        cut = [("top_k", self.top_k > 0), ("top_p", self.top_p < 1)]
        drawn = [("temperature", self.temperature > 0), *cut, ("epsilon", self.epsilon > 0)]
        if self.beam_size > 1:
            idle, why = drawn, f"does nothing in a search with decode.beam_size={self.beam_size}, which draws no sample"
        else:
            idle = [("length_penalty", self.length_penalty != 0), *(cut if self.temperature == 0 else ())]
            why = "does nothing where decode.beam_size=1 and decode.temperature=0 take the best token each time"
        alone = "compares hypotheses of several lengths, and decode.beam_size=1 keeps a single one"
        reasons = {"length_penalty": alone}
        return [(name, reasons.get(name, why), {"top_p": 1}.get(name, 0)) for name, given in idle if given]

    @property
    def name(self) -> str:
        """The kind of decoding as file names and logs have it: "beam", "greedy" (temperature 0, whatever epsilon is) or
        "sample"."""
        return "beam" if self.beam_size > 1 else "greedy" if self.temperature == 0 else "sample"

    @property
    def cuts(self) -> bool:
        """Whether top-k or top-p may remove tokens from the distribution; never at temperature 0."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1)

    @property
    def plain(self) -> bool:
        """Whether the distribution sampled from is the plain softmax of the policy."""
        return self.temperature == 1 and not (self.cuts or self.forbidden or self.epsilon)


@dataclass(frozen=True)
class Samples:
    """The output of `generate` and `beam_search`: B episodes of at most T tokens. Masked places hold 0. The fields are
    as in Rollout: `logprobs` 0 where forced or padded, and everywhere after a beam search; `support` None where neither
    top-k nor top-p cut the distribution; `ended` False where a row was cut at the limit."""

    actions: Tensor  # [B, T] int64
    mask: Tensor  # [B, T] bool
    logprobs: Tensor  # [B, T]
    support: Tensor | None  # [B, T, k]
    ended: Tensor  # [B] bool


def distribution(logits: Tensor, decoding: Decoding, support: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Returns the log-probabilities [..., V] of the distribution that `decoding` samples from, given `logits` [..., V],
    and the support: the ids [..., k] that a cut by top-k or top-p kept, repeats allowed; None without a cut. A token
    that cannot be sampled has -inf. Computed in float32 at least; gradients flow to the logits.

    logits -> forbidden tokens removed -> top-k and top-p -> temperature -> softmax -> mixture with the uniform
    distribution over the tokens left (epsilon); top-p counts the mass at that temperature. Temperature 0 gives the best
    token the probability 1, without a gradient. Give the support back as `support` [..., k] to score under exactly that
    cut, for a cut recomputed from slightly different logits may keep other tokens; it is then returned as it is.
    """
    logits = precise(logits)
    if decoding.forbidden:
        logits = logits.index_fill(-1, torch.tensor(list(decoding.forbidden), device=logits.device), -torch.inf)
    if support is None and decoding.cuts:
        support = _kept(logits.detach() / decoding.temperature, decoding)
    if support is not None:
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, support, True)
        logits = logits.masked_fill(~kept, -torch.inf)
    if decoding.temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        logprobs = torch.full_like(logits, -torch.inf).scatter(-1, best, 0.0)
    else:
        # dividing by 1 changes nothing, and would hold a second [..., V] in memory
        scaled = logits if decoding.temperature == 1 else logits / decoding.temperature
        logprobs = scaled.log_softmax(-1)
    if decoding.epsilon > 0:
        possible = logits > -torch.inf
        uniform = possible.to(logprobs.dtype) / possible.sum(-1, keepdim=True)
        mixed = (1 - decoding.epsilon) * logprobs.exp() + decoding.epsilon * uniform
        logprobs = mixed.masked_fill(~possible, 1.0).log().masked_fill(~possible, -torch.inf)  # log 0 has no gradient
    return logprobs, support


def _kept(logits: Tensor, decoding: Decoding) -> Tensor:
    """Ids [..., k] that top-k and top-p keep; a row that keeps fewer than k repeats its best id."""
    size = logits.shape[-1] if decoding.top_k == 0 else min(decoding.top_k, logits.shape[-1])
    values, ids = logits.topk(size, dim=-1)
    before = values.softmax(-1).cumsum(-1) - values.softmax(-1)  # mass of the better tokens
    keep = (before < decoding.top_p) & (values > -torch.inf)  # the best token always stays
    width = int(keep.sum(-1).max())
    return torch.where(keep, ids, ids[..., :1])[..., :width]


def logprobs_of(logits: Tensor, actions: Tensor, decoding: Decoding, support: Tensor | None) -> Tensor:
    """Returns the log-probability [B, T] of actions [B, T] int64 under the distribution that `decoding` makes of logits
    [B, T, V]; -inf for a token that it cannot sample. Computed in float32 at least; gradients flow to the logits.
    `support` [B, T, k] is that of the sampling, see `distribution`; None: a cut by top-k or top-p is made anew. No mask
    is given: the caller masks the values of padding, which may be -inf."""
    logprobs, _ = distribution(logits, decoding, support)
    return of_tokens(logprobs, actions)


def of_tokens(values: Tensor, actions: Tensor) -> Tensor:
    """Returns the entries of values [..., V] at the tokens actions [...] int64 -> [...]. Gradients flow into
    `values`."""
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def generate(
    model: Model,
    source: Tensor,
    source_mask: Tensor,
    decoding: Decoding,
    samples: int,
    eos_id: int,
    generator: torch.Generator,
    forced: tuple[Tensor, Tensor] | None = None,
    source_row: Tensor | None = None,
) -> Samples:
    """Samples `samples` episodes for each of N sources, or with `source_row` [M] for each of the sources at its M rows;
    each source is encoded once. Returns `Samples` of B = N * samples (or M * samples) rows, those of a source next to
    each other: actions, mask and log-probabilities [B, T], T the length of the longest. The log-probabilities are those
    of the `distribution` that was sampled from, with its temperature and cuts. No gradients. source [N, S] int64 (or
    [N, S, F] frames), source_mask [N, S]. The model's mode is not changed (call `model.eval()` first to switch dropout
    off), and `decoding.beam_size` is not read.

    Sampling stops when every row has generated EOS, or at `decoding.max_length` tokens. `forced` holds tokens [B, P]
    and a mask [B, P] bool, True where the token is taken whatever the policy would choose; its log-probability is then
    given as 0, and a forced EOS ends the row. `generator` is one of the CPU, from which B * max_length numbers are
    drawn, however long the texts get. Raises NonFinite where a token that was chosen has no finite log-probability.
    """
    state, total = _begin(model, source, source_mask, samples, source_row)
    limit, device = decoding.max_length, source.device
    draws = torch.rand(total, limit, generator=generator, dtype=torch.float64).to(device)
    actions = torch.zeros(total, limit, dtype=torch.int64, device=device)
    mask = torch.zeros(total, limit, dtype=torch.bool, device=device)
    logprobs: Tensor | None = None
    supports: list[tuple[Tensor, Tensor]] = []
    rows = torch.arange(total, device=device)  # of the whole, that are still computed
    live = torch.ones(total, dtype=torch.bool, device=device)  # of `rows`, that still talk
    previous: Tensor | None = None
    for t in range(limit):
        output, state = model.step(state, previous)
        scores, support = distribution(output.logits[:, 0], decoding)
        previous = _choose(scores, draws[rows, t], decoding)
        given = scores.gather(-1, previous.unsqueeze(-1)).squeeze(-1)
        if forced is not None and t < forced[0].shape[1]:
            said, here = forced[0][rows, t], forced[1][rows, t]
            previous, given = torch.where(here, said, previous), given.masked_fill(here, 0.0)
        if logprobs is None:
            logprobs = torch.zeros(total, limit, dtype=scores.dtype, device=device)
        talking = rows[live]
        actions[talking, t] = previous[live]
        mask[talking, t] = True
        logprobs[talking, t] = given[live]
        if support is not None:
            supports.append((talking, support[live]))
        live = live & (previous != eos_id)
        count = int(live.sum())
        if count == 0:
            break
        if count <= 0.75 * len(rows):
            index = live.nonzero().squeeze(-1)
            rows, previous, state, live = rows[index], previous[index], state.reorder(index), live[index]
    assert logprobs is not None
    if not bool(logprobs.isfinite().all()):
        raise NonFinite(NO_NUMBERS)
    length = int(mask.sum(-1).max())
    support, ended = _assemble(supports, total, length), (mask & (actions == eos_id)).any(-1)
    return Samples(actions[:, :length], mask[:, :length], logprobs[:, :length], support, ended)


def _begin(
    model: Model, source: Tensor, source_mask: Tensor, samples: int, source_row: Tensor | None
) -> tuple[State, int]:
    """The state of B rows before their first token, for which each source [N, S] was encoded once; and B."""
    state, rows = model.start(source, source_mask), len(source)
    if source_row is not None:
        state, rows = state.reorder(source_row), len(source_row)
    return (state.repeat(samples) if samples > 1 else state), rows * samples


def _choose(logprobs: Tensor, draw: Tensor, decoding: Decoding) -> Tensor:
    """Inverse of the cumulated distribution at `draw` in [0, 1): [B, V], [B] -> [B]. Never a token of probability 0."""
    if decoding.temperature == 0 and decoding.epsilon == 0:
        return logprobs.argmax(-1)
    cumulated = logprobs.exp().double().cumsum(-1)
    total = cumulated[:, -1]
    below = torch.nextafter(total, torch.zeros_like(total))  # the product may round up to the total
    point = torch.minimum(draw * total, below)
    found = torch.searchsorted(cumulated, point.unsqueeze(-1), right=True).squeeze(-1)
    return found.clamp_max_(logprobs.shape[-1] - 1)  # beyond the last only where they are no numbers: see generate


def _assemble(supports: list[tuple[Tensor, Tensor]], total: int, length: int) -> Tensor | None:
    """Supports of each step, (rows, ids [rows, k_t]) -> [total, length, k]; 0 in steps that were not taken."""
    if not supports:
        return None
    width = max(ids.shape[-1] for _, ids in supports)
    whole = supports[0][1].new_zeros(total, length, width)
    for t, (rows, ids) in enumerate(supports):
        whole[rows, t] = _widened(ids, width)
    return whole


def _widened(support: Tensor, width: int) -> Tensor:
    """A support [..., k] with repeats of the first id of each state, [..., width]: the same tokens."""
    return torch.cat([support, support[..., :1].expand(*support.shape[:-1], width - support.shape[-1])], -1)


def rollout_of(batch: Batch, samples: Samples, role: int) -> Rollout:
    """Returns the episodes of `samples` as a Rollout of one `role`, with `rewards` None and all rows valid. The B = N *
    K rows [B, T] must be those of the N sources of `batch`, in its order, the K rows of a source next to each other.
    Tensors are shared. `chosen` is True at every real token, forced ones included, but with the role DEMONSTRATION it
    is False everywhere."""
    times = len(samples.actions) // len(batch.source)
    row = torch.arange(len(batch.source), device=batch.source.device).repeat_interleave(times)
    return Rollout(
        step=batch.step,
        group=(batch.step << 32) | row,
        role=torch.full_like(row, role, dtype=torch.int8),
        parent=torch.arange(len(row), device=row.device),
        source=batch.source,
        source_mask=batch.source_mask,
        targets=batch.targets,
        target_mask=batch.target_mask,
        reference_ids=batch.reference_ids,
        reference_mask=batch.reference_mask,
        source_row=row,
        actions=samples.actions,
        mask=samples.mask,
        chosen=samples.mask if role != DEMONSTRATION else torch.zeros_like(samples.mask),
        logprobs=samples.logprobs,
        support=samples.support,
        ended=samples.ended,
        rewards=None,
        valid=torch.ones(len(row), dtype=torch.bool, device=row.device),
        example=batch.example,
        read_sources=batch.read_sources,
    )


def recite(batch: Batch, eos_id: int) -> Rollout:
    """Returns the demonstrations [N, R] of a batch as episodes that no policy chose: one for each source (without
    tokens where it has no demonstration), with role DEMONSTRATION, `rewards` None, `chosen` False and log-probabilities
    0 everywhere, and `ended` False where a demonstration was cut. Tensors are shared with `batch`."""
    ended = (batch.target_mask & (batch.targets == eos_id)).any(-1)
    nothing = torch.zeros(batch.targets.shape, dtype=torch.float32, device=batch.targets.device)
    return rollout_of(batch, Samples(batch.targets, batch.target_mask, nothing, None, ended), DEMONSTRATION)


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """Returns one rollout with the rows of several, at least one, in their order, each field padded with zeros to the
    longest, [B, T]; `step` and `read_sources` are those of the first. The `parent` of a continuation, in whichever
    rollout, is taken as a row of the first rollout; every other `parent` is renumbered. `support` and `rewards` are 0
    for a rollout without them, and None if all lack them. A `support` of fewer ids than another repeats its first one.

    Episodes of one group have one source: it is held once, in the order of the groups, whichever rollout it came from.
    """
    offset = sources = 0
    parts = []
    for rollout in rollouts:
        own = torch.where(rollout.role == CONTINUATION, 0, offset)
        parts.append(replace(rollout, parent=rollout.parent + own, source_row=rollout.source_row + sources))
        offset, sources = offset + len(rollout), sources + len(rollout.source)

    def joined(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        present = [value for value in values if value is not None]
        if not present:
            return None
        if name == "support":  # top-p keeps as many tokens as it takes
            most = max(value.shape[-1] for value in present)
            values = [value if value is None else _widened(value, most) for value in values]
            present = [value for value in values if value is not None]
        if present[0].dim() > 1:
            width = present[0].shape[2:]  # only sampled rows have a support; a companion's is never read
            values = [
                present[0].new_zeros(*part.actions.shape, *width) if value is None else value
                for part, value in zip(parts, values, strict=True)
            ]
            length = max(value.shape[1] for value in values)
            values = [_padded(value, length) for value in values]
        return torch.cat(values)

    whole: dict[str, Any] = {f.name: joined(f.name) for f in fields(Rollout) if f.name not in ("step", "read_sources")}
    first, source_row = first_of_each(whole["group"])
    needed = whole["source_row"][first]
    once = {name: whole[name][needed] for name in PER_SOURCE}
    return replace(parts[0], **whole | once | {"source_row": source_row})


def _padded(value: Tensor, length: int) -> Tensor:
    """[B, T, ...] -> [B, length, ...], zeros behind."""
    missing = length - value.shape[1]
    return torch.cat([value, value.new_zeros(len(value), missing, *value.shape[2:])], 1) if missing else value
