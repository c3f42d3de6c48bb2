"""The loss of a policy gradient: one teacher-forced pass of the policy, and a sum of terms that read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tokenrl_cli.algorithm.facts import call_with_facts
from tokenrl_cli.algorithm.gradient.episodes import EpisodesWithAdvantages
from tokenrl_cli.algorithm.gradient.reference import ReferencePolicy
from tokenrl_cli.episodes.sampling import Decoding, distribution, of_tokens
from tokenrl_cli.functional.chunks import logits_of, over_states
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.interfaces import ModelModule, ModelOutput


@dataclass(frozen=True)
class States:
    """The distributions of the next token in some of the states of a forward pass: in all of them, where S stands for
    [B, T], or in a chunk of them, where S stands for [1, M]; see `chunks.over_states`."""

    logits: Tensor  # [S, V] of the plain softmax
    log_policy: Tensor  # [S, V], log pi(a | s_t) of every token a, pi the distribution that is sampled from
    logprobs: Tensor  # [S], log pi(a_t | s_t); 0 outside rows.usable
    actions: Tensor  # [S] int64, a_t
    reference_logits: Tensor | None  # [S, V], without gradient; None where there is no reference


Measure = Callable[[States], Tensor]  # -> [S]: a quantity of each state that is computed from whole distributions


@dataclass(frozen=True)
class ForwardPass:
    """The outputs of the policy as it is now for B episodes, with gradients. Its B rows may be a part of those of an
    optimiser step; every denominator is counted over the whole, so that the losses of the parts add up to that of the
    step."""

    model: ModelModule  # the policy
    rows: EpisodesWithAdvantages
    whole: EpisodesWithAdvantages  # all rows of the optimiser step
    hidden: Tensor  # [B, T, D]
    measured: Mapping[str, Tensor]  # [B, T] each: what `forward` was asked to measure; nothing outside rows.usable
    precision: torch.dtype  # of the logits, as the model computes them
    logprobs: Tensor  # [B, T], log pi(a_t | s_t); 0 outside rows.usable
    log_ratio: Tensor  # [B, T], log pi(a_t | s_t) - log pi_sampled(a_t | s_t), without gradient; 0 outside rows.usable

    def token_mean(self, values: Tensor) -> Tensor:
        """Returns the sum of values [B, T] over the tokens of `rows.usable`, divided by `tokens`, the number of such
        tokens in the whole optimiser step -> []. So it is the part of these rows in the mean: those of all parts add up
        to it. Values of other tokens are not read. Gradients flow into `values`."""
        return masked_sum(values, self.rows.usable) / self.tokens

    @cached_property
    def tokens(self) -> Tensor:
        """The number of tokens that are learned from (True in `whole.usable`) in the whole optimiser step, at least 1:
        a scalar tensor [] int64, the denominator of a mean over tokens."""
        return self.whole.usable.sum().clamp(min=1)


Term = Callable[[ForwardPass], tuple[Tensor, dict[str, Tensor]]]  # -> weighted loss [], and what is logged, each []


def forward(
    model: ModelModule,
    rows: EpisodesWithAdvantages,
    whole: EpisodesWithAdvantages,
    decoding: Decoding,
    reference: ReferencePolicy | None,
    measures: Mapping[str, Measure],
    size: int,
) -> ForwardPass:
    """Runs the policy over `rows`, teacher-forced and in its present mode, and returns its outputs, scored under the
    distribution that `decoding` samples from, with what `measures` compute from the distributions in each state.
    Gradients flow into the policy, through `hidden`, `logprobs` and `measured` of the result. `whole` holds all rows of
    the optimiser step, of which `rows` are a part or all; with `reference` None measures get no reference logits. The
    tokens that top-k or top-p leave are those that were left when the episode was sampled.

    `size` = V. Where [B, T, V] is large it is never held as a whole: see `chunks.over_states`. `measures` maps a name
    in `measured` of the result to a function of `States`; those with a gradient should come first: what needs none, at
    the end, is not computed again in the backward pass.
    """
    seen, mask = rows.episodes, rows.usable
    output = model(seen.source, seen.source_mask, seen.actions, seen.source_row)
    known: ModelOutput | None = None if reference is None else reference.output(seen)
    precisions = set()

    def read(
        hidden: Tensor, usable: Tensor, actions: Tensor, support: Tensor | None, frozen: Tensor | None
    ) -> tuple[Tensor, ...]:
        logits = logits_of(output, hidden)
        precisions.add(logits.dtype)
        log_policy, _ = distribution(logits, decoding, support)
        # A forced token may lie outside the cut. Measured at -inf, its gradient would be 0 * inf, which is no number.
        logprobs = of_tokens(log_policy, actions).masked_fill(~usable, 0.0)
        with torch.no_grad():
            reference_logits = None if known is None or frozen is None else logits_of(known, frozen)
        states = States(logits, log_policy, logprobs, actions, reference_logits)
        return logprobs, *(measure(states) for measure in measures.values())

    columns = mask, seen.actions, seen.support, None if known is None else known.hidden
    logprobs, *measured = over_states(read, size, mask, output.hidden, *columns)
    logprobs = logprobs.masked_fill(~mask, 0.0)
    log_ratio = (logprobs.detach() - seen.logprobs).masked_fill(~mask, 0.0)
    found = dict(zip(measures, measured, strict=True))
    return ForwardPass(model, rows, whole, output.hidden, found, precisions.pop(), logprobs, log_ratio)


def sum_of(terms: Sequence[Term], seen: ForwardPass) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss of the pass `seen`, the sum of all `terms` [], each already with its coefficient, at least one
    of them; and the metrics of all of them in one dictionary, where the last of several with one name stays. The
    gradient of the loss flows where those of the terms do; the metrics have none."""
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
        all tokens learned from that are clipped with a negative and with a positive advantage; and approx_kl,
        KL(pi_sampled || pi) in nats a token, estimated by k3. The loss has a gradient into the policy, through
        `seen.logprobs` alone; the metrics have none. Loss and metrics are the parts of these rows: those of
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
