"""Schedules over the steps of a stage, other than those of the learning rate. `step` counts from 0.

`all_tokens` and `annealed` give the number of last tokens that the policy generates itself (the tokens before are those
of a demonstration); `frozen`, `moving_average` and `periodic` the share of the way that the weights of a reference
model move towards the policy after step `step`, or those of a target network towards the learned one; `never`, `linear`
and `inverse_sigmoid` the share of history tokens that the policy samples itself, in scheduled sampling.
"""

from __future__ import annotations

import math

from tokenrl_cli.config.ranges import Count, CountOrZero, Positive, Probability


def all_tokens(step: int) -> float:
    """Number of last tokens of an episode that the policy generates itself: infinity, so it generates every token, and
    no demonstration is used."""
    return float("inf")


def annealed(step: int, start: CountOrZero, increment: CountOrZero, every: Count) -> float:
    """Number of last tokens of an episode that the policy generates itself: start + increment * floor(step / every),
    without an upper limit.

    The tokens before them are those of the demonstration. MIXER, Ranzato et al. 2016 (arXiv:1511.06732), algorithm 1.
    """
    return start + increment * (step // every)


def frozen(step: int) -> float:
    """Share of the way to the policy: 0 at every step, so the reference model or target network stays as it was
    copied."""
    return 0.0


def moving_average(step: int, rate: Probability) -> float:
    """Share of the way to the policy: `rate` at every step, so that reference <- (1 - rate) * reference + rate *
    policy, an exponential moving average. For a target network it is called Polyak averaging (Lillicrap et al. 2016,
    arXiv:1509.02971)."""
    return rate


def periodic(step: int, every: Count) -> float:
    """Share of the way to the policy: 1 at every `every`-th step (`every` - 1, 2 `every` - 1, ..., as `step` counts
    from 0), and 0 at the others. After such a step the policy is copied into the reference model, or the learned
    network into the target network (Mnih et al. 2015)."""
    return float((step + 1) % every == 0)


def never(step: int) -> float:
    """Share of history tokens that the policy samples: 0 at every step, so every one is the demonstration's (teacher
    forcing)."""
    return 0.0


def linear(step: int, final: Probability, over: Count) -> float:
    """Share of history tokens that the policy samples: linear from 0 at step 0 to `final` at step `over`, constant
    afterwards."""
    return final * min(1.0, step / over)


def inverse_sigmoid(step: int, k: Positive) -> float:
    """Share of history tokens that the policy samples, 1 - k / (k + exp(step / k)): an S-shaped curve from 1 / (k + 1)
    at step 0 over 1/2 at step k log k to 1. Scheduled sampling, Bengio et al. 2015 (arXiv:1506.03099), section 2.4."""
    # exp overflows above 709; by 700 the share is 1 anyway.
    return 1.0 - k / (k + math.exp(min(step / k, 700.0)))
