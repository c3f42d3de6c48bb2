"""Values of tokens by the best completion of a text."""

from __future__ import annotations

import torch
from torch import Tensor


def optimal_values(distances: Tensor, references: Tensor, lengths: Tensor, size: int, eos_id: int) -> Tensor:
    """Optimal token values of the edit distance, Q*(s_t, a) = -(fewest errors of any text that begins with y_<t a):
    -m(y) for a token that follows one of the nearest prefixes of the reference, -m(y) - 1 for any other, and
    -D(y, reference) for EOS, with m(y) = min_j D(y, r_<=j) of the text y so far. Sabour et al. 2018 (arXiv:1810.01398),
    section 3.

    distances [..., R + 1] float, of the text so far to the first j tokens of the reference, larger past its end; its
    ids `references` [..., R] int64 and lengths [...] int64, in tokens; `size` = V -> [..., V] of the same dtype. A
    token is never worth more than those beside it for an id past the end of the reference.
    """
    least = distances.amin(-1, keepdim=True)
    place = torch.arange(references.shape[-1], device=references.device)
    follows = (distances[..., :-1] == least) & (place < lengths.unsqueeze(-1))
    values = (-least - 1).repeat(*[1] * (least.dim() - 1), size)
    # of several places of one token the best counts, whatever the order in which they are written
    values.scatter_reduce_(-1, references, torch.where(follows, -least, -least - 1), "amax")
    values[..., eos_id] = -distances.gather(-1, lengths.unsqueeze(-1)).squeeze(-1)
    return values
