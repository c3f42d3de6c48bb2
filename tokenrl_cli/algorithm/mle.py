"""Maximum likelihood: cross-entropy on demonstrations. The warm start, and the control that RL must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from tokenrl_cli.algorithm.parts import within
from tokenrl_cli.functional.likelihood import negative_log_likelihood
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.interfaces import Batch, Model, Rollout, Tokenizer, UserError
from tokenrl_cli.optim import Optimizer, gradient_step
from tokenrl_cli.sampling import recite


class Mle:
    """loss = -(1 / tokens) sum_t log pi(y_t | x, y_<t) over the demonstrations y, optionally label-smoothed.

    The mean is over all tokens of the optimiser step, EOS included. Dropout is on.
    """

    needs_rewards = False

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        label_smoothing: float,
        micro_batches: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError("algorithm.label_smoothing", f"must be in [0, 1), got {label_smoothing}")
        self.model = model
        self.eos_id = tokenizer.eos_id
        self.label_smoothing = label_smoothing
        self.micro_batches = micro_batches
        self.optimizer = optimizer(model.parameters())

    def collect(self, batch: Batch) -> Rollout:
        return recite(batch, self.eos_id)

    def update(self, rollout: Rollout) -> dict[str, float]:
        self.model.train()
        tokens = rollout.mask.sum()  # of the whole step, whatever the number of micro-batches

        def loss(rows: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
            logits = self.model(rows.source, rows.source_mask, rows.actions).logits
            nll = masked_sum(negative_log_likelihood(logits, rows.actions, self.label_smoothing), rows.mask) / tokens
            return nll, {"loss/nll": nll.detach()}

        return gradient_step(self.optimizer, rollout, loss, self.micro_batches)

    def policy(self) -> Model:
        policy: Model = self.model
        return policy

    def state_dict(self) -> dict[str, Any]:
        return {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(within(state, "optimizer."))
