"""Policy gradient on sampled episodes: from REINFORCE to GSPO, presets of this one class.

What differs between them are parts named in YAML: returns, critic, baseline, normalisation, surrogate, aggregation,
divergence, and the schedules of the forced prefix and of the reference. A part is a function that says by its
parameters what it reads, or, where it remembers something, a small class of parts.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.facts import asked, needs
from tokenrl_cli.algorithm.networks import frozen_copy, move
from tokenrl_cli.algorithm.parts.kl_control import AdaptiveKl
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.config.ranges import Fraction, Gt, Le, Positive, Probability, Size, SizeOrNone, Weight
from tokenrl_cli.config.types import methods_of
from tokenrl_cli.episodes.sampling import Decoding, concatenate, distribution, generate, logprobs_of, recite, rollout_of
from tokenrl_cli.functional.advantages import equal_groups
from tokenrl_cli.functional.entropy import entropy
from tokenrl_cli.functional.kl import full, k1, k3
from tokenrl_cli.functional.likelihood import negative_log_likelihood
from tokenrl_cli.functional.masking import first_of_their_kind, masked_mean, masked_rows, masked_sum
from tokenrl_cli.functional.returns import held_to_go, overlong_penalty, reward_to_go
from tokenrl_cli.functional.value import explained_variance
from tokenrl_cli.interfaces import (
    CONTINUATION,
    DEMONSTRATION,
    GREEDY,
    SAMPLED,
    Batch,
    Critic,
    Model,
    Rollout,
    Stateful,
    Tokenizer,
    UserError,
)
from tokenrl_cli.optim import Optimizer, gradient_step, over_steps

# by how much the same log-probability may differ between one pass and step by step
SAME = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.5, torch.float16: 0.1}


@dataclass(frozen=True)
class Weighted:
    """Sampled episodes with what the loss reads of every token."""

    episodes: Rollout
    advantages: Tensor  # [B, T], 0 where masked
    weights: Tensor  # [B, T], of the optimiser step that the rows belong to; 0 where masked
    values: Tensor  # [B, T], the critic's when the episodes were sampled
    targets: Tensor  # [B, T], what the critic should say: returns
    recited: Tensor  # [B] bool, one row a source: where the demonstration is counted
    prefix: Tensor  # [B], tokens of the demonstration that count

    def __len__(self) -> int:
        return len(self.episodes)

    def rows(self, index: slice | Tensor) -> Weighted:
        chosen = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "episodes"}
        return Weighted(self.episodes.rows(index), **chosen)

    @property
    def usable(self) -> Tensor:
        """[B, T]: tokens of valid episodes that the policy chose, or that a reference added to its choices."""
        return _learned(self.episodes) & self.episodes.valid.unsqueeze(-1)

    @property
    def sampled(self) -> Tensor:
        """[B, T]: the usable tokens that the policy chose, without those of an added reference."""
        return self.usable & self.episodes.chosen


def _learned(episodes: Rollout) -> Tensor:
    added = (episodes.role == DEMONSTRATION).unsqueeze(-1)
    return episodes.mask & (episodes.chosen | added)


class PolicyGradient:
    """loss = -sum_bt w_bt surrogate(pi(a_t | s_t), A_t) + beta sum_bt w_bt KL_bt - eta H + lambda NLL + c (V-G)^2 / 2.

    pi is the distribution that tokens are sampled from (temperature, cut and epsilon included), and KL is always
    KL(pi || ref), with ref the plain softmax of the reference model. A_t = scale(G_t - b_t), with G_t the returns of
    rewards less kl_coef times k1, token by token.
    w are the weights of the aggregation over one optimiser step; H (entropy of the plain softmax), NLL (of the
    demonstrations) and the error of a critic V are means over their tokens. With returns to go, the surrogate
    `score_function`, the aggregation `sequence_sum`, no scale and a baseline that does not read the episode itself, the
    expected gradient is that of the expected reward (Williams 1992), less kl_coef times that of the KL of whole
    episodes. The model is in evaluation mode throughout.

    KL_bt is the `divergence` of each token that the policy sampled. In the first optimiser step of a rollout those are
    samples of pi, and the gradients are as functional/kl.py says. In later steps (epochs or minibatches above 1) they
    are samples of the pi that the rollout began with: k2 and k3 are not corrected for that, so they become
    approximations, while `full` remains the KL of each visited state. k1 in the reward is that of the time of sampling.

    With `forced_prefix` the first tokens of an episode are those of the demonstration; they get no policy gradient, and
    they are all that the NLL counts.
    """

    needs_rewards = True

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        temperature: Positive,
        top_k: SizeOrNone,
        top_p: Annotated[float, Gt(0), Le(1)],
        epsilon: Probability,
        forced_prefix: Callable[[int], float],
        add_reference: bool,
        deduplicate: bool,
        overlong_share: Fraction,
        returns: Callable[..., Tensor],
        critic: Critic,
        baseline: Callable[..., Tensor],
        normalisation: Callable[..., Tensor],
        surrogate: Callable[..., tuple[Tensor, Tensor]],
        aggregation: Callable[..., Tensor],
        divergence: Callable[..., Tensor],
        drop_equal_groups: bool,
        epochs: Size,
        minibatches: Size,
        kl_coef: Weight,
        kl_target: Weight,
        kl_rate: Weight,
        kl_loss_coef: Weight,
        reference: Callable[[int], float],
        entropy_coef: float,
        nll_mix: Weight,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        self.needs = needs(baseline)
        if "valid" in self.needs and samples_per_source < 2:  # who reads that compares the samples of a source
            problem = f"must be at least 2 with this baseline, got {samples_per_source}"
            raise UserError("algorithm.samples_per_source", problem)
        if not isinstance(critic, Critic):
            lacking = [
                name
                for name in (*Critic.__annotations__, *methods_of(Critic), *methods_of(Stateful))
                if not hasattr(critic, name)
            ]
            raise UserError("algorithm.critic", f"{type(critic).__name__} is no Critic: it has no {', '.join(lacking)}")
        if not critic.estimates and "values" in self.needs | needs(returns):
            raise UserError("algorithm.critic", "none, but the baseline or the returns ask it", "critic: value_head")
        self.decoding = Decoding(max_length, temperature, top_k, top_p, epsilon, [], 1, 0.0)
        if kl_loss_coef > 0 and self.decoding.cuts and getattr(divergence, "func", divergence) is k3:
            problem = (
                "weighs tokens by reference / policy, and its mean is a KL divergence only where the policy can say "
                "every token; top_k or top_p leaves some out"
            )
            raise UserError("algorithm/divergence=k3", problem, "algorithm/divergence=k2 or full, or top_k=0 top_p=1")
        self.model = model
        self.kl = AdaptiveKl(kl_coef, kl_target, kl_rate)
        compared = kl_coef > 0 or kl_loss_coef > 0
        self.reference = frozen_copy(model) if compared else None
        self.follow = reference
        self.eos_id = tokenizer.eos_id
        self.seed = seed
        self.samples_per_source = samples_per_source
        self.greedy = replace(self.decoding, temperature=0.0, top_k=0, top_p=1.0, epsilon=0.0)
        if add_reference and (self.decoding.cuts or epsilon > 0):
            problem = "the demonstration may be none of the texts that top_k, top_p and epsilon leave to choose from"
            raise UserError("algorithm.add_reference", problem, "leave them at 0, 1 and 0")
        self.forced_prefix = forced_prefix
        self.add_reference, self.deduplicate, self.overlong_share = add_reference, deduplicate, overlong_share
        self.returns, self.critic = returns, critic
        self.baseline = baseline
        self.normalisation = normalisation
        self.surrogate = surrogate
        self.aggregation = aggregation
        self.divergence = divergence
        self.drop_equal_groups = drop_equal_groups
        self.epochs, self.minibatches = epochs, minibatches
        self.max_length = max_length
        self.kl_loss_coef = kl_loss_coef
        self.entropy_coef = entropy_coef
        self.nll_mix = nll_mix
        self.micro_batches = micro_batches
        self.optimizer = optimizer([*model.parameters(), *critic.attach(model)])
        self.rollouts = self.updates = 0  # learned from so far, and steps of the optimiser

    @property
    def needs_references(self) -> bool:
        """Whether demonstrations are learned from, or begin episodes."""
        return self.add_reference or self.nll_mix > 0 or math.isfinite(self.forced_prefix(0))

    def collect(self, batch: Batch) -> Rollout:
        self.model.eval()
        parts = [self._episodes(batch, self.decoding, self.samples_per_source, SAMPLED)]
        if self.critic.continuations:
            parts.append(self._continuations(parts[0]))
        if self.add_reference:
            parts.append(self._added(batch))
        if "companion" in self.needs:
            parts.append(self._episodes(batch, self.greedy, 1, GREEDY))
        return concatenate(parts)

    def _episodes(self, batch: Batch, decoding: Decoding, times: int, role: int) -> Rollout:
        draws = streams.generator(self.seed, "rollout", batch.step)
        forced = batch.targets, self._prefix(batch.target_mask)
        rows = [each.repeat_interleave(times, 0) for each in forced]
        given = (rows[0], rows[1]) if bool(forced[1].any()) else None
        samples = generate(self.model, batch.source, batch.source_mask, decoding, times, self.eos_id, draws, given)
        return _chosen(rollout_of(batch, samples, role), rows[1])

    def _prefix(self, target_mask: Tensor) -> Tensor:
        """[B, R]: the tokens of the demonstrations that episodes begin with, all but the last `forced_prefix` ones."""
        kept = (target_mask.sum(-1, keepdim=True) - self.forced_prefix(self.rollouts)).clamp(min=0)
        return target_mask & (torch.arange(target_mask.shape[1], device=target_mask.device) < kept)

    def _continuations(self, sampled: Rollout) -> Rollout:
        """Episodes that begin as the sampled ones did, up to the states whose value is asked, and go on anew."""
        rows, lengths = self.critic.states(sampled.mask & sampled.chosen)
        times = self.critic.continuations
        rows, lengths = rows.repeat_interleave(times), lengths.repeat_interleave(times)
        begun = sampled.rows(rows)
        forced = torch.arange(begun.actions.shape[1], device=rows.device) < lengths.unsqueeze(-1)
        draws = streams.generator(self.seed, "continuation", sampled.step)
        samples = generate(
            self.model, begun.source, begun.source_mask, self.decoding, 1, self.eos_id, draws, (begun.actions, forced),
            begun.source_row,
        )  # fmt: skip
        said = {f.name: getattr(samples, f.name) for f in fields(samples)}
        role = torch.full_like(begun.role, CONTINUATION)
        return _chosen(replace(begun, role=role, parent=rows, chosen=samples.mask, **said), forced)

    @torch.no_grad()
    def _added(self, batch: Batch) -> Rollout:
        """The demonstrations, as if the policy had said them."""
        said = recite(batch, self.eos_id)
        logits = self.model(said.source, said.source_mask, said.actions, said.source_row).logits
        logprobs = logprobs_of(logits, said.actions, self.decoding, None)
        return replace(said, logprobs=logprobs.masked_fill(~said.mask, 0.0))

    def update(self, rollout: Rollout) -> dict[str, float]:
        self.model.eval()  # dropout would make the scored distribution another one than the sampled
        weighted, metrics = self._weigh(rollout)
        steps = [
            self._step(part) for epoch in range(self.epochs) for part in self._parts(weighted, rollout.step, epoch)
        ]
        metrics["sampling/logp_difference/max"] = steps[0].pop("sampling/logp_difference/max")  # before any step
        if self.reference is not None:
            move(self.reference, self.model, self.follow(self.rollouts))
        self.rollouts += 1
        return metrics | {name: over_steps(name, [step[name] for step in steps]) for name in steps[0]}

    def _parts(self, weighted: Weighted, step: int, epoch: int) -> Iterator[Weighted]:
        """The minibatches of an epoch, as equal as can be (never fewer, but where there are fewer rows), each with
        weights of its own; one is the whole rollout in its order."""
        order = torch.arange(len(weighted))
        if self.minibatches > 1:
            order = torch.randperm(len(weighted), generator=streams.generator(self.seed, f"epoch/{epoch}", step))
        for index in order.to(weighted.advantages.device).tensor_split(min(self.minibatches, len(weighted))):
            part = weighted if len(index) == len(weighted) and self.minibatches == 1 else weighted.rows(index)
            weights = asked(self.aggregation, mask=part.usable, max_length=self.max_length)
            yield replace(part, weights=weights.to(part.advantages.dtype))

    def _step(self, weighted: Weighted) -> dict[str, float]:
        tokens = weighted.usable.sum().clamp(min=1)
        sampled = weighted.sampled.sum().clamp(min=1)
        demonstrated = _recited(weighted).sum().clamp(min=1)
        differences: list[float] = []
        precisions: set[torch.dtype] = set()

        def loss(rows: Weighted) -> tuple[Tensor, dict[str, Tensor]]:
            seen, mask = rows.episodes, rows.usable
            output = self.model(seen.source, seen.source_mask, seen.actions, seen.source_row)
            logits = output.logits
            of_every_token, _ = distribution(logits, self.decoding, seen.support)
            logprobs = _taken(of_every_token, seen.actions).masked_fill(~mask, 0.0)
            objective, stopped = asked(
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
                apart, exact = self._divergence(seen, of_every_token, logprobs)
                total = total + self.kl_loss_coef * masked_sum(rows.weights * apart, rows.sampled)
                terms["kl"] = masked_sum(exact, rows.sampled) / sampled
            if (errors := self.critic.loss(output.hidden, rows.values, rows.targets)) is not None:
                error = masked_sum(errors, mask) / tokens
                total = total + self.critic.coef * error
                terms["loss/value"] = error.detach()
            if self.nll_mix > 0:
                nll = self._demonstration_loss(rows) / demonstrated
                total = total + self.nll_mix * nll
                terms["loss/nll"] = nll.detach()
            return total, terms

        metrics = gradient_step(self.optimizer, weighted, loss, self.micro_batches)
        metrics["sampling/logp_difference/max"] = max(differences)
        self._check_first_pass(max(differences), SAME[precisions.pop()])
        return metrics

    def _divergence(self, episodes: Rollout, of_every_token: Tensor, logprobs: Tensor) -> tuple[Tensor, Tensor]:
        """What the loss takes for KL(policy || reference) at each token, and that KL itself, to be logged: [B, T] each.

        `of_every_token` [B, T, V] and `logprobs` [B, T] are those of the distribution that is sampled from.
        """
        reference: Any = self.reference
        with torch.no_grad():
            other = reference(episodes.source, episodes.source_mask, episodes.actions, episodes.source_row).logits
            reference_logprobs = -negative_log_likelihood(other, episodes.actions, 0.0)
            exact = full(of_every_token, other)
        apart: Tensor = asked(
            self.divergence,
            logprobs=logprobs,
            reference_logprobs=reference_logprobs,
            logits=of_every_token,
            reference_logits=other,
        )
        return apart, exact

    def _demonstration_loss(self, weighted: Weighted) -> Tensor:
        """Sum over the tokens of the demonstrations that count."""
        counted = _recited(weighted)
        rows = weighted.episodes.rows(weighted.recited)
        if not bool(counted.any()):
            return rows.logprobs.sum() * 0.0
        targets = rows.targets[rows.source_row]
        logits = self.model(rows.source, rows.source_mask, targets, rows.source_row).logits
        return masked_sum(negative_log_likelihood(logits, targets, 0.0), counted)

    @torch.no_grad()
    def _weigh(self, rollout: Rollout) -> tuple[Weighted, dict[str, float]]:
        """Returns of every episode, less the baseline, scaled: on the whole rollout before it is split."""
        metrics: dict[str, float] = {}
        rollout = self._charged(rollout, metrics)
        index = self._compared(rollout)
        episodes = rollout.rows(index)
        rewards = episodes.rewards
        assert rewards is not None
        values, fresh = (each[index] for each in self._values(rollout))
        returns = asked(self.returns, rewards=rewards, mask=episodes.mask, values=values, fresh=fresh)
        times = self.samples_per_source + self.add_reference
        shape = (-1, times, returns.shape[1])
        known = {"returns": returns.view(shape), "values": values.view(shape)}
        known["valid"] = episodes.valid.view(-1, times)
        known["scores"] = reward_to_go(rewards, episodes.mask).view(shape)[..., 0]
        kept = known["valid"]
        if self.deduplicate:
            kept = kept & first_of_their_kind(episodes.actions.view(shape), episodes.mask.view(shape), kept)
        if self.drop_equal_groups:
            kept = kept & ~equal_groups(known["scores"], kept).unsqueeze(-1)
        episodes, known["valid"] = replace(episodes, valid=kept.flatten()), kept
        if "companion" in self.needs:
            greedy = rollout.rows((rollout.role == GREEDY).nonzero().squeeze(-1))
            assert greedy.rewards is not None
            known["companion"] = held_to_go(greedy.rewards, greedy.mask)
        known["mask"] = (_learned(episodes) & episodes.valid.unsqueeze(-1)).view(shape)
        known["likelihoods"] = masked_rows(episodes.logprobs, episodes.mask).view(known["valid"].shape)
        known["advantages"] = known["returns"] - asked(self.baseline, **known)
        metrics["baseline/variance_reduction"] = explained_variance(
            known["returns"] - known["advantages"], known["returns"], known["mask"]
        )
        if self.critic.estimates:
            paid = reward_to_go(rewards, episodes.mask).view(shape)
            metrics["value/explained_variance"] = explained_variance(known["values"], paid, known["mask"])
        if hasattr(self.baseline, "observe"):
            self.baseline.observe(known["returns"], known["valid"])
        known["advantages"] = known["advantages"].masked_fill(~known["mask"], 0.0)
        advantages = asked(self.normalisation, **known).masked_fill(~known["mask"], 0.0).flatten(0, 1)
        recited = torch.arange(len(episodes), device=rewards.device) % times == 0
        forced = math.isfinite(self.forced_prefix(self.rollouts))
        target_mask = episodes.target_mask[episodes.source_row]
        counted = self._prefix(target_mask) if forced else target_mask
        unweighted = torch.zeros_like(advantages)
        return Weighted(episodes, advantages, unweighted, values, returns, recited, counted.sum(-1)), metrics

    def _compared(self, rollout: Rollout) -> Tensor:
        """Rows of the sampled episodes, each source's together and followed by its reference where that is added."""
        index = ((rollout.role == SAMPLED) | (rollout.role == DEMONSTRATION)).nonzero().squeeze(-1)
        return index[rollout.group[index].argsort(stable=True)]

    def _charged(self, rollout: Rollout, metrics: dict[str, float]) -> Rollout:
        """The rollout with rewards less the costs of divergence and of length; greedy companions pay neither.

        Continuations pay as samples do: they tell what later states are worth, and the costs are part of that. What is
        logged, and what `kl_target` is compared with, is of the samples alone.
        """
        assert rollout.rewards is not None
        pays = rollout.role != GREEDY
        rewards, own = rollout.rewards, rollout.role == SAMPLED
        if self.kl.coefficient > 0:
            apart = self._log_ratio(rollout).masked_fill(~pays.unsqueeze(-1), 0.0)
            rewards = rewards - self.kl.coefficient * apart
            said = rollout.mask & rollout.chosen & own.unsqueeze(-1)
            metrics |= {"kl": float(masked_mean(apart, said)), "kl_coef": self.kl.coefficient}
            self.kl.observe(float(masked_sum(apart, said) / own.sum().clamp(min=1)))
        if self.overlong_share > 0:
            penalty = overlong_penalty(rollout.mask, self.max_length, self.overlong_share).to(rewards.dtype)
            last = rollout.mask.sum(-1, keepdim=True) - 1
            rewards = rewards.scatter_add(1, last, (penalty * pays).unsqueeze(-1))
            metrics["overlong_penalty"] = float(masked_mean(penalty, own))
        return replace(rollout, rewards=rewards)

    def _log_ratio(self, rollout: Rollout) -> Tensor:
        """k1 of every token that learns, [B, T]: its log-probability when it was sampled, less the reference's."""
        reference: Any = self.reference
        logits = reference(rollout.source, rollout.source_mask, rollout.actions, rollout.source_row).logits
        reference_logprobs = -negative_log_likelihood(logits, rollout.actions, 0.0)
        return k1(rollout.logprobs, reference_logprobs).masked_fill(~_learned(rollout), 0.0)

    def _values(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """V [B, T] of every state, and where it was estimated anew, as the critic has it. Raises UserError."""
        values, fresh = self.critic.measure(rollout, self.model)
        for found in (values, fresh):
            if found.shape != rollout.mask.shape:
                name, shapes = type(self.critic).__name__, f"{list(found.shape)}, must be {list(rollout.mask.shape)}"
                raise UserError("algorithm.critic", f"{name}.measure gave a tensor of shape {shapes}")
        return values.to(rollout.logprobs.dtype), fresh.bool()

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
        state: dict[str, Any] = {"updates": self.updates, "rollouts": self.rollouts}
        state |= {f"kl.{name}": value for name, value in self.kl.state_dict().items()}
        state |= {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}
        for name, part in (("baseline", self.baseline), ("critic", self.critic)):
            if isinstance(part, Stateful):
                state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        if self.reference is not None:
            state |= {f"reference.{name}": value for name, value in self.reference.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.rollouts = state["updates"], state["rollouts"]
        self.kl.load_state_dict(within(state, "kl."))
        self.optimizer.load_state_dict(within(state, "optimizer."))
        for name, part in (("baseline", self.baseline), ("critic", self.critic)):
            if isinstance(part, Stateful):
                part.load_state_dict(within(state, f"{name}."))
        kept = within(state, "reference.")
        if self.reference is not None and not kept:
            problem = "cannot be switched on by a resume: the run has kept no reference, and the policy has moved since"
            raise UserError("algorithm.kl_coef, algorithm.kl_loss_coef", problem, "start a new run with init_from=RUN")
        if self.reference is not None:
            self.reference.load_state_dict(kept)


def _taken(of_every_token: Tensor, actions: Tensor) -> Tensor:
    """[B, T, V], [B, T] -> [B, T]."""
    return of_every_token.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def _chosen(rollout: Rollout, forced: Tensor) -> Rollout:
    """Without the tokens [B, P] that were forced on the policy."""
    width = rollout.actions.shape[1]
    given = nn.functional.pad(forced[:, :width], (0, max(0, width - forced.shape[1])))
    return replace(rollout, chosen=rollout.chosen & ~given)


def _recited(weighted: Weighted) -> Tensor:
    """[N, R]: tokens of the demonstrations that the NLL counts."""
    episodes = weighted.episodes
    mask = episodes.target_mask[episodes.source_row[weighted.recited]]
    return mask & (torch.arange(mask.shape[1], device=mask.device) < weighted.prefix[weighted.recited].unsqueeze(-1))
