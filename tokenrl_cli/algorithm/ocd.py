"""Optimal completion distillation: the policy learns which tokens are best after the prefixes that it samples."""

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

    Sabour et al. 2019 (arXiv:1810.01398), equations 5 to 7. Q*(s_t, a) is minus the smallest edit distance to the clean
    reference that a text can still have which begins with y_<t and a (`metrics.edits.completion_values`). With tau
    towards 0 the best tokens share all the probability. The targets read the reference at every step, so this is no
    RL but a supervised upper bound for rewards of edit distance. They take a second [B, T, V] tensor of memory. Dropout
    is off, as it is when the episodes are sampled.
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
        """`samples_per_source` episodes of the policy for every source."""
        self.model.eval()
        draws = streams.generator(self.seed, "rollout", batch.step)
        times = self.samples_per_source
        samples = generate(self.model, batch.source, batch.source_mask, self.decoding, times, self.eos_id, draws)
        return rollout_of(batch, samples, SAMPLED)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One optimiser step -> loss/ocd and what the optimiser logs."""
        self.model.eval()
        tokens = rollout.mask.sum().clamp(min=1)

        def loss(rows: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
            logits = self.model(rows.source, rows.source_mask, rows.actions, rows.source_row).logits
            logprobs = precise(logits).log_softmax(-1)
            best = (self._values(rows, logprobs.shape[-1]).to(logprobs) / self.tau).log_softmax(-1)
            divergence = masked_sum((best.exp() * (best - logprobs)).sum(-1), rows.mask) / tokens
            return divergence, {"loss/ocd": divergence.detach()}

        return gradient_step(self.optimizer, rollout, loss, self.micro_batches)

    def _values(self, rows: Rollout, size: int) -> Tensor:
        """Q* of every token after every prefix: [B, T, V]. EOS ends a text and is not a token of it."""
        lengths = rows.mask.sum(-1) - rows.ended.to(torch.int64)
        ids, mask = rows.reference_ids[rows.source_row], rows.reference_mask[rows.source_row]
        reference_lengths = (mask & (ids != self.eos_id)).sum(-1)
        actions, references = rows.actions.cpu().numpy(), ids.cpu().numpy()
        counts, reference_counts = lengths.cpu().numpy(), reference_lengths.cpu().numpy()
        values = completion_values(actions, counts, references, reference_counts, size, self.eos_id)
        return torch.from_numpy(values[:, : rows.actions.shape[1]])

    def policy(self) -> Model:
        """The model itself."""
        policy: Model = self.model
        return policy

    def state_dict(self) -> dict[str, Any]:
        """That of the optimiser, under "optimizer."."""
        return {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.optimizer.load_state_dict(within(state, "optimizer."))
