"""Cross-entropy of target tokens, with label smoothing."""

from __future__ import annotations

from torch import Tensor

from tokenrl_cli.functional.precision import precise


def negative_log_likelihood(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of each target token y, -(1 - e) log p(y) - e mean_a log p(a), with p = softmax(logits) and e =
    `label_smoothing` (0 to 1). logits [B, T, V], targets [B, T] int64, V ids -> [B, T], nats, in float32 or float64;
    the caller masks padding.

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
