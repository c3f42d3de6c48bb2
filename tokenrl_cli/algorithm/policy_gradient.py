"""Policy gradient on sampled episodes: from REINFORCE to GSPO, presets of this one class.

The parts of it, each readable by itself, in the order in which an update uses them:

    gradient/sampler.py       which episodes are sampled
    gradient/penalties.py     what KL and length subtract from their rewards
    gradient/estimator.py     rewards -> advantages
    gradient/objective.py     advantages -> the term of the loss that increases the reward
    gradient/regularisers.py  the other terms of the loss

What differs between the presets are functions and small classes that their YAML names: returns, critic, baseline,
normalisation, surrogate, aggregation, divergence, and the schedules of the forced prefix and of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.facts import (
    Aggregation,
    Baseline,
    Divergence,
    Normalisation,
    Returns,
    Surrogate,
    call_with_facts,
    needs,
)
from tokenrl_cli.algorithm.gradient.episodes import EpisodesWithAdvantages
from tokenrl_cli.algorithm.gradient.estimator import AdvantageEstimator
from tokenrl_cli.algorithm.gradient.objective import SurrogateLoss, Term, forward, sum_of
from tokenrl_cli.algorithm.gradient.penalties import Penalties
from tokenrl_cli.algorithm.gradient.reference import ReferencePolicy
from tokenrl_cli.algorithm.gradient.regularisers import DemonstrationLoss, EntropyBonus, KlLoss, ValueLoss
from tokenrl_cli.algorithm.gradient.sampler import Sampler, check_weights
from tokenrl_cli.algorithm.parts.kl_control import AdaptiveKl
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.config.ranges import Fraction, Gt, Le, Positive, Probability, Size, SizeOrZero, Weight
from tokenrl_cli.episodes.sampling import Decoding
from tokenrl_cli.interfaces import Batch, Critic, Model, ModelModule, Rollout, Stateful, Tokenizer
from tokenrl_cli.optim import Optimizer, gradient_step, over_steps

# by how much the same log-probability may differ between one teacher-forced pass and step-by-step sampling, in nats
SAME = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.5, torch.float16: 0.1}


class PolicyGradient:
    """loss = -sum_bt w_bt surrogate(pi(a_t | s_t), A_t) + beta sum_bt w_bt KL_bt - eta H + lambda NLL + c (V-G)^2 / 2.

    pi is the distribution that tokens are sampled from (temperature, cut and epsilon included), and KL is always
    KL(pi || ref), with ref the plain softmax of the reference model. A_t = scale(G_t - b_t), with G_t the returns of
    rewards less the penalties of `Penalties`: kl_coef times k1 of each token, and the cost of length.
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

    With `hypotheses` "beam" an episode is one of the K best of a beam search instead of a sample, and its weight is its
    own probability among the K, see `functional.normalisation.self_normalised`; a normalisation that reads no
    likelihoods is refused. The entropy, the KL and their metrics are then means over these hypotheses.

    The constructor passes the keys of its block on to the parts; what each of them means is explained in
    conf/algorithm/reinforce.yaml. It raises the UserErrors of `Sampler`, `AdvantageEstimator` and `KlLoss`.
    """

    needs_rewards = True

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: Size,
        hypotheses: Literal["samples", "beam"],
        temperature: Positive,
        top_k: SizeOrZero,
        top_p: Annotated[float, Gt(0), Le(1)],
        epsilon: Probability,
        forced_prefix: Callable[[int], float],
        add_reference: bool,
        deduplicate: bool,
        overlong_share: Fraction,
        returns: Returns,
        critic: Critic,
        baseline: Baseline,
        normalisation: Normalisation,
        surrogate: Surrogate,
        aggregation: Aggregation,
        divergence: Divergence,
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
        check_weights(hypotheses, normalisation)
        self.model, self.seed, self.max_length, self.aggregation = model, seed, max_length, aggregation
        self.epochs, self.minibatches, self.micro_batches = epochs, minibatches, micro_batches
        self.baseline, self.critic, self.kl = baseline, critic, AdaptiveKl(kl_coef, kl_target, kl_rate)
        self.estimator = AdvantageEstimator(
            samples_per_source, add_reference, returns, critic, baseline, normalisation, deduplicate, drop_equal_groups
        )
        self.decoding = Decoding(max_length, temperature, top_k, top_p, epsilon, [], 1, 0.0)
        self.sampler = Sampler(
            self.decoding, samples_per_source, hypotheses, forced_prefix, add_reference, "companion" in needs(baseline),
            critic, tokenizer.eos_id, tokenizer.size, seed,
        )  # fmt: skip
        self.size = tokenizer.size
        self.reference = ReferencePolicy(model if kl_coef > 0 or kl_loss_coef > 0 else None, reference, self.size)
        self.penalties = Penalties(self.kl, self.reference, overlong_share, max_length)
        bonus = EntropyBonus(entropy_coef, self.decoding)
        kl = [KlLoss(kl_loss_coef, divergence, self.decoding)] if kl_loss_coef > 0 else []
        nll = [DemonstrationLoss(nll_mix, self.size)] if nll_mix > 0 else []
        self.terms: list[Term] = [SurrogateLoss(surrogate), bonus, *kl, ValueLoss(critic), *nll]
        self.measures = (kl[0].measures if kl else {}) | bonus.measures
        self.compared = self.reference if kl else None  # with which the loss compares the policy
        self.needs_references = bool(nll) or self.sampler.reads_demonstrations()  # to learn from, or to begin with
        self.optimizer = optimizer([*model.parameters(), *critic.attach(model)])
        self.rollouts = self.updates = 0  # learned from so far, and steps of the optimiser

    def collect(self, batch: Batch) -> Rollout:
        """Samples `samples_per_source` episodes of every source of the batch, adds what the settings need (greedy
        episodes, demonstrations, continuations; see `Sampler` for their order), and returns all as one Rollout without
        rewards. Switches the model to evaluation mode. The same seed and `batch.step` give the same random numbers.
        Raises NonFinite where a probability is not finite."""
        self.model.eval()
        return self.sampler.collect(self.model, batch, self.rollouts)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a rewarded rollout: subtracts the penalties, computes advantages once, then makes `epochs` passes
        of `minibatches` optimiser steps; moves the reference model. Switches the model to evaluation mode. Returns the
        metrics of `Penalties` and `AdvantageEstimator`, and those of the loss and of the optimiser: of the steps the
        mean, of names in /min and /max the least or greatest, but sampling/logp_difference/max of the first step alone.

        Raises NonFinite, see `optim.gradient_step`; UserError where the critic returns tensors of a wrong shape; and
        RuntimeError after the very first step if the model's teacher-forced pass gave other log-probabilities than
        sampling did (by more than SAME, in nats).
        """
        self.model.eval()  # dropout would make the scored distribution another one than the sampled
        rollout, metrics = self.penalties(rollout)
        learned, logged = self.estimator(rollout, self.model)
        counted = self.sampler.likelihood_mask(learned.likelihood_mask, self.rollouts)
        learned = replace(learned, likelihood_mask=counted)
        steps = [
            self._step(rows) for epoch in range(self.epochs) for rows in self._minibatches(learned, rollout.step, epoch)
        ]
        logged["sampling/logp_difference/max"] = steps[0].pop("sampling/logp_difference/max")  # before any step
        self.reference.follow(self.model, self.rollouts)
        self.rollouts += 1
        return metrics | logged | {name: over_steps(name, [step[name] for step in steps]) for name in steps[0]}

    def _minibatches(self, learned: EpisodesWithAdvantages, step: int, epoch: int) -> Iterator[EpisodesWithAdvantages]:
        """The minibatches of an epoch with their weights, of sizes that differ by at most 1, in a random order; one
        minibatch is the whole in its own order. There are fewer where there are fewer rows."""
        order = torch.arange(len(learned))
        if self.minibatches > 1:
            order = torch.randperm(len(learned), generator=streams.generator(self.seed, f"epoch/{epoch}", step))
        for index in order.to(learned.advantages.device).tensor_split(min(self.minibatches, len(learned))):
            rows = learned if len(index) == len(learned) and self.minibatches == 1 else learned.rows(index)
            weights = call_with_facts(self.aggregation, mask=rows.usable, max_length=self.max_length)
            yield replace(rows, weights=weights.to(rows.advantages.dtype))

    def _step(self, minibatch: EpisodesWithAdvantages) -> dict[str, float]:
        """One step of the optimiser on the sum of all terms."""
        differences: list[tuple[float, torch.dtype]] = []

        def loss(rows: EpisodesWithAdvantages) -> tuple[Tensor, dict[str, Tensor]]:
            seen = forward(self.model, rows, minibatch, self.decoding, self.compared, self.measures, self.size)
            differences.append((float(seen.log_ratio.abs().max()), seen.precision))
            return sum_of(self.terms, seen)

        metrics = gradient_step(self.optimizer, minibatch, loss, self.micro_batches)
        largest, precision = max(differences, key=lambda each: each[0])
        metrics["sampling/logp_difference/max"] = largest
        self._check_first_pass(largest, SAME[precision])
        return metrics

    def _check_first_pass(self, difference: float, tolerance: float) -> None:
        """Raises RuntimeError if in the first step, before any learning, the loss saw other probabilities than those
        that tokens were sampled with: the gradient would be that of another policy."""
        if self.updates == 0 and not difference <= tolerance:
            raise RuntimeError(
                f"sampled and scored log-probabilities differ by {difference:.2e} on the first batch "
                f"(at most {tolerance:.0e} expected): step() and the teacher-forced pass of the model disagree"
            )
        self.updates += 1

    def policy(self) -> Model:
        """Returns the model itself, not a copy, in its present mode: later updates change it."""
        policy: Model = self.model
        return policy

    def _stateful(self) -> dict[str, Stateful]:
        """The parts that remember something, by the name under which they are saved."""
        parts: dict[str, Any] = {"kl": self.kl, "optimizer": self.optimizer, "baseline": self.baseline}
        parts |= {"critic": self.critic, "reference": self.reference}
        return {name: part for name, part in parts.items() if isinstance(part, Stateful)}

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters "updates" and "rollouts", and the state of the KL coefficient, the optimiser, the
        baseline and the critic if they have one, and the reference model, in live tensors, the names of each part after
        a prefix such as "optimizer.". The weights of the policy are not among them."""
        state: dict[str, Any] = {"updates": self.updates, "rollouts": self.rollouts}
        for name, part in self._stateful().items():
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; the weights of the policy are restored elsewhere. Raises UserError where
        a KL term needs a reference model and the saved run had none; the other parts may be restored by then. KeyError,
        ValueError or the like where the state is of another algorithm."""
        self.updates, self.rollouts = state["updates"], state["rollouts"]
        for name, part in self._stateful().items():
            part.load_state_dict(within(state, f"{name}."))
