"""What all algorithms that learn values share: sampling, replay, gradient steps on a loss, and a target network.

A method is a subclass of `ValueBased` with two methods of its own:

    compute_loss(minibatch) -> LossOutput    its equation, for the episodes of a minibatch or of a part of one
    policy() -> Model                        how it acts by what it has learned

and a constructor that names the heads on the model. `soft_q.py` is the shortest. Each takes B episodes of T
tokens over a vocabulary of V tokens from models with D hidden units; column T of a [B, T + 1] tensor is the state after
the last column. gamma = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli import streams
from tokenrl_cli.algorithm.networks import move, moving_copy, read_states
from tokenrl_cli.algorithm.parts.data import Experience, Minibatch
from tokenrl_cli.algorithm.parts.exploration import Exploration, NoExploration
from tokenrl_cli.algorithm.parts.head import Head, Project
from tokenrl_cli.algorithm.state import within
from tokenrl_cli.episodes.sampling import Decoding, concatenate, generate, recite, rollout_of
from tokenrl_cli.functional.masking import masked_rows, masked_sum
from tokenrl_cli.interfaces import SAMPLED, Batch, ModelModule, ModelOutput, Rollout, SettingError, Tokenizer
from tokenrl_cli.optim import Learning, Optimizer, ParameterGroup, gradient_step, over_steps


class ValueNetwork(nn.Module):
    """A model and the heads on its hidden states: the network that is learned, and that the target network is a copy
    of. `heads` maps "q" to a `QHead` and "v" to a `ScalarHead`; an algorithm has those that it reads."""

    def __init__(self, model: ModelModule, heads: Mapping[str, Head], train_trunk: bool) -> None:
        super().__init__()
        self.model, self.heads, self.train_trunk = model, nn.ModuleDict(heads), train_trunk
        self.lr_factors = {name: head.lr_factor for name, head in heads.items()}

    def trainable(self) -> list[nn.Parameter]:
        """Returns the parameters to be trained, as a new list: all of the model (the trunk), if `train_trunk`, and
        those of the heads. Those that require no gradient are among them."""
        return [*(self.model.parameters() if self.train_trunk else ()), *self.heads.parameters()]

    def parameter_groups(self) -> list[nn.Parameter | ParameterGroup]:
        """Returns the parameters of `trainable` in the form that an optimiser takes (`optim.Learning`): those of the
        model one by one, those of each head as a group with its own factor of the learning rate."""
        heads = [ParameterGroup(list(self.heads[name].parameters()), self.lr_factors[name]) for name in self.lr_factors]
        return [*(self.model.parameters() if self.train_trunk else ()), *heads]

    def read(self, episodes: Rollout) -> ModelOutput:
        """Returns the model's output for every state of the episodes and for the one after the last column: hidden
        [B, T + 1, D], column t for s_t; logits [B, T + 1, V]. Gradients flow; if the trunk is not trained, the hidden
        states carry none. The model's mode is not changed."""
        output = read_states(self.model, episodes)
        return output if self.train_trunk else ModelOutput(output.hidden.detach(), output.project)

    def q(self, hidden: Tensor, project: Project) -> Tensor:
        """Returns Q(s, .) by each of H heads, hidden [..., D] -> [H, ..., V], in float32 or float64, with gradients.
        Only a `Logits` head reads `project`, which must then map hidden states to temperature * logits [..., V] of the
        model; the others take any. Raises KeyError where there is no head "q"."""
        values: Tensor = self.heads["q"](hidden, project)
        return values

    def v(self, hidden: Tensor) -> Tensor:
        """Returns V(s) by the head "v", hidden [..., D] -> [...], in float32 or float64, with gradients, into `hidden`,
        too. Raises KeyError where there is no such head."""
        values: Tensor = self.heads["v"](hidden)
        return values


