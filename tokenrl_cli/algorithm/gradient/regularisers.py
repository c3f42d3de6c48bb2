"""The terms of a policy gradient's loss beside the reward: entropy, KL to a reference, the error of a critic, and the
cross-entropy on demonstrations. Each is called with a ForwardPass and returns (weighted loss [], metrics)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tokenrl_cli.algorithm.facts import call_with_facts, function_of
from tokenrl_cli.algorithm.gradient.objective import ForwardPass, Measure, States
from tokenrl_cli.episodes.sampling import Decoding
from tokenrl_cli.functional.entropy import entropy, entropy_of_logprobs
from tokenrl_cli.functional.kl import full, k3
from tokenrl_cli.functional.likelihood import negative_log_likelihood, summed_nll
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.interfaces import Critic, SettingError


class EntropyBonus:
    """-eta mean_bt H(p(. | s_t)), with p the plain softmax: a positive eta keeps the policy from becoming certain
    (Williams & Peng 1991). The mean is over the tokens that the optimiser step learns from (`usable` of its rows)."""

    def __init__(self, coef: float, decoding: Decoding) -> None:
        self.coef, self.decoding = coef, decoding
        self.measures: dict[str, Measure] = {"entropy": self.entropy}  # what a forward pass must measure for the term

    def entropy(self, states: States) -> Tensor:
        """Returns the entropy of the plain softmax in each of some states, [S], in nats; with a gradient if eta, the
        coefficient, is not 0."""
        if self.coef:
            return entropy(states.logits)
        # What is only logged keeps no graph in memory, and is not computed twice.
        return (
            entropy_of_logprobs(states.log_policy.detach()) if self.decoding.plain else entropy(states.logits.detach())
        )

    def __call__(self, seen: ForwardPass) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss [], with a gradient into the policy, none if eta is 0; and as metric `entropy`, the mean in
        nats a token, whatever eta is: the parts of these rows in the mean of the step. `seen` must have been measured
        with `measures`."""
        mean = seen.token_mean(seen.measured["entropy"])
        return -self.coef * mean, {"entropy": mean.detach()}


class KlLoss:
    """beta sum_bt w_bt KL_bt, with w the weights of the aggregation and KL_bt an estimate of KL(pi || ref) at s_t.

    `divergence` is called with those that it names of `logprobs`, `reference_logprobs` [B, T], `logits` (log pi) and
    `reference_logits` [B, T, V], or where those are large with chunks of M states, [1, M] and [1, M, V]; see
    functional/kl.py. Tokens of added demonstrations are left out, for they are no samples of pi.

    The constructor raises UserError for k3 with a decoding that cuts by top-k or top-p: the mean of k3 is a KL only
    where pi can generate every token.
    """

    def __init__(self, coef: float, divergence: Callable[..., Tensor], decoding: Decoding) -> None:
        if decoding.cuts and function_of(divergence) is k3:
            problem = (
                "weighs tokens by reference / policy, and its mean is a KL divergence only where the policy can say "
                "every token; top_k or top_p leaves some out"
            )
            raise SettingError("/divergence=k3", problem, "{here}/divergence=k2 or full, or top_k=0 top_p=1")
        self.coef, self.divergence = coef, divergence
        # what a forward pass must measure for the term; the second without gradient
        self.measures: dict[str, Measure] = {"divergence": self.estimate, "kl": self.exact}

    def estimate(self, states: States) -> Tensor:
        """Returns the estimate of KL(pi || ref) in nats that `divergence` makes for each of some states, [S], with
        gradients into the policy. AssertionError where `states` has no reference logits."""
        assert states.reference_logits is not None
        estimate: Tensor = call_with_facts(
            self.divergence,
            logprobs=states.logprobs,
            reference_logprobs=-negative_log_likelihood(states.reference_logits, states.actions, 0.0),
            logits=states.log_policy,
            reference_logits=states.reference_logits,
        )
        return estimate

    @torch.no_grad()
    def exact(self, states: States) -> Tensor:
        """Returns KL(pi || ref) of each of some states, [S], in nats, a sum over all tokens, without gradient.
        AssertionError where `states` has no reference logits."""
        assert states.reference_logits is not None
        return full(states.log_policy, states.reference_logits)

    def __call__(self, seen: ForwardPass) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss [], with a gradient into the policy and none into the reference; and as metric `kl`, the
        exact KL of the states visited, a mean in nats a token, whatever estimate the loss uses: the parts of these rows
        in the sum and the mean of the step. `seen` must have been measured with `measures`."""
        rows = seen.rows
        loss = self.coef * masked_sum(rows.weights * seen.measured["divergence"], rows.sampled)
        exact = masked_sum(seen.measured["kl"], rows.sampled)
        return loss, {"kl": exact / seen.whole.sampled.sum().clamp(min=1)}


class ValueLoss:
    """c mean_bt error(V(s_t), G_t): the critic's own loss, `Critic.loss` times `Critic.coef`, over the tokens that
    the optimiser step learns from (`usable` of its rows). 0, without a metric, for a critic that learns nothing."""

    def __init__(self, critic: Critic) -> None:
        self.critic = critic

    def __call__(self, seen: ForwardPass) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss [], and as metric loss/value the mean error before the coefficient: the parts of these rows
        in the mean of the step. The gradient flows into the critic, and into the policy only if the critic does not
        detach the hidden states, as `ValueHead` does."""
        errors = self.critic.loss(seen.hidden, seen.rows.values, seen.rows.returns)
        if errors is None:
            return seen.logprobs.new_zeros(()), {}
        error = seen.token_mean(errors)
        return self.critic.coef * error, {"loss/value": error.detach()}


class DemonstrationLoss:
    """-lambda mean_nt log p(y*_t | x, y*_<t) over demonstrations y*, with p the plain softmax: a second pass of the
    policy (Wu et al. 2016, arXiv:1609.08144, section 5). The mean is over the tokens that `likelihood_mask` marks,
    each source once however often it was sampled. `size` = V."""

    def __init__(self, coef: float, size: int) -> None:
        self.coef, self.size = coef, size

    def __call__(self, seen: ForwardPass) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss [], with a gradient into the policy, and as metric loss/nll the mean cross-entropy in nats a
        token, before lambda: the parts of these rows in the mean of the step. Both are 0, without a gradient, where no
        row of `first` has such a token."""
        rows, whole = seen.rows, seen.whole
        shown, mask = rows.episodes.rows(rows.first), rows.likelihood_mask[rows.first]
        if bool(mask.any()):
            targets = shown.targets[shown.source_row]
            output = seen.model(shown.source, shown.source_mask, targets, shown.source_row)
            total = summed_nll(output, targets, mask, 0.0, self.size, seen.model.parameters())
        else:
            total = seen.logprobs.new_zeros(())
        mean = total / whole.likelihood_mask[whole.first].sum().clamp(min=1)
        return self.coef * mean, {"loss/nll": mean.detach()}
