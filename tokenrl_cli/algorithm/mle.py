"""Maximum likelihood: cross-entropy on demonstrations. It is the warm start, and the baseline that RL must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.config.ranges import Fraction, Size
from tokenrl_cli.episodes.sampling import Decoding, generate, recite
from tokenrl_cli.functional.likelihood import summed_nll
from tokenrl_cli.functional.value import last_steps
from tokenrl_cli.interfaces import Batch, Model, ModelModule, Rollout, Tokenizer
from tokenrl_cli.optim import Optimizer, gradient_step


class Mle:
    """loss = -(1 / tokens) sum_t log pi(y_t | x, y_<t) over the demonstrations y, optionally label-smoothed.

    The mean is over all tokens of the optimiser step, EOS included. Dropout is on.

    With scheduled sampling (Bengio et al. 2015, arXiv:1506.03099) each token of the history y_<t is replaced, with a
    probability that grows over the stage, by one that the policy samples after the history so far, while y_t stays the
    target. No gradient flows through the choice, and the loss is no longer the likelihood of any distribution. EOS is
    never sampled into a history, as nothing follows it.
    """

    needs_rewards = False
    needs_references = True

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        seed: int,
        label_smoothing: Fraction,
        scheduled_sampling: Callable[[int], float],
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        self.model = model
        self.eos_id, self.size, self.seed = tokenizer.eos_id, tokenizer.size, seed
        self.scheduled_sampling = scheduled_sampling
        self.label_smoothing = label_smoothing
        self.micro_batches = micro_batches
        self.optimizer = optimizer(model.parameters())

    def collect(self, batch: Batch) -> Rollout:
        """Returns the demonstrations as a Rollout of one episode [N, R] for each source, one without tokens for a
        source without a demonstration; with scheduled sampling some tokens of their history are sampled.

        The sampled tokens are in `actions`, the demonstrations themselves in `targets`. The share of sampled tokens is
        `scheduled_sampling(number of optimiser steps so far)`. Where that is above 0, the model is switched to
        evaluation mode (`update` switches it back), and NonFinite is raised where a probability is not finite.
        """
        recited = recite(batch, self.eos_id)
        share = self.scheduled_sampling(self.optimizer.steps)
        return self._with_sampled_history(recited, share) if share > 0 else recited

    def _with_sampled_history(self, recited: Rollout, share: float) -> Rollout:
        """The demonstrations, in whose `actions` each token but the last of a row is replaced, with probability
        `share`, by one that the policy samples there."""
        self.model.eval()
        draws = streams.generator(self.seed, "scheduled sampling", recited.step)
        limit = recited.actions.shape[1]
        kept = torch.rand(recited.mask.shape, generator=draws).to(recited.mask.device) >= share
        kept |= ~recited.mask | last_steps(recited.mask)
        decoding = Decoding(limit, 1.0, 0, 1.0, 0.0, [self.eos_id], 1, 0.0)
        forced = (recited.actions, kept)
        samples = generate(
            self.model, recited.source, recited.source_mask, decoding, 1, self.eos_id, draws, forced, recited.source_row
        )
        return replace(recited, actions=nn.functional.pad(samples.actions, (0, limit - samples.actions.shape[1])))

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Takes one optimiser step on the demonstrations of a rollout of `collect`, with dropout on, and leaves the
        model in training mode. Returns loss/nll (nats a token, label smoothing included), and grad_norm, grad_clipped
        and lr of the optimiser. Raises NonFinite, see `optim.gradient_step`, and where there is no token at all."""
        self.model.train()
        tokens = rollout.mask.sum()  # of the whole step, whatever the number of micro-batches

        def loss(rows: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
            output = self.model(rows.source, rows.source_mask, rows.actions, rows.source_row)
            targets = rows.targets[rows.source_row]
            smoothing, parameters = self.label_smoothing, self.model.parameters()
            nll = summed_nll(output, targets, rows.mask, smoothing, self.size, parameters) / tokens
            return nll, {"loss/nll": nll.detach()}

        return gradient_step(self.optimizer, rollout, loss, self.micro_batches)

    def policy(self) -> Model:
        """Returns the model itself, not a copy, in its present mode: later updates change it."""
        policy: Model = self.model
        return policy

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the optimiser, its names after "optimizer.", in live tensors. The model's weights are
        saved elsewhere."""
        return {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the optimiser from what `state_dict` returned; the model's weights are restored elsewhere. Raises
        KeyError, ValueError or the like where the state is of another algorithm."""
        self.optimizer.load_state_dict(within(state, "optimizer."))
