"""Divergence between the policy and a reference, estimated on sampled tokens.

q is the distribution that tokens are sampled from, with its temperature, cut and epsilon; ref is the plain softmax of
the reference model. A cut is a fixed set of tokens while gradients are taken. What holds for a plain softmax holds for
every q, where not said otherwise: log q is what is differentiated, and E_q[grad log q] = 0 whatever q is made of.
"""

from __future__ import annotations

from torch import Tensor

from tokenrl_cli.functional.precision import precise


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log q(a_t) - log ref(a_t), an unbiased estimate of KL(q || ref) at s_t for a_t ~ q. [B, T] -> [B, T].

    Belongs in the reward, summed to go: there its gradient is that of the KL of whole sequences. As a loss its
    expected gradient is zero.
    """
    return logprobs - reference_logprobs


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """(log q - log ref)^2 / 2 (Schulman 2020). As a loss its expected gradient is that of KL(q || ref) at s_t, for
    states as they were visited; its mean is another number than the KL. [B, T] -> [B, T]."""
    return (logprobs - reference_logprobs).square() / 2


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """ref / q - 1 - log(ref / q) (Schulman 2020), never below 0. As a loss, as GRPO has it, its expected gradient is
    that of the other direction, KL(ref || q). [B, T] -> [B, T].

    Both need E_q[ref / q] = 1, so a q that can say every token that ref can. Where a cut leaves q the tokens S, its
    mean is KL(q || ref) - (1 - ref(S)), and KL(ref || q) is infinite.
    """
    difference = reference_logprobs - logprobs
    return difference.exp() - 1 - difference


def k3_with_gradient_of_k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The value of k3, which varies little, with the gradient of k2, which is right, under a cut too.
    [B, T] -> [B, T]."""
    quadratic = k2(logprobs, reference_logprobs)
    return k3(logprobs, reference_logprobs).detach() + quadratic - quadratic.detach()


def full(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """sum_a q(a) (log q(a) - log ref(a)), no estimate, where q and ref are the softmaxes of what is given.

    Log-probabilities may be given for logits: they are their own softmax. Tokens with q(a) = 0 (logit -inf) add
    nothing; infinite where q says a token that ref cannot. [B, T, V], [B, T, V] -> [B, T].
    """
    logprobs, reference = (precise(each).log_softmax(-1) for each in (logits, reference_logits))
    difference = (logprobs - reference).masked_fill(logprobs.isneginf(), 0.0)
    return (logprobs.exp() * difference).sum(-1)
