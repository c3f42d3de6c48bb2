"""How something changes over the steps of a stage, where it is not the learning rate. step counts from 0."""

from __future__ import annotations


def all_tokens(step: int) -> float:
    """Every token is the policy's."""
    return float("inf")


def annealed(step: int, start: int, increment: int, every: int) -> float:
    """The policy says the last `start` tokens of a text, and `increment` more after each `every` steps.

    MIXER, Ranzato et al. 2016 (arXiv:1511.06732), algorithm 1.
    """
    return start + increment * (step // every)


def frozen(step: int) -> float:
    """The reference stays what it was."""
    return 0.0


def moving_average(step: int, rate: float) -> float:
    """The reference goes `rate` of the way to the policy at every step."""
    return rate


def periodic(step: int, every: int) -> float:
    """The reference becomes the policy after every `every` steps."""
    return float((step + 1) % every == 0)
