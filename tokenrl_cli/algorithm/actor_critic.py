"""Actor-critic for sequence prediction: every token's gradient, weighed by a critic that has read the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.networks import differentiable, frozen_copy, move
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.config.ranges import CountOrNone, Gt, Le, Positive, Size, Weight
from tokenrl_cli.episodes.sampling import Decoding, generate, rollout_of
from tokenrl_cli.functional.entropy import entropy
from tokenrl_cli.functional.likelihood import negative_log_likelihood
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.returns import reward_to_go
from tokenrl_cli.functional.value import explained_variance, last_steps, td_targets
from tokenrl_cli.interfaces import SAMPLED, Batch, Model, Rollout, Tokenizer
from tokenrl_cli.optim import Optimizer, gradient_step


@dataclass(frozen=True)
class Valued:
    """Episodes with what the critic should say of their tokens."""

    episodes: Rollout
    targets: Tensor  # [B, T]

    def __len__(self) -> int:
        return len(self.episodes)

    def rows(self, index: slice) -> Valued:
        return Valued(self.episodes.rows(index), self.targets[index])


class ActorCritic:
    """Bahdanau et al. 2017 (arXiv:1607.07086), algorithm 1.

    actor:  loss = -(1 / B) sum_t sum_a pi(a | s_t) Q(a; s_t, y*) + nll_mix NLL - entropy_coef H
    critic: loss = (1 / tokens) sum_t (Q(a_t; s_t, y*) - q_t)^2 + value_penalty sum_a (Q(a) - mean_b Q(b))^2
            q_t = r_t + sum_a pi'(a | s_{t+1}) Q'(a; s_{t+1}, y*)

    The critic Q is a model whose source is the clean reference y*, which is there in training only, with a linear head
    that starts at zero. pi' and Q' are delayed copies that go `target_rate` of the way at each step; episodes are
    sampled from pi', as published, without a weight for not being pi's. For the first `critic_steps` steps the critic
    learns alone. With the Q of pi and episodes of pi the expected gradient is that of the expected reward. Both are in
    evaluation mode throughout. Use with credit=delta: then the critic needs not remember what was paid already.

    Differs: Adam's step of the critic is `critic_lr_scale` times the actor's.
    """

    needs_rewards = True
    needs_references = True

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        critic: Model,
        samples_per_source: Size,
        target_rate: Annotated[float, Gt(0), Le(1)],
        critic_steps: CountOrNone,
        critic_lr_scale: Positive,
        value_penalty: Weight,
        entropy_coef: float,
        nll_mix: Weight,
        micro_batches: Size,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        like = next(model.parameters())
        self.model = model
        self.critic = Critic(critic, tokenizer.size).to(like.device, like.dtype)
        self.delayed_actor, self.delayed_critic = frozen_copy(model), frozen_copy(self.critic)
        self.eos_id, self.seed = tokenizer.eos_id, seed
        self.decoding = Decoding(max_length, 1.0, 0, 1.0, 0.0, [], 1, 0.0)
        self.samples_per_source, self.target_rate, self.critic_steps = samples_per_source, target_rate, critic_steps
        self.value_penalty, self.entropy_coef, self.nll_mix = value_penalty, entropy_coef, nll_mix
        self.micro_batches = micro_batches
        self.optimizer = optimizer(model.parameters())
        self.critic_optimizer = optimizer(self.critic.parameters())
        self.critic_optimizer.lr *= critic_lr_scale
        self.steps = 0

    def collect(self, batch: Batch) -> Rollout:
        draws = streams.generator(self.seed, "rollout", batch.step)
        times = self.samples_per_source
        samples = generate(
            self.delayed_actor, batch.source, batch.source_mask, self.decoding, times, self.eos_id, draws
        )
        return rollout_of(batch, samples, SAMPLED)

    def update(self, rollout: Rollout) -> dict[str, float]:
        self.model.eval()
        self.critic.eval()
        valued = Valued(rollout, self._targets(rollout))
        metrics: dict[str, float] = {}
        if self.steps >= self.critic_steps:
            metrics |= gradient_step(self.optimizer, valued, self._actor_loss(rollout), self.micro_batches)
        learned = gradient_step(self.critic_optimizer, valued, self._critic_loss(rollout), self.micro_batches)
        metrics |= {f"critic/{name}" if name in ("grad_norm", "grad_clipped", "lr") else name: value
                    for name, value in learned.items()}  # fmt: skip
        move(self.delayed_actor, self.model, self.target_rate)
        move(self.delayed_critic, self.critic, self.target_rate)
        self.steps += 1
        return metrics | self._explained(rollout)

    @torch.no_grad()
    def _targets(self, rollout: Rollout) -> Tensor:
        assert rollout.rewards is not None
        logits = self.delayed_actor(rollout.source, rollout.source_mask, rollout.actions, rollout.source_row).logits
        values = (precise(logits).softmax(-1) * self.delayed_critic(rollout)).sum(-1)
        following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
        return td_targets(rollout.rewards, following, last_steps(rollout.mask))

    def _actor_loss(self, rollout: Rollout) -> Callable[[Valued], tuple[Tensor, dict[str, Tensor]]]:
        mask = _usable(rollout)
        episodes, tokens = mask.any(-1).sum().clamp(min=1), mask.sum().clamp(min=1)
        demonstrated = rollout.target_mask[rollout.source_row].sum().clamp(min=1)  # each as often as it was sampled

        def loss(rows: Valued) -> tuple[Tensor, dict[str, Tensor]]:
            said, real = rows.episodes, _usable(rows.episodes)
            logits = self.model(said.source, said.source_mask, said.actions, said.source_row).logits
            with torch.no_grad():
                q = self.critic(said)
            expected = masked_sum((precise(logits).softmax(-1) * q).sum(-1), real) / episodes
            undecided = masked_sum(entropy(logits), real) / tokens
            total = -expected - self.entropy_coef * undecided
            terms = {"loss/policy": -expected.detach(), "entropy": undecided.detach()}
            if self.nll_mix > 0:
                targets, counted = said.targets[said.source_row], said.target_mask[said.source_row]
                given = self.model(said.source, said.source_mask, targets, said.source_row).logits
                nll = masked_sum(negative_log_likelihood(given, targets, 0.0), counted) / demonstrated
                total, terms["loss/nll"] = total + self.nll_mix * nll, nll.detach()
            return total, terms

        return loss

    def _critic_loss(self, rollout: Rollout) -> Callable[[Valued], tuple[Tensor, dict[str, Tensor]]]:
        tokens = _usable(rollout).sum().clamp(min=1)

        def loss(rows: Valued) -> tuple[Tensor, dict[str, Tensor]]:
            said, real = rows.episodes, _usable(rows.episodes)
            q = self.critic(said)
            chosen = q.gather(-1, said.actions.unsqueeze(-1)).squeeze(-1)
            error = masked_sum((chosen - rows.targets).square(), real) / tokens
            spread = masked_sum((q - q.mean(-1, keepdim=True)).square().sum(-1), real) / tokens
            terms = {"loss/value": error, "q/mean": masked_sum(chosen, real) / tokens, "q/spread": spread}
            return error + self.value_penalty * spread, {name: term.detach() for name, term in terms.items()}

        return loss

    @torch.no_grad()
    def _explained(self, rollout: Rollout) -> dict[str, float]:
        assert rollout.rewards is not None
        q = self.critic(rollout).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
        returns = reward_to_go(rollout.rewards, rollout.mask)
        return {"value/explained_variance": explained_variance(q, returns, _usable(rollout))}

    def policy(self) -> Model:
        policy: Model = self.model
        return policy

    def _parts(self) -> dict[str, Any]:
        names = ("optimizer", "critic_optimizer", "critic", "delayed_actor", "delayed_critic")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"steps": self.steps}
        for name, part in self._parts().items():
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, part in self._parts().items():
            part.load_state_dict(within(state, f"{name}."))


class Critic(nn.Module):
    """Q of every token in every state of an episode, from the reference: a model and a head that starts at zero."""

    def __init__(self, model: Any, size: int) -> None:
        super().__init__()
        self.model, self.head = differentiable(model), nn.Linear(model.width, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rollout: Rollout) -> Tensor:
        """-> [B, T, V]."""
        output = self.model(rollout.reference_ids, rollout.reference_mask, rollout.actions, rollout.source_row)
        return precise(self.head(output.hidden))


def _usable(rollout: Rollout) -> Tensor:
    return rollout.mask & rollout.valid.unsqueeze(-1)
