"""Reward augmented maximum likelihood: cross-entropy on demonstrations in which random tokens are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.mle import Mle
from tokenrl_cli.config.ranges import Fraction, Positive, Size
from tokenrl_cli.functional.demonstrations import replaced_share
from tokenrl_cli.functional.schedules import never
from tokenrl_cli.functional.value import last_steps
from tokenrl_cli.interfaces import Batch, ModelModule, Rollout, SettingError, Tokenizer
from tokenrl_cli.optim import Optimizer


class Raml(Mle):
    """loss = -E_{y' ~ q(. | y)} log pi(y' | x), a mean over tokens, q proportional to exp(R(y', y) / tau).

    Norouzi et al. 2016 (arXiv:1609.00150), equation 7: it has the optimum of RL with an entropy bonus of tau, without
    sampling from the policy. R = -(1 + log n) times the number of replaced tokens, where n is the number of tokens that
    each can be replaced by (`functional.demonstrations.replaced_share`). The last token of a demonstration, EOS unless
    it was cut, is never replaced, and no token is replaced by EOS or the unknown token.

    Differs from the paper: of its edits only substitutions, so q is exact and no reward of the run is read. The
    constructor raises UserError where the vocabulary has fewer than two tokens that can be replaced by one another.
    """

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        seed: int,
        tau: Positive,
        label_smoothing: Fraction,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        super().__init__(model, tokenizer, seed, label_smoothing, never, micro_batches, optimizer)
        self.allowed = [i for i in range(tokenizer.size) if i not in (tokenizer.eos_id, tokenizer.unknown_id)]
        if len(self.allowed) < 2:
            raise SettingError("", f"raml replaces tokens by others, and there are {len(self.allowed)}")
        self.share = replaced_share(len(self.allowed) - 1, tau)

    def collect(self, batch: Batch) -> Rollout:
        """Returns a Rollout of demonstrations y' with replaced tokens, one episode [N, R] for each source, without
        tokens for a source without a demonstration: the new tokens stand in both `actions` and `targets`, while
        `reference_ids` are unchanged; `batch` stays as it is. The same seed and `batch.step` give the same ones. The
        model is not used."""
        recited = super().collect(batch)
        replaced = self._replaced(recited)
        return replace(recited, actions=replaced, targets=replaced)

    def _replaced(self, recited: Rollout) -> Tensor:
        """y' ~ q(. | y): the tokens [B, T], each but the last of a row replaced with probability `share` by another."""
        draws = streams.generator(self.seed, "raml", recited.step)
        shape, device = recited.actions.shape, recited.actions.device
        bad = (torch.rand(shape, generator=draws) < self.share).to(device) & recited.mask & ~last_steps(recited.mask)
        other = torch.randint(len(self.allowed) - 1, shape, generator=draws).to(device)
        allowed = torch.tensor(self.allowed, device=device)
        place = torch.searchsorted(allowed, recited.actions).clamp(max=len(allowed) - 1)
        itself = allowed[place] == recited.actions
        return torch.where(bad, allowed[other + (itself & (other >= place))], recited.actions)
