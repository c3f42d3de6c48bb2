"""Cross-entropy of target tokens, with label smoothing."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from tokenrl_cli.functional.chunks import logits_of, over_states, sum_over_states
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import ModelOutput


def negative_log_likelihood(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of each target token y, -(1 - e) log p(y) - e mean_a log p(a), with p = softmax(logits) and e =
    `label_smoothing` (0 to 1). logits [B, T, V], targets [B, T] int64, ids from 0 to V - 1 also at padding -> [B, T],
    nats, in float32 or float64, with gradients into logits; the caller masks padding.

    Infinite where the target itself has the logit -inf. Label smoothing: Szegedy et al. 2016 (arXiv:1512.00567),
    section 7. Its mean is over the tokens whose logit is not -inf: one with p(a) = 0 cannot become likelier, and would
    make the loss infinite.
    """
    logprobs = precise(logits).log_softmax(-1)
    nll = -logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if label_smoothing == 0:
        return nll
    possible = ~logprobs.isneginf()
    mean = logprobs.masked_fill(~possible, 0.0).sum(-1) / possible.sum(-1)
    return (1 - label_smoothing) * nll - label_smoothing * mean


def output_nll(output: ModelOutput, targets: Tensor, mask: Tensor, label_smoothing: float, size: int) -> Tensor:
    """Returns `negative_log_likelihood` of the logits of a model's output, without holding them all where [B, T, V] is
    large: see `chunks.over_states`. targets [B, T] int64, ids from 0 to V - 1 also at padding; mask [B, T] bool;
    `label_smoothing` 0 to 1; `size` = V -> [B, T], nats, with gradients into the model. Values where mask is False mean
    nothing. Raises UserError as `chunks.logits_of`."""

    def nll(hidden: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        return (negative_log_likelihood(logits_of(output, hidden), targets, label_smoothing),)

    return over_states(nll, size, mask, output.hidden, targets)[0]


def summed_nll(
    output: ModelOutput,
    targets: Tensor,
    mask: Tensor,
    label_smoothing: float,
    size: int,
    parameters: Iterable[Tensor],
) -> Tensor:
    """Returns the sum of `output_nll` over the tokens where mask [B, T] is True: [] (a scalar), nats, with a gradient
    that takes less time to compute than that of `output_nll` and a sum. targets [B, T] int64, ids from 0 to V - 1 also
    at padding; `label_smoothing` 0 to 1; `size` = V. `parameters` must be all parameters of the model that computed
    `output`. One backward pass alone is possible; see `chunks.sum_over_states`. Raises UserError as
    `chunks.logits_of`."""

    def nll(hidden: Tensor, targets: Tensor) -> Tensor:
        return negative_log_likelihood(logits_of(output, hidden), targets, label_smoothing)

    return sum_over_states(nll, size, mask, parameters, output.hidden, targets)