class Collector:
    """Samples the episodes that a step needs with an exploring policy, and adds demonstrations where the data uses any.

    Draws depend on the seed and on the batch's step alone. `steps` counts the stage's steps, for the exploration. The
    constructor raises UserError for a replay that is too small for one text, and for an exploration where nothing is
    sampled.
    """

    def __init__(
        self,
        data: Experience,
        exploration: Exploration,
        tokenizer: Tokenizer,
        samples_per_source: int,
        max_length: int,
        seed: int,
    ) -> None:
        room = data.replay.capacity
        if data.replayed > 0 and room < max_length:
            problem = f"must hold a text of decode.max_length={max_length} tokens, got {room}"
            raise SettingError("data.capacity", problem, "make it larger")
        if not data.samples and not isinstance(exploration, NoExploration):
            problem = "says how the policy acts while it learns, and demonstrations alone never let it act"
            raise SettingError("/exploration", problem, "{here}/exploration=none, or other {here}/data")
        self.data, self.exploration, self.samples_per_source = data, exploration, samples_per_source
        self.tokenizer, self.seed = tokenizer, seed
        self.decoding = Decoding(max_length, 1.0, 0, 1.0, 0.0, [], 1, 0.0)  # from the policy as it is, nothing cut off
        self.steps = 0

    def collect(self, policy: ModelModule, batch: Batch) -> Rollout:
        """Returns the episodes of a step, without rewards: `samples_per_source` samples of each of the N sources of
        `batch`, those of a source together (none where the data are demonstrations alone), followed by one
        demonstration of each source where the data uses them. `policy` is the Model that has been learned, in
        evaluation mode; the exploration makes of it the one that samples. Counts one step. Raises NonFinite where a
        probability is not finite."""
        parts = []
        if self.data.samples:
            acting = self.exploration.acting(policy, self.steps)
            draws = streams.generator(self.seed, "rollout", batch.step)
            samples = generate(
                acting, batch.source, batch.source_mask, self.decoding, self.samples_per_source,
                self.tokenizer.eos_id, draws,
            )  # fmt: skip
            parts.append(rollout_of(batch, samples, SAMPLED))
        if self.data.demonstrated:
            parts.append(recite(batch, self.tokenizer.eos_id))
        self.steps += 1
        return parts[0] if len(parts) == 1 else concatenate(parts)


@dataclass(frozen=True)
class LossOutput:
    """The loss of some rows of a minibatch. Loss and metrics are sums over these rows divided by the number of tokens
    of the *whole* minibatch (`ValueBased.loss_tokens`), so those of all micro-batches add up to its means."""

    loss: Tensor  # []
    td_errors: Tensor  # [B, T], target - value of each token, without gradient: the replay's priorities are their means
    metrics: dict[str, Tensor]  # [] each
    ranges: dict[str, Tensor]  # [any] each: the least and the greatest value of the minibatch are logged


