"""Reductions over a vocabulary that never hold a whole [B, T, V] tensor in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.interfaces import ModelOutput, UserError

LARGEST = 2**22  # elements of a chunk's [rows, V] tensor: 16 MiB in float32
# `over_states` holds a [B, T, V] tensor of at most this many elements whole. glibc maps larger ones (32 MiB in float32)
# anew each time, and clearing their pages then takes longer than computing the logits a second time.
WHOLE = 2**23
# With fewer rows a chunk, adding up the gradients of the head, [V, D] of each chunk, would take as long as its matrix
# products; and those are a third slower for a number of rows that is not a multiple of 32.
FEWEST, EVEN = 128, 32


def in_pieces(reduce: Callable[..., tuple[Tensor, ...]], width: int, *columns: Tensor) -> tuple[Tensor, ...]:
    """Calls `reduce(*columns)` on chunks of rows and returns its results as one: each tensor [B * T] reshaped to
    [B, T].

    columns: tensors [B, T, ...], flattened to [B * T, ...] and split into as few chunks as keep chunk rows * `width`
    near or below LARGEST (4 million) elements. `reduce` takes a chunk of each column, may build a tensor [rows, width]
    (width = V), and returns a tuple of tensors [rows]. Each row must be computed by itself: then values and gradients
    are those of one call on everything. With several chunks `reduce` may be called again for each, in the backward
    pass.
    """
    shape = columns[0].shape[:2]
    flat = [column.flatten(0, 1) for column in columns]
    pieces = math.ceil(len(flat[0]) * width / LARGEST)
    if pieces <= 1:
        return tuple(each.view(shape) for each in reduce(*flat))
    cut = zip(*(each.tensor_split(pieces) for each in flat), strict=True)
    # Without gradient checkpointing autograd would keep the [rows, V] tensor of every chunk until the backward pass:
    # together B * T * V elements again. Each chunk is recomputed in the backward pass instead.
    parts = [checkpoint(reduce, *piece, use_reentrant=False) for piece in cut]
    return tuple(torch.cat(each).view(shape) for each in zip(*parts, strict=True))


def over_states(
    reduce: Callable[..., tuple[Tensor, ...]], width: int, mask: Tensor, hidden: Tensor, *columns: Tensor | None
) -> tuple[Tensor, ...]:
    """Calls `reduce(hidden, *columns)`, which may build tensors [..., width] (width = V), and returns its results, a
    tuple of tensors [B, T].

    hidden [B, T, D]; columns: tensors [B, T, ...], or None, which is handed on; mask [B, T] bool. Results mean nothing
    where mask is False. With at most WHOLE elements in [B, T, width] this is one call on everything. Beyond that it is
    one on each chunk, [1, M, ...] of the M states of a chunk in which mask is True, with results [1, M], and again in
    the backward pass: never more than the tensors [M, width] of one chunk are held. Each state must be computed by
    itself; then values and gradients are those of one call, but for rounding.
    """
    if mask.numel() * width <= WHOLE:
        return reduce(hidden, *columns)
    kept = _places(mask)
    pieces = _pieces(width, kept, (hidden, *columns))
    parts = [checkpoint(reduce, *piece, use_reentrant=False) for piece in pieces]
    found = (torch.cat(each, 1).squeeze(0) for each in zip(*parts, strict=True))
    return tuple(each.new_zeros(mask.numel()).index_copy(0, kept, each).view(mask.shape) for each in found)


def sum_over_states(
    reduce: Callable[..., Tensor],
    width: int,
    mask: Tensor,
    parameters: Iterable[Tensor],
    hidden: Tensor,
    *columns: Tensor | None,
) -> Tensor:
    """Returns the sum of `reduce(hidden, *columns)`, here one tensor [B, T] and no tuple, over the states in which mask
    is True: [] (a scalar), 0 without any. In chunks, as `over_states`.

    `reduce` may build tensors [..., width] (width = V), and must compute each state by itself. hidden [B, T, D];
    columns: tensors [B, T, ...], or None, which is handed on; mask [B, T] bool.

    Gradients flow into `hidden` and into `parameters`, which must be all that `reduce` reads and that learns, but not
    into columns (only where [B, T, width] is small they do). The gradient of a sum is known but for one factor, so it
    is computed with the sum, where each chunk's tensors [M, width] are at hand, and nothing is computed twice. One
    backward pass is possible, and its result has no gradient itself.
    """
    if mask.numel() * width <= WHOLE:
        return masked_sum(reduce(hidden, *columns), mask)
    learned = [each for each in parameters if each.requires_grad]
    total: Tensor = _Sum.apply(reduce, width, mask, columns, hidden, *learned)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    """See `sum_over_states`."""

    @staticmethod
    def forward(
        ctx: Any,
        reduce: Callable[..., Tensor],
        width: int,
        mask: Tensor,
        columns: tuple[Tensor | None, ...],
        hidden: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        kept, gradients = _places(mask), [torch.zeros_like(each) for each in (hidden, *parameters)]
        of_hidden, of_parameters = gradients[0].flatten(0, 1), gradients[1:]
        totals, begun = [], 0
        for part, *others in _pieces(width, kept, (hidden, *columns)):
            with torch.enable_grad():
                assert part is not None
                part = part.detach().requires_grad_()
                total = reduce(part, *others).sum()
            moved, *found = torch.autograd.grad(total, [part, *parameters], allow_unused=True)
            end = begun + part.shape[1]
            of_hidden.index_copy_(0, kept[begun:end], moved.squeeze(0))
            for known, more in zip(of_parameters, found, strict=True):
                if more is not None:
                    known += more
            totals.append(total.detach())
            begun = end
        ctx.gradients = gradients
        # without a state the one that stands for it does not count
        return torch.stack(totals).sum() * bool(mask.any())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # they are large: multiplied in place, for this one pass
        return None, None, None, None, *(each.mul_(factor) for each in gradients)


def _places(mask: Tensor) -> Tensor:
    """The indices at which mask [B, T] is True, in [B * T]; 0 where it is so nowhere, for a reduction of no state would
    not tell the type of its results."""
    kept = mask.flatten().nonzero().squeeze(-1)
    return kept if len(kept) else kept.new_zeros(1)


def _pieces(width: int, kept: Tensor, columns: Sequence[Tensor | None]) -> Iterator[list[Tensor | None]]:
    """The columns [B, T, ...] at the places `kept`, as chunks [1, M, ...]."""
    chosen = [None if each is None else each.flatten(0, 1).index_select(0, kept) for each in columns]
    rows = max(FEWEST, LARGEST // width // EVEN * EVEN)
    for start in range(0, len(kept), rows):
        yield [None if each is None else each[start : start + rows].unsqueeze(0) for each in chosen]


def logits_of(output: ModelOutput, hidden: Tensor) -> Tensor:
    """Returns the logits [..., V] of some of the states of a model's output, from their hidden states [..., D], which
    are all of `output.hidden` or a chunk of it. Gradients flow. Raises UserError where `output.project` returns logits
    of another number of states than it was given."""
    logits = output.project(hidden)
    if logits.shape[:-1] != hidden.shape[:-1]:
        problem = (
            f"its ModelOutput.project gave {list(logits.shape)} for hidden states {list(hidden.shape)}, and must "
            "compute logits from the hidden states that it is given"
        )
        raise UserError("model", problem, "a large vocabulary is projected in chunks of states")
    return logits
