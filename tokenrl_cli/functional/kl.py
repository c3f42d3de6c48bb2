"""KL divergence between the policy and a reference model, per token: estimates from sampled tokens, and the exact sum.

q is the distribution that tokens are sampled from, with its temperature, top-k or top-p cut and epsilon; ref is the
plain softmax of the reference model. The set of tokens that a cut leaves is a constant when gradients are taken. Where
nothing else is noted, what holds for a plain softmax holds for such a q: the derivative is that of log q, and
E_q[grad log q] = 0 for every q. Estimators k1, k2, k3: Schulman 2020, "Approximating KL Divergence"
(http://joschu.net/blog/kl-approx.html). logprobs [B, T] are log q(a_t | s_t), reference_logprobs [B, T] are
log ref(a_t | s_t), both of the sampled tokens a_t.
"""

from __future__ import annotations

from torch import Tensor

from tokenrl_cli.functional.precision import precise


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Log-ratio log q(a_t) - log ref(a_t): an unbiased estimate of KL(q || ref) at s_t for a_t ~ q. Schulman 2020.

    logprobs log q(a_t), reference_logprobs log ref(a_t), [B, T] each -> [B, T], nats; single values may be negative,
    and padding is not masked. Gradients flow into both unless they are detached. Subtract it, times a coefficient, from
    the reward, before the return-to-go is summed: the expected gradient is then that of the reward less that
    coefficient times the KL divergence of whole sequences. As a loss its expected gradient is zero.
    """
    return logprobs - reference_logprobs


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio, (log q - log ref)^2 / 2: as a loss its expected gradient is that of KL(q || ref) at
    s_t, for a_t ~ q and with the visited states held fixed. Schulman 2020.

    logprobs log q(a_t), reference_logprobs log ref(a_t), [B, T] each -> [B, T]; padding is not masked. Gradients flow
    into both: detach reference_logprobs. Its mean is not the KL divergence.
    """
    return (logprobs - reference_logprobs).square() / 2


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """ref / q - 1 - log(ref / q) of the sampled tokens, never below 0: an unbiased estimate of KL(q || ref) with little
    variance. Schulman 2020. As a loss, in GRPO (arXiv:2402.03300), equation 4, its expected gradient is that of KL(ref
    || q) instead.

    logprobs log q(a_t), reference_logprobs log ref(a_t), [B, T] each -> [B, T], nats; padding is not masked. Gradients
    flow into both: detach reference_logprobs. Both statements need E_q[ref / q] = 1, that is, a q that gives every
    token of ref some probability. Where a cut leaves q the token set S, the mean is KL(q || ref) - (1 - ref(S)), and
    KL(ref || q) is infinite.
    """
    difference = reference_logprobs - logprobs
    return difference.exp() - 1 - difference


def k3_with_gradient_of_k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The value of `k3`, which has little variance, with the gradient of `k2`, which is that of KL(q || ref), also
    where top-k or top-p cuts q; the value is then not quite the KL divergence, see `k3`. logprobs log q(a_t),
    reference_logprobs log ref(a_t), [B, T] each -> [B, T], nats; padding is not masked. Gradients flow into both:
    detach reference_logprobs."""
    # The last two terms cancel in the value and leave the gradient of the first of them.
    quadratic = k2(logprobs, reference_logprobs)
    return k3(logprobs, reference_logprobs).detach() + quadratic - quadratic.detach()


def full(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Exact KL divergence of the next token, sum_a q(a) (log q(a) - log ref(a)), with q = softmax(logits) and ref =
    softmax(reference_logits). [B, T, V], [B, T, V] -> [B, T], nats, in float32 or float64. Gradients flow into both.

    Log-probabilities may be passed as logits: log_softmax leaves them unchanged. Tokens with q(a) = 0 (logit -inf) add
    nothing; the sum is infinite where q gives probability to a token that ref excludes.
    """
    logprobs, reference = (precise(each).log_softmax(-1) for each in (logits, reference_logits))
    # Where log q is -inf the difference is -inf or NaN, and 0 times either is NaN: such tokens are set to 0 first.
    difference = (logprobs - reference).masked_fill(logprobs.isneginf(), 0.0)
    return (logprobs.exp() * difference).sum(-1)
