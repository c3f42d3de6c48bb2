"""Policy gradient on sampled episodes: REINFORCE, RLOO and self-critical training are presets of this one class.

What differs between them is the baseline, a part named in YAML. One update a rollout, so there is no importance ratio.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.parts import within
from tokenrl_cli.functional.entropy import entropy
from tokenrl_cli.functional.kl import k1
from tokenrl_cli.functional.likelihood import negative_log_likelihood
from tokenrl_cli.functional.masking import masked_mean, masked_sum
from tokenrl_cli.functional.returns import reward_to_go
from tokenrl_cli.interfaces import GREEDY, SAMPLED, Batch, Model, Rollout, Tokenizer, UserError
from tokenrl_cli.optim import Optimizer, gradient_step
from tokenrl_cli.sampling import Decoding, concatenate, generate, logprobs_of, rollout_of

# by how much the same log-probability may differ between one pass and step by step
SAME = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.5, torch.float16: 0.1}


@dataclass(frozen=True)
class Weighted:
    """Sampled episodes with the advantage of every token: what the loss reads."""

    episodes: Rollout
    advantages: Tensor  # [B, T], 0 where masked
    recited: Tensor  # [B] bool, one row a source: where the demonstration is counted

    def __len__(self) -> int:
        return len(self.episodes)

    def rows(self, index: slice) -> Weighted:
        return Weighted(self.episodes.rows(index), self.advantages[index], self.recited[index])


class PolicyGradient:
    """loss = -(1 / B) sum_b sum_t A_t log pi(a_t | s_t) - eta H + lambda NLL, with A_t = G_t - b_t.

    G_t is the reward-to-go, less beta KL to the frozen warm start, token by token; B the valid sampled episodes of the
    optimiser step. H (entropy of the plain softmax) and NLL (of the demonstrations) are means over their tokens. The
    gradient of the first term is that of the expected reward (Williams 1992), exactly in expectation for any baseline
    in functional/advantages.py. The model is in evaluation mode throughout.
    """

    needs_rewards = True

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: int,
        temperature: float,
        top_k: int,
        top_p: float,
        epsilon: float,
        baseline: Callable[..., Tensor],
        kl_coef: float,
        entropy_coef: float,
        nll_mix: float,
        micro_batches: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        needs = set(inspect.signature(baseline).parameters)  # a part says by its parameters what it reads
        fewest = 2 if "valid" in needs else 1  # who reads that compares the samples of a source
        for name, holds, wanted in (
            ("samples_per_source", samples_per_source >= fewest, f"at least {fewest} with this baseline"),
            ("temperature", temperature > 0, "above 0: a greedy policy has no gradient"),
            ("kl_coef", kl_coef >= 0, "0 (off) or more"),
            ("nll_mix", nll_mix >= 0, "0 (off) or more"),
            ("micro_batches", micro_batches >= 1, "at least 1"),
        ):
            if not holds:
                raise UserError(f"algorithm.{name}", f"must be {wanted}, got {locals()[name]}")
        self.model = model
        self.reference = copy.deepcopy(model).requires_grad_(False).eval() if kl_coef > 0 else None
        self.eos_id = tokenizer.eos_id
        self.seed = seed
        self.samples_per_source = samples_per_source
        self.decoding = Decoding(max_length, temperature, top_k, top_p, epsilon, [], 1, 0.0)
        self.greedy = replace(self.decoding, temperature=0.0, top_k=0, top_p=1.0, epsilon=0.0)
        self.baseline = baseline
        self.needs = needs
        self.kl_coef = kl_coef
        self.entropy_coef = entropy_coef
        self.nll_mix = nll_mix
        self.micro_batches = micro_batches
        self.optimizer = optimizer(model.parameters())
        self.updates = 0

    def collect(self, batch: Batch) -> Rollout:
        self.model.eval()
        parts = [self._episodes(batch, self.decoding, self.samples_per_source, SAMPLED)]
        if "companion" in self.needs:
            parts.append(self._episodes(batch, self.greedy, 1, GREEDY))
        return concatenate(parts)

    def _episodes(self, batch: Batch, decoding: Decoding, times: int, role: int) -> Rollout:
        draws = streams.generator(self.seed, "rollout", batch.step)
        samples = generate(self.model, batch.source, batch.source_mask, decoding, times, self.eos_id, draws)
        return rollout_of(batch, samples, role)

    def update(self, rollout: Rollout) -> dict[str, float]:
        self.model.eval()  # dropout would make the scored distribution another one than the sampled
        weighted, metrics = self._weigh(rollout)
        counted = weighted.episodes.mask & weighted.episodes.valid.unsqueeze(-1)
        episodes, tokens = weighted.episodes.valid.sum().clamp(min=1), counted.sum().clamp(min=1)
        demonstrated = weighted.episodes.target_mask[weighted.recited].sum().clamp(min=1)

        differences: list[float] = []
        precisions: set[torch.dtype] = set()

        def loss(rows: Weighted) -> tuple[Tensor, dict[str, Tensor]]:
            seen, mask = rows.episodes, rows.episodes.mask & rows.episodes.valid.unsqueeze(-1)
            logits = self.model(seen.source, seen.source_mask, seen.actions).logits
            logprobs = logprobs_of(logits, seen.actions, self.decoding, seen.support)
            policy = -masked_sum(rows.advantages * logprobs, mask) / episodes
            precisions.add(logits.dtype)
            weighed = logits if self.entropy_coef else logits.detach()  # what is only logged needs no gradient
            undecided = masked_sum(entropy(weighed), mask) / tokens
            total = policy - self.entropy_coef * undecided
            terms = {"loss/policy": policy.detach(), "entropy": undecided.detach()}
            difference = (logprobs.detach() - seen.logprobs).abs().masked_fill(~mask, 0.0)
            differences.append(float(difference.max()))
            if self.nll_mix > 0:
                nll = self._demonstration_loss(seen.rows(rows.recited)) / demonstrated
                total = total + self.nll_mix * nll
                terms["loss/nll"] = nll.detach()
            return total, terms

        metrics |= gradient_step(self.optimizer, weighted, loss, self.micro_batches)
        metrics["sampling/logp_difference/max"] = max(differences)
        self._check_first_pass(max(differences), SAME[precisions.pop()])
        return metrics

    def _demonstration_loss(self, rows: Rollout) -> Tensor:
        """Sum over the tokens of the demonstrations of `rows`."""
        if len(rows) == 0:
            return rows.logprobs.sum()
        logits = self.model(rows.source, rows.source_mask, rows.targets).logits
        return masked_sum(negative_log_likelihood(logits, rows.targets, 0.0), rows.target_mask)

    @torch.no_grad()
    def _weigh(self, rollout: Rollout) -> tuple[Weighted, dict[str, float]]:
        """Returns to go of every episode, less the baseline: computed on the whole rollout before it is split."""
        episodes = rollout.rows((rollout.role == SAMPLED).nonzero().squeeze(-1))
        assert episodes.rewards is not None
        rewards, metrics = episodes.rewards, {}
        if self.reference is not None:
            divergence = k1(*self._plain_logprobs(episodes))
            metrics["kl"] = float(masked_mean(divergence, episodes.mask))
            rewards = rewards - self.kl_coef * divergence
        shape = (-1, self.samples_per_source, episodes.actions.shape[1])
        known = {
            "returns": reward_to_go(rewards, episodes.mask).view(shape),
            "valid": episodes.valid.view(shape[:2]),
        }
        if "companion" in self.needs:
            greedy = rollout.rows((rollout.role == GREEDY).nonzero().squeeze(-1))
            assert greedy.rewards is not None
            known["companion"] = reward_to_go(greedy.rewards, greedy.mask)
        advantages = known["returns"] - self.baseline(**{name: known[name] for name in self.needs})
        if hasattr(self.baseline, "observe"):
            self.baseline.observe(known["returns"], known["valid"])
        usable = (episodes.mask & episodes.valid.unsqueeze(-1)).view(shape)
        advantages = advantages.masked_fill(~usable, 0.0).flatten(0, 1)
        recited = torch.arange(len(episodes), device=rewards.device) % self.samples_per_source == 0
        return Weighted(episodes, advantages, recited), metrics

    def _plain_logprobs(self, episodes: Rollout) -> tuple[Tensor, Tensor]:
        """Of the sampled tokens under the plain softmax of the policy and of the reference."""
        models: tuple[Any, ...] = (self.model, self.reference)
        logits = [model(episodes.source, episodes.source_mask, episodes.actions).logits for model in models]
        policy, reference = (-negative_log_likelihood(each, episodes.actions, 0.0) for each in logits)
        return policy, reference

    def _check_first_pass(self, difference: float, tolerance: float) -> None:
        """The scorer must see the distribution that was sampled from; else the gradient is that of another policy."""
        if self.updates == 0 and not difference <= tolerance:
            raise RuntimeError(
                f"sampled and scored log-probabilities differ by {difference:.2e} on the first batch "
                f"(at most {tolerance:.0e} expected): step() and the teacher-forced pass of the model disagree"
            )
        self.updates += 1

    def policy(self) -> Model:
        policy: Model = self.model
        return policy

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"updates": self.updates}
        state |= {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}
        if hasattr(self.baseline, "state_dict"):
            state |= {f"baseline.{name}": value for name, value in self.baseline.state_dict().items()}
        if self.reference is not None:
            state |= {f"reference.{name}": value for name, value in self.reference.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.optimizer.load_state_dict(within(state, "optimizer."))
        if hasattr(self.baseline, "load_state_dict"):
            self.baseline.load_state_dict(within(state, "baseline."))
        if self.reference is not None:
            self.reference.load_state_dict(within(state, "reference."))
