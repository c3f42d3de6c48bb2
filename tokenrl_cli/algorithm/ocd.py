"""Optimal completion distillation: the policy learns which tokens are best after the prefixes that it samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.config.ranges import Positive, Size
from tokenrl_cli.episodes.sampling import Decoding, generate, rollout_of
from tokenrl_cli.functional.chunks import logits_of, sum_over_states
from tokenrl_cli.functional.completion import optimal_values
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import SAMPLED, Batch, Model, ModelModule, ModelOutput, Rollout, Tokenizer
from tokenrl_cli.metrics.edits import prefix_distances
from tokenrl_cli.optim import Optimizer, gradient_step


class Ocd:
    """loss = (1 / tokens) sum_t KL(softmax(Q*(s_t, .) / tau) || pi(. | s_t)) on episodes sampled from the policy.

    Sabour et al. 2019 (arXiv:1810.01398), equations 5 to 7. Q*(s_t, a) is minus the smallest edit distance to the clean
    reference of all texts that begin with y_<t and a (`functional.completion.optimal_values`). As tau goes to 0 the
    best tokens share all the probability. The targets read the reference at every step, so this is no RL but a
    supervised upper bound for rewards of edit distance. Dropout is off, as it is when the episodes are sampled.

    The edit distance is one of tokens, to one reference, and each error counts 1. So the errors are those of `cer` with
    tokenizer=char, and those of `wer` with tokenizer=word where the words have no marks or apostrophes in them, which
    are tokens of their own; with sub-words they are neither. Targets share their probability among equally good tokens
    alone: there is no label smoothing beside them. What the paper compares with is maximum likelihood, `Mle`, which has
    it.
    """

    needs_rewards = False
    needs_references = True

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        temperature: Positive,
        tau: Positive,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        self.model, self.eos_id, self.size, self.seed = model, tokenizer.eos_id, tokenizer.size, seed
        self.samples_per_source, self.tau, self.micro_batches = samples_per_source, tau, micro_batches
        self.decoding = Decoding(max_length, temperature, 0, 1.0, 0.0, [], 1, 0.0)
        self.optimizer = optimizer(model.parameters())

    def collect(self, batch: Batch) -> Rollout:
        """Samples `samples_per_source` episodes of the policy for every source of the batch and returns them, those of
        a source together, without rewards. Switches the model to evaluation mode and leaves it there. The same seed and
        `batch.step` give the same random numbers. Raises NonFinite where a probability is not finite."""
        self.model.eval()
        draws = streams.generator(self.seed, "rollout", batch.step)
        times = self.samples_per_source
        samples = generate(self.model, batch.source, batch.source_mask, self.decoding, times, self.eos_id, draws)
        return rollout_of(batch, samples, SAMPLED)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Takes one optimiser step on all episodes of a rollout, compared with the clean reference of their source;
        rewards are not read. Returns loss/ocd (nats a token), and grad_norm, grad_clipped and lr of the optimiser.
        Switches the model to evaluation mode. Raises NonFinite, see `optim.gradient_step`."""
        self.model.eval()
        tokens = rollout.mask.sum().clamp(min=1)

        def loss(rows: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
            output = self.model(rows.source, rows.source_mask, rows.actions, rows.source_row)
            terms, parameters = partial(self._divergences, output), self.model.parameters()
            total = sum_over_states(terms, self.size, rows.mask, parameters, output.hidden, *self._distances(rows))
            divergence = total / tokens
            return divergence, {"loss/ocd": divergence.detach()}

        return gradient_step(self.optimizer, rollout, loss, self.micro_batches)

    def _divergences(
        self, output: ModelOutput, hidden: Tensor, distances: Tensor, references: Tensor, lengths: Tensor
    ) -> Tensor:
        """The KL divergence in each of some states S, nats: hidden [S, D] and what `_distances` returns of them ->
        [S]."""
        logprobs = precise(logits_of(output, hidden)).log_softmax(-1)
        values = optimal_values(distances.to(logprobs.dtype), references, lengths, self.size, self.eos_id)
        best = (values / self.tau).log_softmax(-1)
        return (best.exp() * (best - logprobs)).sum(-1)

    def _distances(self, rows: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """For every state the edit distances of the text so far to the prefixes of its reference [B, T, R + 1], and the
        reference [B, T, R] and its length [B, T] once more. EOS ends a text and is not a token of it."""
        lengths = rows.mask.sum(-1) - rows.ended.to(torch.int64)
        ids, mask = rows.reference_ids[rows.source_row], rows.reference_mask[rows.source_row]
        reference_lengths = (mask & (ids != self.eos_id)).sum(-1)
        columns = (each.cpu().numpy() for each in (rows.actions, lengths, ids, reference_lengths))
        distances = torch.from_numpy(prefix_distances(*columns)[:, : rows.actions.shape[1]]).to(ids.device)
        steps = distances.shape[1]
        return distances, ids.unsqueeze(1).expand(-1, steps, -1), reference_lengths.unsqueeze(1).expand(-1, steps)

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
