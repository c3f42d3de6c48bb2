"""Weights of tokens in the loss: loss = sum_{b,t} weight[b,t] * loss[b,t].

Every function takes mask [B, T] bool, True for the tokens that are learned from and all False for an episode that is
left out, and returns weights [B, T] float64, 0 where masked. The mask is that of a whole optimiser step: its loss
may then be summed over any number of micro-batches without another normaliser.
"""

from __future__ import annotations

from torch import Tensor


def sequence_sum(mask: Tensor) -> Tensor:
    """Weights 1 / n, where n is the number of episodes with a True in `mask`: the loss is the mean over episodes of the
    sum over their tokens. mask [B, T] bool, of all episodes of an optimiser step -> [B, T] float64, 0 where `mask` is
    False.

    With a score-function loss this is the gradient of the expected reward (Williams 1992).
    """
    return _real(mask) / mask.any(-1).sum().clamp(min=1)


def sequence_mean(mask: Tensor) -> Tensor:
    """Weights 1 / (n |y_b|), where n is the number of episodes with a True in `mask`, and |y_b| the
    number of tokens of the episode: the mean over episodes of the mean over their tokens. mask [B, T] bool, of all
    episodes of an optimiser step -> [B, T] float64, 0 where masked.

    GRPO, Shao et al. 2024 (arXiv:2402.03300), equation 3. A token of a long episode gets less weight than one of a
    short episode, which changes the direction of the gradient.
    """
    return _real(mask) / mask.sum(-1, keepdim=True).clamp(min=1) / mask.any(-1).sum().clamp(min=1)


def token_mean(mask: Tensor) -> Tensor:
    """Weights 1 / sum_b |y_b|, |y_b| the number of tokens of an episode, those that are True in `mask`: the mean over
    all tokens. mask [B, T] bool, of all episodes of an optimiser step -> [B, T] float64, 0 where masked.

    DAPO (arXiv:2503.14476), equation 8. The number of tokens is itself sampled, so the expected gradient has a small
    bias.
    """
    return _real(mask) / mask.sum().clamp(min=1)


def constant_length(mask: Tensor, max_length: int) -> Tensor:
    """Weights 1 / (n L), with L = `max_length` in tokens and n the number of episodes with a True in `mask`:
    `sequence_sum` divided by a constant. mask [B, T] bool, of all episodes of an optimiser step -> [B, T] float64, 0
    where masked.

    Dr. GRPO, Liu et al. 2025 (arXiv:2503.20783).
    """
    return sequence_sum(mask) / max_length


def _real(mask: Tensor) -> Tensor:
    """1 for real tokens, 0 elsewhere. [B, T] -> [B, T] float64"""
    return mask.double()
