"""Actor-critic for sequence prediction: the gradient of every token, weighted by a critic that has read the
reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.networks import differentiable, move, moving_copy
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.config.ranges import CountOrZero, Gt, Le, Positive, Size, Weight
from tokenrl_cli.episodes.sampling import Decoding, generate, rollout_of
from tokenrl_cli.functional.chunks import logits_of, over_states
from tokenrl_cli.functional.entropy import entropy
from tokenrl_cli.functional.likelihood import summed_nll
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.returns import reward_to_go
from tokenrl_cli.functional.value import explained_variance, last_steps, td_targets
from tokenrl_cli.interfaces import SAMPLED, Batch, Model, ModelModule, ModelOutput, Rollout, Tokenizer
from tokenrl_cli.optim import Optimizer, gradient_step


class ActorCritic:
    """Bahdanau et al. 2017 (arXiv:1607.07086), algorithm 1; the losses are in `Actor` and `ReferenceCritic`.

    Episodes are sampled from the delayed copy of the actor, as published, without an importance weight for the
    difference. In the first `critic_steps` updates the critic learns alone. If Q is that of the policy and episodes are
    the policy's own, the expected gradient is that of the expected reward. All networks learn and act in evaluation
    mode. Use with credit=delta: the critic then need not know which part of the reward has been given already.

    Differs from the paper: Adam's step of the critic is `critic_lr_scale` times the actor's.
    """

    needs_rewards = True
    needs_references = True

    def __init__(
        self,
        model: ModelModule,
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        critic: Model,
        samples_per_source: Size,
        target_rate: Annotated[float, Gt(0), Le(1)],
        critic_steps: CountOrZero,
        critic_lr_scale: Positive,
        value_penalty: Weight,
        entropy_coef: float,
        nll_mix: Weight,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        like = next(model.parameters())
        network = QNetwork(critic, tokenizer.size).to(like.device, like.dtype)
        self.model, self.optimizer = model, optimizer(model.parameters())
        self.actor = Actor(model, self.optimizer, entropy_coef, nll_mix, target_rate, micro_batches)
        critic_optimizer = optimizer(network.parameters())
        critic_optimizer.lr *= critic_lr_scale
        self.critic = ReferenceCritic(network, critic_optimizer, value_penalty, target_rate, micro_batches)
        self.decoding = Decoding(max_length, 1.0, 0, 1.0, 0.0, [], 1, 0.0)
        self.eos_id, self.seed = tokenizer.eos_id, seed
        self.samples_per_source, self.critic_steps = samples_per_source, critic_steps
        self.steps = 0

    def collect(self, batch: Batch) -> Rollout:
        """Samples `samples_per_source` episodes for every source of the batch from the delayed copy of the actor, which
        is always in evaluation mode, and returns them, those of a source together, without rewards. Changes nothing.
        The same seed and `batch.step` give the same random numbers. Raises NonFinite where a probability is not
        finite."""
        draws = streams.generator(self.seed, "rollout", batch.step)
        times, policy = self.samples_per_source, self.actor.delayed
        samples = generate(policy, batch.source, batch.source_mask, self.decoding, times, self.eos_id, draws)
        return rollout_of(batch, samples, SAMPLED)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Takes one optimiser step of the actor, but not in the first `critic_steps` updates, and then one of the
        critic, on a rollout that must have its rewards; then moves both delayed copies. Switches both networks to
        evaluation mode. Returns the metrics of `Actor.learn` (absent in the first updates), of `ReferenceCritic.learn`,
        and value/explained_variance of the critic after its step. Raises NonFinite, see `optim.gradient_step`."""
        self.model.eval()
        self.critic.network.eval()
        targets = self.critic.targets(rollout, self.actor.delayed)
        metrics: dict[str, float] = {}
        if self.steps >= self.critic_steps:
            metrics |= self.actor.learn(rollout, self.critic.network)
        metrics |= self.critic.learn(EpisodesWithTargets(rollout, targets))
        self.actor.follow()
        self.critic.follow()
        self.steps += 1
        return metrics | self.critic.quality(rollout)

    def policy(self) -> Model:
        """Returns the model itself, that is the actor, in its present mode, and not its delayed copy, from which
        `collect` samples; later updates change it."""
        policy: Model = self.model
        return policy

    def _stateful(self) -> dict[str, Any]:
        """What is saved, by its name; the actor's weights are those of the model, which is saved elsewhere."""
        optimizers = {"optimizer": self.optimizer, "critic_optimizer": self.critic.optimizer}
        delayed = {"delayed_actor": self.actor.delayed, "delayed_critic": self.critic.delayed}
        return {**optimizers, "critic": self.critic.network, **delayed}

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of updates as "steps", and the state of both optimisers, the critic and both delayed
        copies, in live tensors, the names of each part after a prefix such as "critic.". The actor's weights, which are
        the model's, are saved elsewhere."""
        state: dict[str, Any] = {"steps": self.steps}
        for name, part in self._stateful().items():
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; the actor's weights, which are the model's, are restored elsewhere.
        Raises KeyError, ValueError or the like where the state is of another algorithm; other parts may be restored by
        then."""
        self.steps = state["steps"]
        for name, part in self._stateful().items():
            part.load_state_dict(within(state, f"{name}."))


class QNetwork(nn.Module):
    """Q(a; s_t, y*) of every token in every state of an episode: a model whose source is the clean reference y*, which
    exists in training only, and a linear head that starts at zero. `size` = V, the number of tokens of the policy. The
    recurrent layers of `model` are changed, see `networks.differentiable`."""

    def __init__(self, model: ModelModule, size: int) -> None:
        super().__init__()
        self.model, self.head, self.size = differentiable(model), nn.Linear(model.width, size), size
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def read(self, rollout: Rollout) -> Tensor:
        """Returns the hidden states [B, T, D] of every state of the B episodes, with gradients. Reads their clean
        references and actions, and not their sources; padded steps get numbers without meaning. Does not change the
        mode of the network."""
        hidden: Tensor = self.model(
            rollout.reference_ids, rollout.reference_mask, rollout.actions, rollout.source_row
        ).hidden
        return hidden

    def q(self, hidden: Tensor) -> Tensor:
        """Returns Q of every token, hidden [..., D] -> [..., V], in units of the reward, in float32 or float64, with
        gradients."""
        return precise(self.head(hidden))

    def q_taken(self, rollout: Rollout) -> Tensor:
        """Returns Q(a_t; s_t, y*) of the tokens of the episodes, [B, T], with gradients; values at padding are
        arbitrary."""
        return over_states(self._taken, self.size, rollout.mask, self.read(rollout), rollout.actions)[0]

    def _taken(self, hidden: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        return (_of_actions(self.q(hidden), actions),)


class Actor:
    """loss = -(1 / B) sum_t sum_a pi(a | s_t) Q(a; s_t, y*) + nll_mix NLL - entropy_coef H

    over B episodes that have a reward. NLL is a mean over the tokens of the demonstrations of all episodes, in nats, H
    (the entropy of pi) one over the tokens of the B episodes. The delayed copy pi' goes `target_rate` of the way to pi
    after each step.
    """

    def __init__(
        self,
        model: ModelModule,
        optimizer: Optimizer,
        entropy_coef: float,
        nll_mix: float,
        target_rate: float,
        micro_batches: int,
    ) -> None:
        self.model, self.delayed, self.optimizer = model, moving_copy(model, target_rate), optimizer
        self.entropy_coef, self.nll_mix = entropy_coef, nll_mix
        self.target_rate, self.micro_batches = target_rate, micro_batches

    def learn(self, rollout: Rollout, critic: QNetwork) -> dict[str, float]:
        """Takes one optimiser step on the loss of the class's docstring: it raises sum_a pi(a | s_t) Q(a; s_t, y*), a
        sum over all tokens, not over sampled ones alone, at the real tokens of episodes with a reward. Q is from
        `critic`, which gets no gradient. Entropy is of the same tokens; NLL is of the demonstrations of all rows.

        Returns loss/policy, entropy, loss/nll where `nll_mix` is above 0, and the optimiser's grad_norm, grad_clipped
        and lr. Changes neither the mode of the model nor the delayed copy. Raises NonFinite, see
        `optim.gradient_step`."""
        mask = _usable(rollout)
        episodes, tokens = mask.any(-1).sum().clamp(min=1), mask.sum().clamp(min=1)
        demonstrated = (
            rollout.target_mask[rollout.source_row].sum().clamp(min=1)
        )  # each as often as its source was sampled

        def loss(rows: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
            real = _usable(rows)
            output = self.model(rows.source, rows.source_mask, rows.actions, rows.source_row)
            with torch.no_grad():
                valued = critic.read(rows)
            measured = partial(self._terms, output, critic)
            expected_q, entropies = over_states(measured, critic.size, real, output.hidden, valued)
            expected = masked_sum(expected_q, real) / episodes
            mean_entropy = masked_sum(entropies, real) / tokens
            total = -expected - self.entropy_coef * mean_entropy
            terms = {"loss/policy": -expected.detach(), "entropy": mean_entropy.detach()}
            if self.nll_mix > 0:
                targets, counted = rows.targets[rows.source_row], rows.target_mask[rows.source_row]
                output = self.model(rows.source, rows.source_mask, targets, rows.source_row)
                nll = summed_nll(output, targets, counted, 0.0, critic.size, self.model.parameters()) / demonstrated
                total, terms["loss/nll"] = total + self.nll_mix * nll, nll.detach()
            return total, terms

        return gradient_step(self.optimizer, rollout, loss, self.micro_batches)

    def _terms(self, output: ModelOutput, critic: QNetwork, hidden: Tensor, valued: Tensor) -> tuple[Tensor, ...]:
        """Of some states S: sum_a pi(a | s_t) Q(a; s_t, y*), and the entropy of pi. Hidden states of the actor and of
        the critic, [S, D] each -> [S] each."""
        logits = logits_of(output, hidden)
        with torch.no_grad():
            q = critic.q(valued)
        return (precise(logits).softmax(-1) * q).sum(-1), entropy(logits)

    def follow(self) -> None:
        """Moves the delayed copy, in place, `target_rate` (0 to 1) of the way to the actor. `learn` does not do
        this."""
        move(self.delayed, self.model, self.target_rate)


@dataclass(frozen=True)
class EpisodesWithTargets:
    """`episodes`, and `targets`, what the critic learns to predict for their tokens."""

    episodes: Rollout
    targets: Tensor  # [B, T], q_t

    def __len__(self) -> int:
        return len(self.episodes)

    def rows(self, index: slice) -> EpisodesWithTargets:
        """Returns a micro-batch: the episodes in the slice `index` and their rows of the targets, [B', T] for B' of
        them, a view."""
        return EpisodesWithTargets(self.episodes.rows(index), self.targets[index])


class ReferenceCritic:
    """loss = (1 / tokens) sum_t (Q(a_t; s_t, y*) - q_t)^2 + value_penalty sum_a (Q(a) - mean_b Q(b))^2

    with the targets q_t = r_t + sum_a pi'(a | s_{t+1}) Q'(a; s_{t+1}, y*), and q_t = r_t at the last token. Without the
    penalty the values of tokens that are rarely sampled diverge in a large vocabulary. The delayed copy Q' goes
    `target_rate` of the way to Q after each step; pi' is the delayed copy of the actor.
    """

    def __init__(
        self, network: QNetwork, optimizer: Optimizer, value_penalty: float, target_rate: float, micro_batches: int
    ) -> None:
        self.network, self.delayed, self.optimizer = network, moving_copy(network, target_rate), optimizer
        self.value_penalty, self.target_rate, self.micro_batches = value_penalty, target_rate, micro_batches

    @torch.no_grad()
    def targets(self, rollout: Rollout, delayed_actor: ModelModule) -> Tensor:
        """Returns the targets q_t of every token of a rollout that has its rewards, [B, T], without gradient. Padding,
        and episodes that are not `valid`, get numbers without meaning. `delayed_actor` is the Model pi' of the class's
        docstring, in evaluation mode, such as `Actor.delayed`. AssertionError if the rollout has no rewards."""
        assert rollout.rewards is not None
        output = delayed_actor(rollout.source, rollout.source_mask, rollout.actions, rollout.source_row)

        def expected(hidden: Tensor, valued: Tensor) -> tuple[Tensor, ...]:
            return ((precise(logits_of(output, hidden)).softmax(-1) * self.delayed.q(valued)).sum(-1),)

        read = output.hidden, self.delayed.read(rollout)
        (values,) = over_states(expected, self.network.size, rollout.mask, *read)
        following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
        return td_targets(rollout.rewards, following, last_steps(rollout.mask))

    def learn(self, whole: EpisodesWithTargets) -> dict[str, float]:
        """Takes one optimiser step towards the targets on those episodes that have a reward; `whole` holds all episodes
        of the step, with what `targets` returned. Returns means over tokens: loss/value (squared error, without the
        penalty), q/mean of the tokens taken, and q/spread, the penalty without its factor `value_penalty`; and
        critic/grad_norm, critic/grad_clipped and critic/lr of the optimiser. Where no episode has a reward the means
        are 0, and the optimiser steps all the same. Does not move the delayed copy. Raises NonFinite, see
        `optim.gradient_step`."""
        tokens = _usable(whole.episodes).sum().clamp(min=1)

        def loss(rows: EpisodesWithTargets) -> tuple[Tensor, dict[str, Tensor]]:
            episodes, real = rows.episodes, _usable(rows.episodes)
            hidden, size = self.network.read(episodes), self.network.size
            taken, spreads = over_states(self._taken_and_spread, size, real, hidden, episodes.actions)
            error = masked_sum((taken - rows.targets).square(), real) / tokens
            spread = masked_sum(spreads, real) / tokens
            terms = {"loss/value": error, "q/mean": masked_sum(taken, real) / tokens, "q/spread": spread}
            return error + self.value_penalty * spread, {name: term.detach() for name, term in terms.items()}

        logged = gradient_step(self.optimizer, whole, loss, self.micro_batches)
        of_optimizer = ("grad_norm", "grad_clipped", "lr")
        return {f"critic/{name}" if name in of_optimizer else name: value for name, value in logged.items()}

    def _taken_and_spread(self, hidden: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """Of some states S: Q of the token taken, and sum_a (Q(a) - mean_b Q(b))^2. hidden [S, D], actions [S] -> [S]
        each."""
        q = self.network.q(hidden)
        return _of_actions(q, actions), (q - q.mean(-1, keepdim=True)).square().sum(-1)

    def follow(self) -> None:
        """Moves the delayed copy, in place, `target_rate` (0 to 1) of the way to the critic. `learn` does not do
        this."""
        move(self.delayed, self.network, self.target_rate)

    @torch.no_grad()
    def quality(self, rollout: Rollout) -> dict[str, float]:
        """Returns {"value/explained_variance": ...}: the share of the variance of the returns-to-go of a rewarded
        rollout that Q(a_t; s_t, y*) explains, over the real tokens of episodes that have a reward: 1 all of it, below 0
        if Q is worse than a constant; 0 where the returns do not vary. AssertionError without rewards."""
        assert rollout.rewards is not None
        q = self.network.q_taken(rollout)
        returns = reward_to_go(rollout.rewards, rollout.mask)
        return {"value/explained_variance": explained_variance(q, returns, _usable(rollout))}


def _usable(rollout: Rollout) -> Tensor:
    """bool [B, T]: the real tokens of episodes that have a reward."""
    return rollout.mask & rollout.valid.unsqueeze(-1)


def _of_actions(q: Tensor, actions: Tensor) -> Tensor:
    """Q of the tokens taken: q [..., V], actions [...] -> [...]."""
    return q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
