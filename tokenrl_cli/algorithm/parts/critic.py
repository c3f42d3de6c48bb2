"""Critics of policy gradients: where V(s_t), the expected return from a state on, comes from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Positive, Size, Weight
from tokenrl_cli.functional.masking import masked_rows
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.functional.value import value_error
from tokenrl_cli.interfaces import CONTINUATION, Rollout


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
        hidden = model(rollout.source, rollout.source_mask, rollout.actions, rollout.source_row).hidden
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
