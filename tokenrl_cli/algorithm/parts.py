"""Parts of algorithms that remember something; their formulas stay in functional/."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Fraction, Positive, Size, Weight
from tokenrl_cli.functional.masking import masked_rows
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.value import value_error
from tokenrl_cli.interfaces import CONTINUATION, Rollout, UserError


class MovingAverage:
    """b = exponential moving average of whole-sequence returns, corrected for its start (Kingma & Ba 2015, section 3).

    It is read before it is updated, so a batch never enters its own baseline; it holds two numbers, whatever the
    length of the run.
    """

    def __init__(self, decay: Fraction) -> None:
        self.decay = decay
        self.average = self.weight = 0.0  # sum of decay ** age times a batch's mean return, and of decay ** age

    def __call__(self, returns: Tensor) -> Tensor:
        """returns [N, K, T] only tell dtype and device -> []."""
        return returns.new_tensor(self.average / self.weight if self.weight else 0.0)

    def observe(self, returns: Tensor, valid: Tensor) -> None:
        """Takes in the returns at t = 0 of the valid samples: [N, K, T], [N, K]."""
        if bool(valid.any()):
            mean = float(returns[:, :, 0][valid].mean(dtype=torch.float64))
            self.average = self.decay * self.average + (1 - self.decay) * mean
            self.weight = self.decay * self.weight + (1 - self.decay)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average, self.weight = state["average"], state["weight"]


class NoCritic:
    """Nothing tells what a state is worth: V is 0."""

    estimates, continuations, coef = False, 0, 0.0

    def attach(self, model: Any) -> list[nn.Parameter]:
        return []

    def states(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("no continuations are asked for")

    def measure(self, rollout: Rollout, model: Any) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(rollout.logprobs), torch.ones_like(rollout.mask)

    def loss(self, hidden: Tensor, before: Tensor, targets: Tensor) -> Tensor | None:
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class ValueHead:
    """V(s_t) = scale (w h_t + b) on the policy's hidden states, which it does not train; it starts at zero.

    Learns by `value_error` towards the returns that the advantages are made of, a mean over tokens, times `coef`. A
    step of Adam is as long whatever the gradient, so `scale` is how much faster V moves than a logit would.
    """

    estimates, continuations = True, 0

    def __init__(self, coef: Weight, clip: Weight, scale: Positive) -> None:
        self.coef, self.clip, self.scale = coef, clip, scale

    def attach(self, model: Any) -> list[nn.Parameter]:
        """Makes the head for this model; what is to be optimised with it."""
        like = next(model.parameters())
        self.head = nn.Linear(model.width, 1).to(like.device, like.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        return list(self.head.parameters())

    def values(self, hidden: Tensor) -> Tensor:
        """[B, T, D] -> [B, T]."""
        return self.scale * precise(self.head(hidden.detach()).squeeze(-1))

    def states(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("no continuations are asked for")

    def measure(self, rollout: Rollout, model: Any) -> tuple[Tensor, Tensor]:
        hidden = model(rollout.source, rollout.source_mask, rollout.actions).hidden
        return self.values(hidden).to(rollout.logprobs.dtype), torch.ones_like(rollout.mask)

    def loss(self, hidden: Tensor, before: Tensor, targets: Tensor) -> Tensor | None:
        return value_error(self.values(hidden), before, targets, self.clip)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.head.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.head.load_state_dict(state)


class Continuations:
    """V(s_t) = mean return of `continuations` episodes that the policy samples from s_t on, at every `stride`-th token.

    VinePPO, Kazemnejad et al. 2024 (arXiv:2410.01679), equation 8; its steps of a solution are `stride` tokens here.
    Unbiased, nothing to learn, and dear: tokens / stride * continuations further episodes for each.
    """

    estimates, coef = True, 0.0

    def __init__(self, continuations: Size, stride: Size) -> None:
        self.continuations, self.stride = continuations, stride

    def attach(self, model: Any) -> list[nn.Parameter]:
        return []

    def states(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and lengths of the prefixes to go on from, [M] each; mask [B, T]."""
        wanted = mask.clone()
        wanted[:, torch.arange(mask.shape[1], device=mask.device) % self.stride != 0] = False
        rows, lengths = wanted.nonzero(as_tuple=True)
        return rows, lengths

    def measure(self, rollout: Rollout, model: Any) -> tuple[Tensor, Tensor]:
        """From the judged continuations in a rollout: V [B, T] of every state of it, and where it was measured.

        Between two measured states V is that of the earlier. A state without a valid continuation is not measured.
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
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class AdaptiveKl:
    """beta <- beta (1 + rate clip(KL / target - 1, -0.2, 0.2)) after every rollout, KL in nats an episode; target 0
    leaves it as it is. Ziegler et al. 2019 (arXiv:1909.08593), section 2.2."""

    def __init__(self, coefficient: float, target: float, rate: float) -> None:
        if target > 0 and coefficient == 0:
            problem = f"has nothing to adapt, got {target} with algorithm.kl_coef=0, which no factor makes larger"
            raise UserError("algorithm.kl_target", problem, "algorithm.kl_target=0, or algorithm.kl_coef above 0")
        self.start = self.coefficient = coefficient
        self.target, self.rate = target, rate

    def observe(self, divergence: float) -> None:
        if self.target > 0:
            self.coefficient *= 1 + self.rate * min(max(divergence / self.target - 1, -0.2), 0.2)

    def state_dict(self) -> dict[str, Any]:
        return {"coefficient": self.coefficient, "start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Where the configured coefficient is another than it was, that counts: adaptation starts from it anew."""
        if state["start"] == self.start:
            self.coefficient = state["coefficient"]


def frozen_copy(module: Any) -> Any:
    """A copy that never learns."""
    copied = copy.deepcopy(module).requires_grad_(False).eval()
    for part in copied.modules():
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters()  # a copy's lie apart, and cuDNN would gather them at every call
    return copied


def differentiable(module: Any) -> Any:
    """The module, whose recurrent layers of torch's (RNN, GRU, LSTM) let a gradient through in evaluation mode.

    Policy gradients are taken in evaluation mode, where cuDNN refuses the backward pass of these layers. A layer that
    drops nothing computes the same in both modes, so for the length of a call it is one, in training mode.
    """
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part.register_forward_pre_hook(_begin_call)
            part.register_forward_hook(_end_call, always_call=True)
    return module


def _begin_call(layer: Any, inputs: Any) -> None:
    if torch.is_grad_enabled() and not layer.training:
        layer.dropout_elsewhere, layer.dropout, layer.training = layer.dropout, 0.0, True


def _end_call(layer: Any, inputs: Any, output: Any) -> None:
    if (dropout := layer.__dict__.pop("dropout_elsewhere", None)) is not None:
        layer.dropout, layer.training = dropout, False


@torch.no_grad()
def move(kept: nn.Module, learned: nn.Module, share: float) -> None:
    """The weights of `kept` go `share` of the way to those of `learned`: Polyak averaging."""
    if share > 0:
        for ours, theirs in zip(kept.parameters(), learned.parameters(), strict=True):
            ours.lerp_(theirs, share)


def asked(part: Callable[..., Any], **known: Any) -> Any:
    """Calls `part` with what it asks for by name, and no more."""
    return part(**{name: value for name, value in known.items() if name in needs(part)})


def needs(part: Callable[..., Any]) -> set[str]:
    """The facts that a part asks for: its parameters, less those that are bound already."""
    return set(inspect.signature(part).parameters)


def within(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The entries of a flat state whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
