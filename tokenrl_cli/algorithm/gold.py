"""GOLD: learning from demonstrations alone, weighted by how likely the policy itself would generate their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.algorithm.networks import frozen_copy
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.config.ranges import Count, CountOrZero, Probability, Size, Weight
from tokenrl_cli.episodes.sampling import recite
from tokenrl_cli.functional.demonstrations import truncated_returns
from tokenrl_cli.functional.likelihood import output_nll
from tokenrl_cli.functional.masking import masked_mean, masked_sum
from tokenrl_cli.interfaces import Batch, Model, ModelModule, Rollout, Tokenizer
from tokenrl_cli.optim import Optimizer, gradient_step


@dataclass(frozen=True)
class WeightedDemonstrations:
    """Demonstrations and the weight of each of their tokens in the loss."""

    episodes: Rollout
    weights: Tensor  # [B, T]

    def __len__(self) -> int:
        return len(self.episodes)

    def rows(self, index: slice) -> WeightedDemonstrations:
        """Returns a micro-batch: the demonstrations in the slice `index` and their rows of the weights, [B', T] for B'
        of them, a view."""
        return WeightedDemonstrations(self.episodes.rows(index), self.weights[index])


class Gold:
    """loss = -(1 / tokens) sum_t max(u, p~(y_t | s_t)) max(c, Q_t - b) log pi(y_t | s_t) over demonstrations y.

    Pang & He 2021 (arXiv:2009.07839), algorithm 1. p~ is a copy of the policy, made anew every `sync_every` updates; it
    stands for the importance weight of the token, with the floor u = `floor`. Q_t = r_t + ... + r_{t + suffix}, where
    r = `value(log-probability of the token under the frozen warm start)`, b = `lower_bound` and c = `least`. Nothing is
    sampled, and no reward of the run is read. The likelihood of demonstrations falls while quality rises, so follow a
    metric instead.

    Differs from the paper: the weights come from teacher-forced passes without dropout; the loss is a mean over tokens.
    """

    needs_rewards = False
    needs_references = True

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        value: Callable[[Tensor], Tensor],
        suffix: CountOrZero,
        lower_bound: float,
        least: Weight,
        floor: Probability,
        sync_every: Count,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        self.model, self.eos_id, self.size = model, tokenizer.eos_id, tokenizer.size
        self.frozen, self.lagged = (frozen_copy(model) for _ in range(2))
        self.value, self.suffix, self.lower_bound, self.least = value, suffix, lower_bound, least
        self.floor, self.sync_every, self.micro_batches = floor, sync_every, micro_batches
        self.optimizer = optimizer(model.parameters())
        self.updates = 0

    def collect(self, batch: Batch) -> Rollout:
        """Returns the demonstrations of the batch as a Rollout of one episode [N, R] for each source, one without
        tokens for a source without a demonstration; nothing is sampled, and the model is not used."""
        return recite(batch, self.eos_id)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Takes one optimiser step on the demonstrations of a rollout of `collect`, with dropout on, and renews the
        copy p~ after every `sync_every`-th. Leaves the model in training mode. Returns means over tokens: loss/policy,
        loss/nll (without the weights), q/mean (of max(c, Q_t - b)), importance/mean (of max(u, p~)), importance/floored
        (the share with p~ at the floor or below); and grad_norm, grad_clipped and lr of the optimiser. Raises
        NonFinite, see `optim.gradient_step`, and where there is no token at all."""
        weighted, metrics = self._with_weights(rollout)
        self.model.train()
        tokens = rollout.mask.sum()

        def loss(rows: WeightedDemonstrations) -> tuple[Tensor, dict[str, Tensor]]:
            shown = rows.episodes
            output = self.model(shown.source, shown.source_mask, shown.actions, shown.source_row)
            nll = output_nll(output, shown.actions, shown.mask, 0.0, self.size)
            total = masked_sum(rows.weights * nll, shown.mask) / tokens
            return total, {"loss/policy": total.detach(), "loss/nll": masked_sum(nll.detach(), shown.mask) / tokens}

        metrics |= gradient_step(self.optimizer, weighted, loss, self.micro_batches)
        self.updates += 1
        if self.updates % self.sync_every == 0:
            self.lagged.load_state_dict(self.model.state_dict())
        return metrics

    @torch.no_grad()
    def _with_weights(self, rollout: Rollout) -> tuple[WeightedDemonstrations, dict[str, float]]:
        """The weight max(u, p~) max(c, Q_t - b) of each token, and what is logged of it."""
        outputs = (
            model(rollout.source, rollout.source_mask, rollout.actions, rollout.source_row)
            for model in (self.lagged, self.frozen)
        )
        lagged, frozen = (-output_nll(each, rollout.actions, rollout.mask, 0.0, self.size) for each in outputs)
        importance = lagged.exp().clamp(min=self.floor)
        q = (truncated_returns(self.value(frozen), rollout.mask, self.suffix) - self.lower_bound).clamp(min=self.least)
        metrics = {
            "importance/mean": float(masked_mean(importance, rollout.mask)),
            "importance/floored": float(masked_mean((importance <= self.floor).double(), rollout.mask)),
            "q/mean": float(masked_mean(q, rollout.mask)),
        }
        return WeightedDemonstrations(rollout, importance * q), metrics

    def policy(self) -> Model:
        """Returns the model itself, not a copy, in its present mode: later updates change it."""
        policy: Model = self.model
        return policy

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of updates as "updates", and under "optimizer.", "frozen." and "lagged." the state of the
        optimiser and the weights of the frozen warm start and of the copy p~, in live tensors. The model's weights are
        saved elsewhere."""
        state: dict[str, Any] = {"updates": self.updates}
        state |= {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}
        for name, model in (("frozen", self.frozen), ("lagged", self.lagged)):
            state |= {f"{name}.{key}": value for key, value in model.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, the weights of both copies in place; those of the model are restored
        elsewhere. Raises KeyError, ValueError or the like where the state is of another algorithm."""
        self.updates = state["updates"]
        self.optimizer.load_state_dict(within(state, "optimizer."))
        self.frozen.load_state_dict(within(state, "frozen."))
        self.lagged.load_state_dict(within(state, "lagged."))
