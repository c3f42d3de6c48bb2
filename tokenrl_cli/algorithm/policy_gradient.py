"""Policy gradient on sampled episodes: from REINFORCE to GSPO, presets of this one class.

What differs between them are parts named in YAML: baseline, normalisation, surrogate, aggregation, divergence. A part
is a function that says by its parameters what it reads.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.parts import within
from tokenrl_cli.functional.advantages import equal_groups
from tokenrl_cli.functional.entropy import entropy
from tokenrl_cli.functional.kl import k1
from tokenrl_cli.functional.likelihood import negative_log_likelihood
from tokenrl_cli.functional.masking import masked_mean, masked_rows, masked_sum
from tokenrl_cli.functional.returns import held_to_go
from tokenrl_cli.interfaces import GREEDY, SAMPLED, Batch, Model, Rollout, Tokenizer, UserError
from tokenrl_cli.optim import Optimizer, gradient_step
from tokenrl_cli.sampling import Decoding, concatenate, generate, logprobs_of, rollout_of

# by how much the same log-probability may differ between one pass and step by step
SAME = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.5, torch.float16: 0.1}


@dataclass(frozen=True)
class Weighted:
    """Sampled episodes with what the loss reads of every token."""

    episodes: Rollout
    advantages: Tensor  # [B, T], 0 where masked
    weights: Tensor  # [B, T], of the optimiser step that the rows belong to; 0 where masked
    recited: Tensor  # [B] bool, one row a source: where the demonstration is counted

    def __len__(self) -> int:
        return len(self.episodes)

    def rows(self, index: slice | Tensor) -> Weighted:
        return Weighted(self.episodes.rows(index), self.advantages[index], self.weights[index], self.recited[index])

    @property
    def usable(self) -> Tensor:
        """[B, T]: real tokens of valid episodes."""
        return self.episodes.mask & self.episodes.valid.unsqueeze(-1)


class PolicyGradient:
    """loss = -sum_bt w_bt surrogate(pi(a_t | s_t), A_t) + beta sum_bt w_bt KL_bt - eta H + lambda NLL.

    A_t = scale(G_t - b_t), with G_t the reward-to-go, less kl_coef times k1 to the frozen warm start, token by token.
    w are the weights of the aggregation over one optimiser step; H (entropy of the plain softmax) and NLL (of the
    demonstrations) are means over their tokens. With the surrogate `score_function`, the aggregation `sequence_sum`, no
    scale and a baseline that does not read the episode itself, the expected gradient is that of the expected reward
    (Williams 1992). The model is in evaluation mode throughout.
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
        normalisation: Callable[..., Tensor],
        surrogate: Callable[..., tuple[Tensor, Tensor]],
        aggregation: Callable[..., Tensor],
        divergence: Callable[..., Tensor],
        drop_equal_groups: bool,
        epochs: int,
        minibatches: int,
        kl_coef: float,
        kl_loss_coef: float,
        entropy_coef: float,
        nll_mix: float,
        micro_batches: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        needs = _needs(baseline)
        fewest = 2 if "valid" in needs else 1  # who reads that compares the samples of a source
        for name, holds, wanted in (
            ("samples_per_source", samples_per_source >= fewest, f"at least {fewest} with this baseline"),
            ("temperature", temperature > 0, "above 0: a greedy policy has no gradient"),
            ("epochs", epochs >= 1, "at least 1"),
            ("minibatches", minibatches >= 1, "at least 1"),
            ("kl_coef", kl_coef >= 0, "0 (off) or more"),
            ("kl_loss_coef", kl_loss_coef >= 0, "0 (off) or more"),
            ("nll_mix", nll_mix >= 0, "0 (off) or more"),
            ("micro_batches", micro_batches >= 1, "at least 1"),
        ):
            if not holds:
                raise UserError(f"algorithm.{name}", f"must be {wanted}, got {locals()[name]}")
        self.model = model
        compared = kl_coef > 0 or kl_loss_coef > 0
        self.reference = copy.deepcopy(model).requires_grad_(False).eval() if compared else None
        self.eos_id = tokenizer.eos_id
        self.seed = seed
        self.samples_per_source = samples_per_source
        self.decoding = Decoding(max_length, temperature, top_k, top_p, epsilon, [], 1, 0.0)
        self.greedy = replace(self.decoding, temperature=0.0, top_k=0, top_p=1.0, epsilon=0.0)
        self.baseline = baseline
        self.needs = needs
        self.normalisation = normalisation
        self.surrogate = surrogate
        self.aggregation = aggregation
        self.divergence = divergence
        self.drop_equal_groups = drop_equal_groups
        self.epochs, self.minibatches = epochs, minibatches
        self.max_length = max_length
        self.kl_coef, self.kl_loss_coef = kl_coef, kl_loss_coef
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
        steps = [
            self._step(part) for epoch in range(self.epochs) for part in self._parts(weighted, rollout.step, epoch)
        ]
        metrics["sampling/logp_difference/max"] = steps[0].pop("sampling/logp_difference/max")  # before any step
        return metrics | {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}

    def _parts(self, weighted: Weighted, step: int, epoch: int) -> Iterator[Weighted]:
        """The minibatches of an epoch, each with weights of its own; one is the whole rollout in its order."""
        order = torch.arange(len(weighted))
        if self.minibatches > 1:
            order = torch.randperm(len(weighted), generator=streams.generator(self.seed, f"epoch/{epoch}", step))
        for index in order.to(weighted.advantages.device).chunk(self.minibatches):
            part = weighted if len(index) == len(weighted) and self.minibatches == 1 else weighted.rows(index)
            weights = _asked(self.aggregation, mask=part.usable, max_length=self.max_length)
            yield replace(part, weights=weights.to(part.advantages.dtype))

    def _step(self, weighted: Weighted) -> dict[str, float]:
        tokens = weighted.usable.sum().clamp(min=1)
        demonstrated = weighted.episodes.target_mask[weighted.recited].sum().clamp(min=1)
        differences: list[float] = []
        precisions: set[torch.dtype] = set()

        def loss(rows: Weighted) -> tuple[Tensor, dict[str, Tensor]]:
            seen, mask = rows.episodes, rows.usable
            logits = self.model(seen.source, seen.source_mask, seen.actions).logits
            logprobs = logprobs_of(logits, seen.actions, self.decoding, seen.support)
            objective, stopped = _asked(
                self.surrogate,
                logprobs=logprobs,
                sampled_logprobs=seen.logprobs,
                advantages=rows.advantages,
                mask=mask,
            )
            policy = -masked_sum(rows.weights * objective, mask)
            precisions.add(logits.dtype)
            weighed = logits if self.entropy_coef else logits.detach()  # what is only logged needs no gradient
            undecided = masked_sum(entropy(weighed), mask) / tokens
            total = policy - self.entropy_coef * undecided
            difference = (logprobs.detach() - seen.logprobs).masked_fill(~mask, 0.0)
            differences.append(float(difference.abs().max()))
            terms = {
                "loss/policy": policy.detach(),
                "entropy": undecided.detach(),
                "clip_ratio/low": masked_sum((stopped & (rows.advantages < 0)).double(), mask) / tokens,
                "clip_ratio/high": masked_sum((stopped & (rows.advantages > 0)).double(), mask) / tokens,
                "approx_kl": masked_sum(difference.exp() - 1 - difference, mask) / tokens,
            }
            if self.kl_loss_coef > 0:
                apart = self._divergence(seen, logits)
                total = total + self.kl_loss_coef * masked_sum(rows.weights * apart, mask)
                terms["kl"] = masked_sum(apart.detach(), mask) / tokens
            if self.nll_mix > 0:
                nll = self._demonstration_loss(seen.rows(rows.recited)) / demonstrated
                total = total + self.nll_mix * nll
                terms["loss/nll"] = nll.detach()
            return total, terms

        metrics = gradient_step(self.optimizer, weighted, loss, self.micro_batches)
        metrics["sampling/logp_difference/max"] = max(differences)
        self._check_first_pass(max(differences), SAME[precisions.pop()])
        return metrics

    def _divergence(self, episodes: Rollout, logits: Tensor) -> Tensor:
        """From the reference, [B, T], under plain softmaxes."""
        reference: Any = self.reference
        with torch.no_grad():
            other = reference(episodes.source, episodes.source_mask, episodes.actions).logits
        logprobs, reference_logprobs = (
            -negative_log_likelihood(each, episodes.actions, 0.0) for each in (logits, other)
        )
        return _asked(
            self.divergence,
            logprobs=logprobs,
            reference_logprobs=reference_logprobs,
            logits=logits,
            reference_logits=other,
        )

    def _demonstration_loss(self, rows: Rollout) -> Tensor:
        """Sum over the tokens of the demonstrations of `rows`."""
        if len(rows) == 0:
            return rows.logprobs.sum()
        logits = self.model(rows.source, rows.source_mask, rows.targets).logits
        return masked_sum(negative_log_likelihood(logits, rows.targets, 0.0), rows.target_mask)

    @torch.no_grad()
    def _weigh(self, rollout: Rollout) -> tuple[Weighted, dict[str, float]]:
        """Returns to go of every episode, less the baseline, scaled: on the whole rollout before it is split."""
        episodes = rollout.rows((rollout.role == SAMPLED).nonzero().squeeze(-1))
        assert episodes.rewards is not None
        rewards, metrics = episodes.rewards, {}
        if self.kl_coef > 0:
            divergence = k1(*self._plain_logprobs(episodes))
            metrics["kl"] = float(masked_mean(divergence, episodes.mask))
            rewards = rewards - self.kl_coef * divergence
        shape = (-1, self.samples_per_source, episodes.actions.shape[1])
        known = {
            "returns": held_to_go(rewards, episodes.mask).view(shape),
            "valid": episodes.valid.view(shape[:2]),
        }
        known["scores"] = known["returns"][..., 0]
        if self.drop_equal_groups:
            kept = known["valid"] & ~equal_groups(known["scores"], known["valid"]).unsqueeze(-1)
            episodes, known["valid"] = replace(episodes, valid=kept.flatten()), kept
        if "companion" in self.needs:
            greedy = rollout.rows((rollout.role == GREEDY).nonzero().squeeze(-1))
            assert greedy.rewards is not None
            known["companion"] = held_to_go(greedy.rewards, greedy.mask)
        known["mask"] = (episodes.mask & episodes.valid.unsqueeze(-1)).view(shape)
        known["likelihoods"] = masked_rows(episodes.logprobs, episodes.mask).view(shape[:2])
        known["advantages"] = known["returns"] - _asked(self.baseline, **known)
        metrics["baseline/variance_reduction"] = 1 - _spread(known["advantages"], known["mask"]) / max(
            _spread(known["returns"], known["mask"]), 1e-12
        )
        if hasattr(self.baseline, "observe"):
            self.baseline.observe(known["returns"], known["valid"])
        known["advantages"] = known["advantages"].masked_fill(~known["mask"], 0.0)
        advantages = _asked(self.normalisation, **known).masked_fill(~known["mask"], 0.0).flatten(0, 1)
        recited = torch.arange(len(episodes), device=rewards.device) % self.samples_per_source == 0
        return Weighted(episodes, advantages, torch.zeros_like(advantages), recited), metrics

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


def _spread(values: Tensor, mask: Tensor) -> float:
    """Variance over the real tokens."""
    known = values[mask].double()
    return float(known.var(correction=0)) if len(known) else 0.0


def _needs(part: Callable[..., Any]) -> set[str]:
    """The facts that a part asks for: its parameters, less those that are bound already."""
    return set(inspect.signature(part).parameters)


def _asked(part: Callable[..., Any], **known: Any) -> Any:
    return part(**{name: value for name, value in known.items() if name in _needs(part)})
