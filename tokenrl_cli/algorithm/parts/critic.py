"""Critics of policy gradients: estimates of V(s_t), the expected return from a state on. See `interfaces.Critic`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Positive, Size, Weight
from tokenrl_cli.functional.masking import masked_rows
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.value import value_error
from tokenrl_cli.interfaces import CONTINUATION, ModelModule, Rollout
from tokenrl_cli.optim import ParameterGroup


class NoCritic:
    """No estimate: V is 0 everywhere, and a baseline or returns that need values are refused with a UserError."""

    estimates, continuations, coef = False, 0, 0.0

    def attach(self, model: ModelModule) -> list[nn.Parameter]:
        """Returns []: there are no parameters."""
        return []

    def states(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Raises NotImplementedError: this critic needs no continuations, so this is never called. mask [B, T]."""
        raise NotImplementedError("no continuations are asked for")

    def measure(self, rollout: Rollout, model: ModelModule) -> tuple[Tensor, Tensor]:
        """Returns zeros [B, T] for V, in the type of the rollout's `logprobs`, and True [B, T] as if estimated in every
        state. `model` is not used."""
        return torch.zeros_like(rollout.logprobs), torch.ones_like(rollout.mask)

    def loss(self, hidden: Tensor, before: Tensor, targets: Tensor) -> Tensor | None:
        """Returns None for hidden [B, T, D], before and targets [B, T]: this critic has nothing to learn."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Returns {}: nothing is learned."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing."""


class ValueHead:
    """V(s_t) = w h_t + b, a linear head on the policy's hidden states h, [B, T, D] -> [B, T]; w and b start at 0.

    V is in units of the reward. No gradient flows into h. The head learns `functional.value.value_error` towards the
    returns G_t, a mean over tokens times `coef`, in the policy's own optimiser, with `lr_factor` times its learning
    rate: a step of Adam has the same length whatever the gradient is, and V has farther to go than a logit. `attach`
    must be called before all else.
    """

    estimates, continuations = True, 0

    def __init__(self, coef: Weight, clip: Weight, lr_factor: Positive) -> None:
        self.coef, self.clip, self.lr_factor = coef, clip, lr_factor

    def attach(self, model: ModelModule) -> list[ParameterGroup]:
        """Creates the head `self.head` for a model of this width, dtype and device, at 0, and returns its parameters as
        one group; see `Critic.attach`. A second call replaces the head."""
        like = next(model.parameters())
        self.head = nn.Linear(model.width, 1).to(like.device, like.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        return [ParameterGroup(list(self.head.parameters()), self.lr_factor)]

    def values(self, hidden: Tensor) -> Tensor:
        """Returns V of hidden states, [B, T, D] -> [B, T], in units of the reward, in float32 or float64. Gradients
        flow into the head, none into `hidden`. `attach` must have been called."""
        return precise(self.head(hidden.detach()).squeeze(-1))

    def states(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Raises NotImplementedError: this critic needs no continuations, so this is never called. mask [B, T]."""
        raise NotImplementedError("no continuations are asked for")

    def measure(self, rollout: Rollout, model: ModelModule) -> tuple[Tensor, Tensor]:
        """Returns V [B, T] of the rollout's states, from one more pass of the policy `model` in its present mode, and
        True [B, T], as every state has its own estimate. Padding gets values without meaning. Gradients flow into the
        head: call it under torch.no_grad() to read only. `attach` must have been called."""
        hidden = model(rollout.source, rollout.source_mask, rollout.actions, rollout.source_row).hidden
        return self.values(hidden).to(rollout.logprobs.dtype), torch.ones_like(rollout.mask)

    def loss(self, hidden: Tensor, before: Tensor, targets: Tensor) -> Tensor | None:
        """Returns the error of each state, [B, T], before the factor `coef`, from hidden [B, T, D] and the returns
        `targets` [B, T]; `before` [B, T] is V when the episode was sampled, for the clip. Padding is not masked.
        Gradients flow into the head alone. See `functional.value.value_error`."""
        return value_error(self.values(hidden), before, targets, self.clip)

    def state_dict(self) -> dict[str, Any]:
        """Returns {"weight": [1, D], "bias": [1]} of the head: the live tensors, not copies."""
        return dict(self.head.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores weight and bias of the head, in place; `attach` must have been called. RuntimeError where names or
        shapes differ."""
        self.head.load_state_dict(state)


class Continuations:
    """V(s_t) = mean return of `continuations` episodes that the policy samples from s_t on, at every `stride`-th token
    that it generated.

    VinePPO, Kazemnejad et al. 2024 (arXiv:2410.01679), equation 8; a step of a solution in the paper is `stride` tokens
    here. Unbiased and without parameters, but expensive: an episode of T tokens costs T / stride * continuations
    further episodes.
    """

    estimates, coef = True, 0.0

    def __init__(self, continuations: Size, stride: Size) -> None:
        self.continuations, self.stride = continuations, stride

    def attach(self, model: ModelModule) -> list[nn.Parameter]:
        """Returns []: there are no parameters."""
        return []

    def states(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the M prefixes to continue, as rows and lengths in tokens, [M] int64 each: the prefix before every
        True of `mask` [B, T] in columns 0, `stride`, 2 `stride` ..., so a length is its column and may be 0. `mask` is
        True at the tokens that the policy generated."""
        wanted = mask.clone()
        wanted[:, torch.arange(mask.shape[1], device=mask.device) % self.stride != 0] = False
        rows, lengths = wanted.nonzero(as_tuple=True)
        return rows, lengths

    def measure(self, rollout: Rollout, model: ModelModule) -> tuple[Tensor, Tensor]:
        """Returns V [B, T] of every state, from the continuations among the B rows of a rollout with rewards, and a
        mask [B, T] bool, True where V was estimated for that state itself and is not repeated. `model` is not used.

        After an estimated state V is repeated up to the next one, also over padding; before the first, and in the rows
        of the continuations themselves, it is 0. A state none of whose continuations is `valid` is not estimated.
        AssertionError without rewards.
        """
        others = rollout.rows((rollout.role == CONTINUATION).nonzero().squeeze(-1))
        assert others.rewards is not None
        shape = rollout.actions.shape
        returns = masked_rows(others.rewards, others.chosen) * others.valid
        place = (others.parent, (others.mask & ~others.chosen).sum(-1))
        total, count = returns.new_zeros(shape), returns.new_zeros(shape)
        total.index_put_(place, returns, accumulate=True)
        count.index_put_(place, others.valid.to(count.dtype), accumulate=True)
        fresh = count > 0
        last = torch.where(fresh, torch.arange(shape[1], device=fresh.device), 0).cummax(-1).values
        return (total / count.clamp(min=1)).gather(1, last), fresh

    def loss(self, hidden: Tensor, before: Tensor, targets: Tensor) -> Tensor | None:
        """Returns None for hidden [B, T, D], before and targets [B, T]: this critic has nothing to learn."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Returns {}: nothing is learned."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing."""
