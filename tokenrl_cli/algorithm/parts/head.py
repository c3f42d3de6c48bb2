"""Where Q-values and state values come from. Every head starts at zero, and reads the hidden states of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Positive, Size, SizeOrNone
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import SettingError, Tokenizer

Project = Callable[[Tensor], Tensor]  # hidden [..., D] -> what the model's own logits say of values [..., V]


class Linear(nn.Module):
    """Q(s, a) = w_a h + b_a, `count` times; with `layer` > 0 after a random layer of that many times D and a ReLU.

    Two heads on the same numbers would stay the same for ever: `count` above 1 needs the layer, which tells them apart.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, count: Size, layer: SizeOrNone) -> None:
        super().__init__()
        if count > 1 and layer == 0:
            raise SettingError("layer", f"must be at least 1 with {count} heads, got 0")
        like = next(model.parameters())
        inner = [nn.Sequential(nn.Linear(model.width, layer * model.width), nn.ReLU()) for _ in range(count) if layer]
        self.layers = nn.ModuleList(inner).to(like.device, like.dtype)
        width = (layer or 1) * model.width
        self.weight = nn.Parameter(torch.zeros(count, tokenizer.size, width, device=like.device, dtype=like.dtype))
        self.bias = nn.Parameter(torch.zeros(count, tokenizer.size, device=like.device, dtype=like.dtype))

    def forward(self, hidden: Tensor, project: Project) -> Tensor:
        """[..., D] -> [H, ..., V]."""
        read = [layer(hidden) for layer in self.layers] or [hidden]
        pairs = zip(read, self.weight, self.bias, strict=True)
        return torch.stack([precise(nn.functional.linear(each, weight, bias)) for each, weight, bias in pairs])


class Dueling(nn.Module):
    """Q(s, a) = V(s) + A(s, a) - mean_b A(s, b). Wang et al. 2016 (arXiv:1511.06581, equation 9)."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        super().__init__()
        like = next(model.parameters())
        self.value = zeroed(nn.Linear(model.width, 1)).to(like.device, like.dtype)
        self.advantage = zeroed(nn.Linear(model.width, tokenizer.size)).to(like.device, like.dtype)

    def forward(self, hidden: Tensor, project: Project) -> Tensor:
        """[..., D] -> [1, ..., V]."""
        advantage = precise(self.advantage(hidden))
        return (precise(self.value(hidden)) + advantage - advantage.mean(-1, keepdim=True)).unsqueeze(0)


class Logits(nn.Module):
    """Q(s, a) = temperature * logits(s, a) + level(s): the policy's own logits are its values.

    softmax(Q / temperature) is then the policy as it was before. What logits leave open, their level, means V here, and
    has a head of its own that learns `scale` times as fast as a logit, because it has far to go.
    """

    def __init__(self, model: Any, scale: Positive) -> None:
        super().__init__()
        self.level = Level(model, scale)

    def forward(self, hidden: Tensor, project: Project) -> Tensor:
        """[..., D] -> [1, ..., V]; `project` gives temperature * logits."""
        return (precise(project(hidden)) + self.level(hidden).unsqueeze(-1)).unsqueeze(0)


class Level(nn.Module):
    """One number a state: scale (w h + b). Adam's steps are as long whatever the gradient, so `scale` is its speed."""

    def __init__(self, model: Any, scale: float) -> None:
        super().__init__()
        like = next(model.parameters())
        self.scale, self.linear = scale, zeroed(nn.Linear(model.width, 1)).to(like.device, like.dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [...]."""
        return self.scale * precise(self.linear(hidden).squeeze(-1))


def own_values(head: nn.Module) -> None:
    """Refuses what is made for soft Q-learning."""
    if isinstance(head, Logits):
        problem = "log-probabilities are no values here: the policy would begin as a power of the warm start"
        remedy = "algorithm/head=linear, or algorithm=soft_q algorithm/head=logits algorithm/prior=uniform"
        raise SettingError("/head=logits", problem, remedy)


def zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
