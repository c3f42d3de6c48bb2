"""How something changes over the steps of a stage, where it is not the learning rate. step counts from 0."""

from __future__ import annotations

import math

from tokenrl_cli.config.ranges import Count, CountOrNone, Positive, Probability


def all_tokens(step: int) -> float:
    """Every token is the policy's."""
    return float("inf")


def annealed(step: int, start: CountOrNone, increment: CountOrNone, every: Count) -> float:
    """The policy says the last `start` tokens of a text, and `increment` more after each `every` steps.

    MIXER, Ranzato et al. 2016 (arXiv:1511.06732), algorithm 1.
    """
    return start + increment * (step // every)


def frozen(step: int) -> float:
    """The reference stays what it was."""
    return 0.0


def moving_average(step: int, rate: Probability) -> float:
    """The reference goes `rate` of the way to the policy at every step."""
    return rate


def periodic(step: int, every: Count) -> float:
    """The reference becomes the policy after every `every` steps."""
    return float((step + 1) % every == 0)


def never(step: int) -> float:
    """No token of the history is the policy's."""
    return 0.0


def linear(step: int, final: Probability, over: Count) -> float:
    """A share that grows from 0 in a straight line to `final` at step `over`."""
    return final * min(1.0, step / over)


def inverse_sigmoid(step: int, k: Positive) -> float:
    """1 - k / (k + exp(step / k)): slow, fast, slow; half of the tokens near step k log k.

    Bengio et al. 2015 (arXiv:1506.03099), section 2.4.
    """
    return 1.0 - k / (k + math.exp(min(step / k, 700.0)))
