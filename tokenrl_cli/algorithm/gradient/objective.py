"""The loss of a policy gradient: one teacher-forced pass of the policy, and a sum of terms that read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from tokenrl_cli.algorithm.facts import call_with_facts
from tokenrl_cli.algorithm.gradient.episodes import EpisodesWithAdvantages
from tokenrl_cli.episodes.sampling import Decoding, distribution
from tokenrl_cli.functional.masking import masked_sum


@dataclass(frozen=True)
class ForwardPass:
    """The outputs of the policy as it is now for B episodes, with gradients. Its B rows may be a part of those of an
    optimiser step; every denominator is counted over the whole, so that the losses of the parts add up to that of the
    step."""

    model: Any  # the policy
    rows: EpisodesWithAdvantages
    whole: EpisodesWithAdvantages  # all rows of the optimiser step
    hidden: Tensor  # [B, T, D]
    logits: Tensor  # [B, T, V] of the plain softmax
    log_policy: Tensor  # [B, T, V], log pi(a | s_t) of every token a, pi the distribution that is sampled from
    logprobs: Tensor  # [B, T], log pi(a_t | s_t); 0 outside rows.usable
    log_ratio: Tensor  # [B, T], log pi(a_t | s_t) - log pi_sampled(a_t | s_t), without gradient; 0 outside rows.usable

    def token_mean(self, values: Tensor) -> Tensor:
        """Returns the sum of values [B, T] over the usable tokens of these rows, divided by the number of usable tokens
        of the whole optimiser step -> []. So it is the part of these rows in the mean: those of all parts add up to
        it. Usable: `EpisodesWithAdvantages.usable`."""
        return masked_sum(values, self.rows.usable) / self.tokens

    @cached_property
    def tokens(self) -> Tensor:
        """The number of usable tokens (`EpisodesWithAdvantages.usable`) of the whole optimiser step, at least 1: a
        scalar tensor [] int64, the denominator of a mean over tokens."""
        return self.whole.usable.sum().clamp(min=1)


Term = Callable[[ForwardPass], tuple[Tensor, dict[str, Tensor]]]  # -> weighted loss [], and what is logged, each []


def forward(model: Any, rows: EpisodesWithAdvantages, whole: EpisodesWithAdvantages, decoding: Decoding) -> ForwardPass:
    """Runs the policy over `rows`, a part of `whole` (all rows of the optimiser step), in one teacher-forced pass with
    gradients, and returns its outputs: hidden [B, T, D], logits [B, T, V] of the plain softmax, and log-probabilities
    under the distribution that `decoding` samples from. The tokens that top-k or top-p leave are those that were left
    when the episode was sampled. The model must be in evaluation mode, as it was then; its mode is not changed."""
    seen, mask = rows.episodes, rows.usable
    output = model(seen.source, seen.source_mask, seen.actions, seen.source_row)
    log_policy, _ = distribution(output.logits, decoding, seen.support)
    logprobs = log_policy.gather(-1, seen.actions.unsqueeze(-1)).squeeze(-1).masked_fill(~mask, 0.0)
    log_ratio = (logprobs.detach() - seen.logprobs).masked_fill(~mask, 0.0)
    return ForwardPass(model, rows, whole, output.hidden, output.logits, log_policy, logprobs, log_ratio)


def sum_of(terms: Sequence[Term], seen: ForwardPass) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss of a pass, the sum of all `terms` [], at least one, and the metrics of all of them in one
    dictionary, where the last of several with one name stays."""
    loss, metrics = terms[0](seen)
    for term in terms[1:]:
        more, logged = term(seen)
        loss, metrics = loss + more, metrics | logged
    return loss, metrics


class SurrogateLoss:
    """-sum_bt w_bt surrogate_bt, with w the weights of the aggregation: the term that increases the reward.

    `surrogate` is called with those that it names of `logprobs`, `sampled_logprobs`, `advantages` and `mask`, [B, T]
    each, and returns (surrogate_bt, where clipping leaves it no gradient); see functional/surrogates.py.
    """

    def __init__(self, surrogate: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self.surrogate = surrogate

    def __call__(self, seen: ForwardPass) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss [] of a pass, and as metrics loss/policy; clip_ratio/low and clip_ratio/high, the shares of
        all usable tokens that are clipped with a negative and with a positive advantage; and approx_kl,
        KL(pi_sampled || pi) in nats a token, estimated by k3. Loss and metrics are the parts of these rows: those of
        all parts of the optimiser step add up to its values."""
        rows, mask = seen.rows, seen.rows.usable
        objective, clipped = call_with_facts(
            self.surrogate,
            logprobs=seen.logprobs,
            sampled_logprobs=rows.episodes.logprobs,
            advantages=rows.advantages,
            mask=mask,
        )
        loss = -masked_sum(rows.weights * objective, mask)
        metrics = {
            "loss/policy": loss.detach(),
            "clip_ratio/low": seen.token_mean((clipped & (rows.advantages < 0)).double()),
            "clip_ratio/high": seen.token_mean((clipped & (rows.advantages > 0)).double()),
            "approx_kl": seen.token_mean(seen.log_ratio.exp() - 1 - seen.log_ratio),
        }
        return loss, metrics
