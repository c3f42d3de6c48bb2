"""Baselines without memory: what is subtracted from the returns of N sources (prompts) with K samples each.

A baseline declares what it reads by the names of its parameters: `returns` [N, K, T] (of each token; what stands past
the end of an episode depends on the function: `returns.padded_reward_to_go` repeats the last return, `lambda_returns`
gives 0), `valid` [N, K] bool (True for a sample that has a reward and was not dropped, as a duplicate or with a group
of equal scores), `values` [N, K, T] of the critic, and `companion` [N, T], the returns-to-go of one greedy episode of
each source. An algorithm decodes that greedy episode only where its baseline has the parameter `companion`. A baseline
returns a tensor that broadcasts to [N, K, T]; the advantage is returns - baseline.

`no_baseline`, `greedy`, `leave_one_out` and `state_value` do not depend on the token whose advantage they are
subtracted in, so they do not bias the gradient (Williams 1992); `group_mean` and `batch_mean` do.
"""

from __future__ import annotations

import torch
from torch import Tensor


def no_baseline(returns: Tensor) -> Tensor:
    """Zero baseline, b = 0: REINFORCE (Williams 1992). Of returns [N, K, T] only the dtype and the device are read ->
    [] (a scalar)."""
    return returns.new_zeros(())


def greedy(companion: Tensor) -> Tensor:
    """Greedy baseline: b_t = return-to-go at t of the greedy episode of the same source (prompt). `companion` [N, T]
    holds these returns, past the end of the greedy episode that of its last token -> [N, 1, T], a view of it.

    Self-critical sequence training, Rennie et al. 2017 (arXiv:1612.00563), equation 9; with dense rewards, per token.
    """
    return companion.unsqueeze(1)


def leave_one_out(returns: Tensor, valid: Tensor) -> Tensor:
    """Leave-one-out baseline: b_{i,t} = mean of G_{j,t} over the other valid samples j of the same source. Where there
    is no other valid sample, it is the sample's own return, so that the advantage is 0.

    returns [N, K, T], valid [N, K] bool -> [N, K, T]. The returns must be finite, also those of samples that are not
    valid: these are in no mean, but have a baseline themselves. Past the end of an episode its `returns` enter the mean
    as they stand there. RLOO, Ahmadian et al. 2024 (arXiv:2402.14740), equation 6; with dense rewards, per token.
    """
    valid_returns = returns * valid.unsqueeze(-1)
    others = valid.sum(1, keepdim=True) - valid.to(returns.dtype)  # [N, K], the number of other valid samples
    mean = (valid_returns.sum(1, keepdim=True) - valid_returns) / others.clamp(min=1).unsqueeze(-1)
    # Without another valid sample the baseline is the sample's own return: its advantage is 0. A baseline of 0 would
    # leave it the raw return as advantage, on another scale than all others.
    return torch.where(others.unsqueeze(-1) > 0, mean, returns)


def group_mean(returns: Tensor, valid: Tensor) -> Tensor:
    """Group mean: b_t = mean of G_{j,t} over all valid samples j of the source, the one it is subtracted from included;
    0 where no sample is valid.

    returns [N, K, T], valid [N, K] bool -> [N, 1, T]. The returns must be finite, also those of samples that are not
    valid. Past the end of an episode its `returns` enter the mean as they stand there. GRPO, Shao et al. 2024
    (arXiv:2402.03300). Because the sample itself is in the mean, the expected gradient is (K - 1) / K of the true one,
    where K counts the valid samples.
    """
    valid_returns = returns * valid.unsqueeze(-1)
    return valid_returns.sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]


def batch_mean(returns: Tensor, valid: Tensor) -> Tensor:
    """Batch mean: b_t = mean of G_t over all valid samples of the batch, the one it is subtracted from included; 0
    where no sample is valid.

    returns [N, K, T], valid [N, K] bool -> [1, 1, T]. The returns must be finite, also those of samples that are not
    valid. Past the end of an episode its `returns` enter the mean as they stand there. Of B valid samples the expected
    gradient is (B - 1) / B of the true one.
    """
    valid_returns = returns * valid.unsqueeze(-1)
    return valid_returns.sum((0, 1), keepdim=True) / valid.sum().clamp(min=1)


def state_value(values: Tensor) -> Tensor:
    """State-value baseline: b_t = V(s_t) of the critic. `values` [N, K, T] holds these -> [N, K, T], the same tensor.

    V(s_t) depends only on the tokens before t, so it does not bias the gradient (actor-critic, Sutton et al. 2000).
    """
    return values


def equal_groups(scores: Tensor, valid: Tensor) -> Tensor:
    """True for each source whose valid samples all have the same score: they give nothing to compare, and against their
    mean the advantage of a terminal reward is 0. Also True where only one sample is valid, or none.

    scores [N, K], of whole episodes, valid [N, K] bool -> [N] bool. Scores of samples that are not valid are not read
    and may be NaN. DAPO (arXiv:2503.14476), section 3.2, leaves such groups out.
    """
    # Invalid samples are -inf in the maximum and inf in the minimum, so that they decide neither.
    highest = scores.masked_fill(~valid, -torch.inf).amax(1)
    return highest <= scores.masked_fill(~valid, torch.inf).amin(1)
