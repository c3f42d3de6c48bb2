"""Optimal completion distillation: on its own prefixes the policy is shown every token that is still best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.config.ranges import Positive, Size
from tokenrl_cli.episodes.sampling import Decoding, generate, rollout_of
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import SAMPLED, Batch, Model, Rollout, Tokenizer
from tokenrl_cli.metrics.edits import completion_values
from tokenrl_cli.optim import Optimizer, gradient_step


class Ocd:
    """loss = (1 / tokens) sum_t KL(softmax(Q*(s_t, .) / tau) || pi(. | s_t)) on episodes sampled from the policy.

    Q* are the optimal token values of edit distance to the clean reference (`metrics.edits.completion_values`): Sabour
    et al. 2019 (arXiv:1810.01398), equations 5 to 7; tau towards 0 shares the mass among the best tokens alone. It
    reads the reference at every step, so it is no RL: a supervised upper bound for rewards of edit distance. The values
    take a second [B, T, V] tensor. Dropout is off, as the episodes are sampled without.
    """

    needs_rewards = False
    needs_references = True

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        temperature: Positive,
        tau: Positive,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        self.model, self.eos_id, self.seed = model, tokenizer.eos_id, seed
        self.samples_per_source, self.tau, self.micro_batches = samples_per_source, tau, micro_batches
        self.decoding = Decoding(max_length, temperature, 0, 1.0, 0.0, [], 1, 0.0)
        self.optimizer = optimizer(model.parameters())

    def collect(self, batch: Batch) -> Rollout:
        self.model.eval()
        draws = streams.generator(self.seed, "rollout", batch.step)
        times = self.samples_per_source
        samples = generate(self.model, batch.source, batch.source_mask, self.decoding, times, self.eos_id, draws)
        return rollout_of(batch, samples, SAMPLED)

    def update(self, rollout: Rollout) -> dict[str, float]:
        self.model.eval()
        tokens = rollout.mask.sum().clamp(min=1)

        def loss(rows: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
            logits = self.model(rows.source, rows.source_mask, rows.actions, rows.source_row).logits
            logprobs = precise(logits).log_softmax(-1)
            best = (self._values(rows, logprobs.shape[-1]).to(logprobs) / self.tau).log_softmax(-1)
            apart = masked_sum((best.exp() * (best - logprobs)).sum(-1), rows.mask) / tokens
            return apart, {"loss/ocd": apart.detach()}

        return gradient_step(self.optimizer, rollout, loss, self.micro_batches)

    def _values(self, rows: Rollout, size: int) -> Tensor:
        """Q* of every token after every prefix, [B, T, V]; EOS is no token of a text."""
        lengths = rows.mask.sum(-1) - rows.ended.to(torch.int64)
        ids, mask = rows.reference_ids[rows.source_row], rows.reference_mask[rows.source_row]
        wanted = (mask & (ids != self.eos_id)).sum(-1)
        actions, said, reference, known = (each.cpu().numpy() for each in (rows.actions, lengths, ids, wanted))
        values = completion_values(actions, said, reference, known, size, self.eos_id)
        return torch.from_numpy(values[:, : rows.actions.shape[1]])

    def policy(self) -> Model:
        policy: Model = self.model
        return policy

    def state_dict(self) -> dict[str, Any]:
        return {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(within(state, "optimizer."))
