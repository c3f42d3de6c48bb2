"""What all algorithms that learn values share: acting, keeping, drawing, stepping, and a target that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.networks import frozen_copy, move
from tokenrl_cli.algorithm.parts.data import Drawn, Experience
from tokenrl_cli.algorithm.parts.exploration import Exploration, Itself
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.episodes.sampling import Decoding, concatenate, generate, recite, rollout_of
from tokenrl_cli.functional.masking import masked_rows
from tokenrl_cli.interfaces import SAMPLED, Batch, ModelOutput, Rollout, Tokenizer, UserError
from tokenrl_cli.optim import Optimizer, gradient_step, over_steps


class Learned(nn.Module):
    """A model and the heads on it: what the target network is a copy of."""

    def __init__(self, model: Any, heads: dict[str, nn.Module], train_trunk: bool) -> None:
        super().__init__()
        self.model, self.heads, self.train_trunk = model, nn.ModuleDict(heads), train_trunk

    def learning(self) -> list[nn.Parameter]:
        return [*(self.model.parameters() if self.train_trunk else ()), *self.heads.parameters()]

    def read(self, episodes: Rollout) -> ModelOutput:
        """Of every state of the episodes and of the one after their last column: [B, T + 1, .]."""
        beyond = torch.cat([episodes.actions, torch.zeros_like(episodes.actions[:, :1])], 1)
        output: ModelOutput = self.model(episodes.source, episodes.source_mask, beyond, episodes.source_row)
        return output if self.train_trunk else ModelOutput(output.hidden.detach(), output.project)


@dataclass(frozen=True)
class Lesson:
    """What a part of a minibatch says: loss and metrics are sums over the part by the denominators of the whole."""

    loss: Tensor  # []
    errors: Tensor  # [B, T], of each token
    metrics: dict[str, Tensor]
    ranges: dict[str, Tensor]  # numbers whose least and greatest are logged


class ValueBased:
    """Subclasses say what is learned (`heads`, `lesson`) and how it acts (`policy`).

    `lesson(drawn)` gives a function of the minibatch's parts; what needs the whole of it is done before.
    """

    needs_rewards = True
    mates = 1  # samples of a source that must come together

    def __init__(
        self,
        model: Any,
        heads: dict[str, nn.Module],
        tokenizer: Tokenizer,
        max_length: int,
        seed: int,
        samples_per_source: int,
        data: Experience,
        exploration: Exploration,
        target: Callable[[int], float] | None,
        train_trunk: bool,
        micro_batches: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        room = data.replay.capacity
        refuse(
            (data.replayed > 0 and room < max_length, "algorithm.data.capacity",
             f"must hold a text of decode.max_length={max_length} tokens, got {room}", "make it larger"),
            (not (data.samples or isinstance(exploration, Itself)), "algorithm/exploration",
             "says how the policy acts while it learns, and demonstrations alone never let it act",
             "algorithm/exploration=none, or other algorithm/data"),
        )  # fmt: skip
        self.model = model.eval()
        self.learned = Learned(model, heads, train_trunk)
        self.follow = target
        self.target = None if target is None else frozen_copy(self.learned)
        self.size, self.eos_id, self.seed = tokenizer.size, tokenizer.eos_id, seed
        self.decoding = Decoding(max_length, 1.0, 0, 1.0, 0.0, [], 1, 0.0)
        self.samples_per_source, self.micro_batches = samples_per_source, micro_batches
        self.data, self.exploration = data, exploration
        self.optimizer = optimizer(self.learned.learning())
        self.collected = self.updates = 0

    @property
    def needs_references(self) -> bool:
        """Whether demonstrations are among what is learned from."""
        return self.data.demonstrated > 0

    def policy(self) -> Any:
        raise NotImplementedError

    def lesson(self, drawn: Drawn) -> Callable[[Drawn], Lesson]:
        raise NotImplementedError

    def collect(self, batch: Batch) -> Rollout:
        self.model.eval()
        parts = []
        if self.data.samples:
            acting = self.exploration.acting(self.policy(), self.collected)
            draws = streams.generator(self.seed, "rollout", batch.step)
            samples = generate(
                acting, batch.source, batch.source_mask, self.decoding, self.samples_per_source, self.eos_id, draws
            )
            parts.append(rollout_of(batch, samples, SAMPLED))
        if self.data.demonstrated:
            parts.append(recite(batch, self.eos_id))
        self.collected += 1
        return parts[0] if len(parts) == 1 else concatenate(parts)

    def update(self, rollout: Rollout) -> dict[str, float]:
        self.model.eval()  # what was sampled and what is scored must be one distribution
        steps: list[dict[str, float]] = []
        for drawn in self.data.minibatches(rollout, self.seed, self.mates):
            teach = self.lesson(drawn)
            lessons: list[Lesson] = []

            def loss(
                rows: Drawn, teach: Any = teach, lessons: list[Lesson] = lessons
            ) -> tuple[Tensor, dict[str, Tensor]]:
                taught = teach(rows)
                lessons.append(replace(taught, loss=taught.loss.detach()))
                return taught.loss, taught.metrics

            metrics = gradient_step(self.optimizer, drawn, loss, self.micro_batches)
            at = self.starts(drawn.episodes)
            self.data.observe(drawn, masked_rows(torch.cat([each.errors for each in lessons]).abs(), at) / at.sum(-1))
            steps.append(metrics | _extremes(lessons))
            if self.follow is not None and self.target is not None:
                move(self.target, self.learned, self.follow(self.updates))
            self.updates += 1
        logged = {name: over_steps(name, [step[name] for step in steps]) for name in (steps[0] if steps else ())}
        return logged | self.exploration.metrics(self.collected - 1) | self.data.metrics(rollout.step)

    def starts(self, episodes: Rollout) -> Tensor:
        """The tokens [B, T] that have an equation of their own."""
        return episodes.mask

    def weights(self, drawn: Any) -> Tensor:
        """Of every token [B, T]."""
        return drawn.weights.unsqueeze(-1) * drawn.episodes.mask

    def _parts(self) -> dict[str, Any]:
        """What is saved; what policy() needs besides the model under "policy."."""
        parts = {"policy.heads": self.learned.heads, "replay": self.data, "optimizer": self.optimizer}
        if self.target is not None:
            parts["target"] = self.target
        if self.exploration.model is not None:
            parts["explorer"] = self.exploration.model
        return parts

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
        for name, part in self._parts().items():
            if name.startswith("policy."):
                part.load_state_dict(within(state, f"{name}."))


def _extremes(lessons: list[Lesson]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in lessons[0].ranges:
        numbers = torch.cat([each.ranges[name] for each in lessons])
        found |= {f"{name}/min": float(numbers.min()), f"{name}/max": float(numbers.max())}
    return found


def refuse(*cases: tuple[bool, str, str, str]) -> None:
    """Raises the first mistake that was made: (made, where, what is wrong with it, what to do instead)."""
    for made, where, problem, remedy in cases:
        if made:
            raise UserError(where, problem, remedy)
