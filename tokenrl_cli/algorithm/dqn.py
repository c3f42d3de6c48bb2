"""Token-level deep Q-learning with replay, a target network and, if asked, double estimation.

Differs from Mnih et al. 2015 where text does: the Q-head is a new one that starts at zero, because the logits of a
likelihood model are no values; and exploration draws from the frozen warm start instead of uniformly, because uniform
tokens out of thousands find nothing. One column of a rollout is one transition, gamma = 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.parts import within
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.value import last_steps, max_value, td_targets
from tokenrl_cli.interfaces import SAMPLED, Batch, Model, ModelOutput, Rollout, State, Tokenizer, UserError
from tokenrl_cli.optim import Optimizer, gradient_step
from tokenrl_cli.replay import Replay
from tokenrl_cli.sampling import Decoding, generate, rollout_of


class Dqn:
    """loss = mean_t (r_t + max_a Q_target(s_{t+1}, a) - Q(s_t, a_t))^2 / 2 over the tokens of a replayed minibatch.

    `double` lets Q choose the token whose Q_target counts (van Hasselt et al. 2016). The last token of an episode has
    no successor; with `bootstrap_truncated` one that was cut at the limit has (then use credit=delta: what is still
    owed is the rest of the score, not all of it again). `target_every` updates Q_target is copied from Q.
    """

    needs_rewards = True

    def __init__(
        self,
        model: Any,  # a Model that is an nn.Module
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: int,
        replay_size: int,
        minibatch_size: int,
        updates_per_step: int,
        target_every: int,
        double: bool,
        bootstrap_truncated: bool,
        train_trunk: bool,
        epsilon_start: float,
        epsilon_end: float,
        epsilon_steps: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        for name, count in (
            ("samples_per_source", samples_per_source),
            ("replay_size", replay_size),
            ("minibatch_size", minibatch_size),
            ("updates_per_step", updates_per_step),
            ("target_every", target_every),
            ("epsilon_steps", epsilon_steps),
        ):
            if count < 1:
                raise UserError(f"algorithm.{name}", f"must be at least 1, got {count}")
        for name, share in (("epsilon_start", epsilon_start), ("epsilon_end", epsilon_end)):
            if not 0 <= share <= 1:
                raise UserError(f"algorithm.{name}", f"must be in [0, 1], got {share}")
        if replay_size < minibatch_size:
            problem = f"must hold a minibatch of {minibatch_size}, got {replay_size}: nothing would ever be learned"
            raise UserError("algorithm.replay_size", problem)
        self.model = model.eval()
        like = next(model.parameters())
        self.head = nn.Linear(model.width, tokenizer.size).to(like.device, like.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.target_model, self.target_head = _frozen(model), _frozen(self.head)
        self.explorer = _frozen(model)  # the warm start, as it was
        self.replay = Replay(replay_size)
        self.eos_id, self.seed = tokenizer.eos_id, seed
        self.decoding = Decoding(max_length, 1.0, 0, 1.0, 0.0, [], 1, 0.0)
        self.samples_per_source, self.minibatch_size = samples_per_source, minibatch_size
        self.updates_per_step, self.target_every, self.double = updates_per_step, target_every, double
        self.bootstrap_truncated, self.train_trunk = bootstrap_truncated, train_trunk
        self.epsilon_start, self.epsilon_end, self.epsilon_steps = epsilon_start, epsilon_end, epsilon_steps
        trunk = list(model.parameters()) if train_trunk else []
        self.optimizer = optimizer([*trunk, *self.head.parameters()])
        self.collected = self.updates = 0

    @property
    def epsilon(self) -> float:
        """Falls in a straight line over the first `epsilon_steps` steps of the stage."""
        done = min(1.0, self.collected / self.epsilon_steps)
        return self.epsilon_start + (self.epsilon_end - self.epsilon_start) * done

    def collect(self, batch: Batch) -> Rollout:
        behaviour = Mixture(self.policy(), self.explorer, self.epsilon)
        draws = streams.generator(self.seed, "rollout", batch.step)
        samples = generate(
            behaviour, batch.source, batch.source_mask, self.decoding, self.samples_per_source, self.eos_id, draws
        )
        self.collected += 1
        return rollout_of(batch, samples, SAMPLED)

    def update(self, rollout: Rollout) -> dict[str, float]:
        self.model.eval()
        self.replay.add(rollout)
        metrics = {"epsilon": self.epsilon, "replay_rows": float(len(self.replay))}
        if len(self.replay) < self.minibatch_size:
            return metrics
        for number in range(self.updates_per_step):
            draws = streams.generator(self.seed, f"replay/{number}", rollout.step)
            rows = self.replay.sample(self.minibatch_size, draws, rollout)
            metrics |= gradient_step(self.optimizer, rows, self._loss, 1)
            self.updates += 1
            if self.updates % self.target_every == 0:
                self.target_model.load_state_dict(self.model.state_dict())
                self.target_head.load_state_dict(self.head.state_dict())
        return metrics

    def _loss(self, rows: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        assert rows.rewards is not None
        beyond = torch.cat([rows.actions, torch.zeros_like(rows.actions[:, :1])], 1)  # one state more than actions
        hidden = self.model(rows.source, rows.source_mask, beyond).hidden
        values = precise(self.head(hidden if self.train_trunk else hidden.detach()))  # [B, T + 1, V]
        q = values[:, :-1].gather(-1, rows.actions.unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            after = self.target_model(rows.source, rows.source_mask, beyond).hidden[:, 1:]
            after = precise(self.target_head(after))
            following = max_value(after, values[:, 1:] if self.double else after)
            over = rows.ended if self.bootstrap_truncated else torch.ones_like(rows.ended)
            terminal = last_steps(rows.mask) & over.unsqueeze(-1)
            target = td_targets(rows.rewards.to(q.dtype), following, terminal)
        td_error = target - q
        tokens = rows.mask.sum()
        loss = masked_sum(td_error.square() / 2, rows.mask) / tokens
        known = q.detach()[rows.mask]
        return loss, {
            "loss/td": loss.detach(),
            "td_error": masked_sum(td_error.detach().abs(), rows.mask) / tokens,
            "q/mean": known.mean(),
            "q/min": known.min(),
            "q/max": known.max(),
        }

    def policy(self) -> Model:
        return Greedy(self.model, self.head)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"collected": self.collected, "updates": self.updates}
        for name, part in self._parts().items():
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.collected, self.updates = state["collected"], state["updates"]
        for name, part in self._parts().items():
            part.load_state_dict(within(state, f"{name}."))

    def load_policy(self, state: dict[str, Any]) -> None:
        """Only what policy() needs."""
        self.head.load_state_dict(within(state, "policy."))

    def _parts(self) -> dict[str, Any]:
        return {"policy": self.head, "target_model": self.target_model, "target_head": self.target_head,
                "explorer": self.explorer, "replay": self.replay, "optimizer": self.optimizer}  # fmt: skip


def _frozen(module: nn.Module) -> nn.Module:
    """A copy that never learns."""
    return copy.deepcopy(module).requires_grad_(False).eval()


class Greedy:
    """Acts by the best Q-value: logits are 0 for that token and -inf for all others."""

    def __init__(self, trunk: Any, head: nn.Module) -> None:
        self.trunk, self.head, self.width = trunk, head, trunk.width

    def __call__(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> ModelOutput:
        return ModelOutput(self.trunk(source, source_mask, actions).hidden, self._extract)

    def start(self, source: Tensor, source_mask: Tensor) -> State:
        state: State = self.trunk.start(source, source_mask)
        return state

    def step(self, state: State, previous: Tensor | None) -> tuple[ModelOutput, State]:
        output, state = self.trunk.step(state, previous)
        return ModelOutput(output.hidden, self._extract), state

    def _extract(self, hidden: Tensor) -> Tensor:
        q = precise(self.head(hidden))
        return torch.full_like(q, -torch.inf).scatter(-1, q.argmax(-1, keepdim=True), 0.0)


@dataclass(frozen=True)
class Both:
    """The states of two models that read the same episodes."""

    first: State
    second: State

    def reorder(self, index: Tensor) -> Both:
        return Both(self.first.reorder(index), self.second.reorder(index))

    def repeat(self, times: int) -> Both:
        return Both(self.first.repeat(times), self.second.repeat(times))


class Mixture:
    """Acts by `first`, but with probability `epsilon` at every token by `second`."""

    def __init__(self, first: Model, second: Any, epsilon: float) -> None:
        self.first, self.second, self.epsilon, self.width = first, second, epsilon, first.width

    def __call__(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> ModelOutput:
        return self._mixed(self.first(source, source_mask, actions), self.second(source, source_mask, actions))

    def start(self, source: Tensor, source_mask: Tensor) -> Both:
        return Both(self.first.start(source, source_mask), self.second.start(source, source_mask))

    def step(self, state: Any, previous: Tensor | None) -> tuple[ModelOutput, State]:
        first, left = self.first.step(state.first, previous)
        second, right = self.second.step(state.second, previous)
        return self._mixed(first, second), Both(left, right)

    def _mixed(self, first: ModelOutput, second: ModelOutput) -> ModelOutput:
        def project(hidden: Tensor) -> Tensor:
            mine, other = precise(first.logits).softmax(-1), precise(second.logits).softmax(-1)
            return ((1 - self.epsilon) * mine + self.epsilon * other).log()

        return ModelOutput(first.hidden, project)