class ValueBased:
    """An Algorithm that learns values. What a subclass adds is described in the module's docstring."""

    needs_rewards = True

    def __init__(
        self,
        network: ValueNetwork,
        target: Callable[[int], float] | None,
        collector: Collector,
        data: Experience,
        samples_together: int,
        bootstrap_truncated: bool,
        micro_batches: int,
        optimizer: Callable[[Learning], Optimizer],
    ) -> None:
        """`target`, of the number of optimiser steps before, gives the share of the way that the target network moves
        to the learned one after each step; None for no target network. `samples_together`: how many samples of a source
        a minibatch must hold together; 1 where they are not compared. A minibatch is computed in `micro_batches` parts,
        or fewer; `bootstrap_truncated`: see `terminated`. Switches the model to evaluation mode."""
        self.network, self.model = network, network.model.eval()
        self.size = collector.tokenizer.size  # V
        self.target_update = target
        self.target = None if target is None else moving_copy(network, target(0))
        self.collector, self.data, self.samples_together = collector, data, samples_together
        self.bootstrap_truncated, self.micro_batches = bootstrap_truncated, micro_batches
        self.optimizer = optimizer(network.parameter_groups())
        self.updates = 0

    # ------------------------------------------------------------------------------------- what a method overrides

    def policy(self) -> Any:
        """Returns the Model to act by; see `Algorithm.policy`. Raises NotImplementedError: each subclass has its
        own."""
        raise NotImplementedError

    def compute_loss(self, minibatch: Minibatch) -> LossOutput:
        """Returns the loss of a minibatch of rewarded episodes, as `prepare` returned it, or of a micro-batch of one.
        Loss and metrics are sums over the rows given, divided by `loss_tokens`, the number of tokens of the whole
        minibatch, so those of its micro-batches add up (`mean_loss` computes them so). The loss can be differentiated
        with respect to the learned network; nothing is changed. Raises NotImplementedError: each subclass has its
        own."""
        raise NotImplementedError

    def prepare(self, minibatch: Minibatch) -> Minibatch:
        """Returns `minibatch` itself. A subclass may override this to return a copy to which it adds what has to be
        computed from a whole minibatch; `update` calls it before it splits the minibatch into micro-batches."""
        return minibatch

    def loss_mask(self, episodes: Rollout) -> Tensor:
        """Returns the tokens that the loss is a mean over, [B, T] bool: all that are not padding. A subclass that
        overrides this must override `loss_tokens`, too, which counts them."""
        return episodes.mask

    def loss_tokens(self, minibatch: Minibatch) -> Tensor | int:
        """Returns the number of tokens of `loss_mask` in the whole minibatch, [] or an int, also where `minibatch` is a
        micro-batch of it. A subclass that overrides one of `loss_mask` and `loss_tokens` must override the other,
        too."""
        return minibatch.total_tokens

    # ------------------------------------------------------------------------------------------------- the algorithm

    @property
    def needs_references(self) -> bool:
        """Whether demonstrations are among the episodes that are learned from; see `ReadsReferences`."""
        return self.data.demonstrated > 0

    def collect(self, batch: Batch) -> Rollout:
        """Returns the episodes of a step, without rewards: `samples_per_source` samples of each source of `batch` by
        the exploring policy (none where the data are demonstrations alone), followed by one demonstration of each
        source where the data uses them.

        Switches the model to evaluation mode, and counts one step of the stage, on which the exploration depends. The
        same seed and `batch.step` give the same random numbers. Raises NonFinite where a probability is not finite.
        """
        self.model.eval()
        return self.collector.collect(self.policy(), batch)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Adds the samples of a rewarded rollout to the replay, if there is one, and takes an optimiser step on each
        minibatch that `data` draws from the rollout and the replay; after each it moves the target network. Switches
        the model to evaluation mode.

        Returns metrics: those of the loss and of the optimiser, as means over the minibatches, NaN left out (for names
        in /min and /max the least or greatest), and those of the replay and of the exploration at the last `collect`.
        Where no episode has a reward, no step is taken and only these last two come back. Raises NonFinite, see
        `optim.gradient_step`, and UserError where the replay is too small for the last sample.
        """
        self.model.eval()  # what was sampled and what is scored must be one distribution
        minibatches = self.data.minibatches(rollout, self.collector.seed, self.samples_together)
        steps = [self._learn(minibatch) for minibatch in minibatches]
        logged = {name: over_steps(name, [step[name] for step in steps]) for name in (steps[0] if steps else ())}
        explored = self.collector.exploration.metrics(self.collector.steps - 1)
        return logged | explored | self.data.metrics(rollout.step)

    def _learn(self, minibatch: Minibatch) -> dict[str, float]:
        """One step of the optimiser on a minibatch, new priorities for its replayed episodes, and one step of the
        target network."""
        minibatch = self.prepare(minibatch)
        outputs: list[LossOutput] = []

        def loss(rows: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
            output = self.compute_loss(rows)
            outputs.append(replace(output, loss=output.loss.detach()))  # else its graph would stay in memory
            return output.loss, output.metrics

        metrics = gradient_step(self.optimizer, minibatch, loss, self.micro_batches)
        counted = self.loss_mask(minibatch.episodes)
        errors = torch.cat([output.td_errors for output in outputs]).abs()
        self.data.observe(minibatch, masked_rows(errors, counted) / counted.sum(-1))  # mean over an episode's tokens
        if self.target is not None and self.target_update is not None:
            move(self.target, self.network, self.target_update(self.updates))
        self.updates += 1
        return metrics | _extremes(outputs)

    # --------------------------------------------------------------------------------------- what losses share

    def rewards(self, episodes: Rollout) -> Tensor:
        """Returns the rewards of episodes, [B, T], the tensor of the Rollout itself, 0 where masked. AssertionError if
        they have not been scored."""
        assert episodes.rewards is not None
        return episodes.rewards

    def terminated(self, episodes: Rollout) -> Tensor:
        """Returns [B] bool, True for the episodes whose state after the last token has the value 0: for all, or with
        `bootstrap_truncated` for those that ended with EOS alone; one that was cut at the limit has the value V
        there."""
        return episodes.ended if self.bootstrap_truncated else torch.ones_like(episodes.ended)

    def mean_loss(
        self,
        minibatch: Minibatch,
        losses: Tensor,
        td_errors: Tensor,
        logged: Mapping[str, Tensor],
        ranges: Mapping[str, Tensor],
    ) -> LossOutput:
        """Combines terms [B, T] each to a LossOutput: as loss the sum of `losses` over the tokens of `loss_mask` in the
        rows given, each times the weight of its episode; as metrics the sums of `logged` over these tokens, unweighted;
        both divided by `loss_tokens`, the number of the whole minibatch. `td_errors` stay as they are, and of `ranges`
        the values at these tokens are kept, of which the extremes are logged. Masked places add nothing. The loss has
        the gradient of `losses`; nothing else of the result has one."""
        mask, count = self.loss_mask(minibatch.episodes), self.loss_tokens(minibatch)
        weighted = minibatch.weights.unsqueeze(-1) * mask * losses
        metrics = {name: masked_sum(values.detach(), mask) / count for name, values in logged.items()}
        values = {name: each.detach()[mask] for name, each in ranges.items()}
        return LossOutput(masked_sum(weighted, mask) / count, td_errors.detach(), metrics, values)

    # -------------------------------------------------------------------------------------------------- saved state

    def _saved_parts(self) -> dict[str, Any]:
        """What is saved, by the prefix of its names; what policy() needs besides the model under "policy."."""
        parts = {"policy.heads": self.network.heads, "replay": self.data, "optimizer": self.optimizer}
        if self.target is not None:
            parts["target"] = self.target
        if self.collector.exploration.model is not None:
            parts["explorer"] = self.collector.exploration.model
        return parts

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters "collected" and "updates", and the state of every saved part: a flat dictionary of
        tensors, numbers and strings. The tensors are live ones.

        The names of the parts begin with "policy." for what `policy` needs besides the model, and with "replay.",
        "optimizer.", "target." and "explorer." for the others. The weights of the learned model are saved elsewhere.
        """
        state: dict[str, Any] = {"collected": self.collector.steps, "updates": self.updates}
        for name, part in self._saved_parts().items():
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the counters and every saved part from what `state_dict` returned; the weights of the learned model
        are restored elsewhere.

        Raises KeyError for a missing counter, and what a part raises where its entries do not fit; other parts may be
        restored by then.
        """
        self.collector.steps, self.updates = state["collected"], state["updates"]
        for name, part in self._saved_parts().items():
            part.load_state_dict(within(state, f"{name}."))

    def load_policy(self, state: dict[str, Any]) -> None:
        """Restores only what `policy` needs besides the model, the entries that begin with "policy."; others are
        ignored, and the model's weights are restored elsewhere. RuntimeError where names or shapes differ. See
        `PolicyLoader.load_policy`."""
        for name, part in self._saved_parts().items():
            if name.startswith("policy."):
                part.load_state_dict(within(state, f"{name}."))


def _extremes(outputs: list[LossOutput]) -> dict[str, float]:
    """<name>/min and <name>/max of every range, over all micro-batches."""
    found: dict[str, float] = {}
    for name in outputs[0].ranges:
        values = torch.cat([output.ranges[name] for output in outputs])
        found |= {f"{name}/min": float(values.min()), f"{name}/max": float(values.max())}
    return found
