"""Heads that compute Q-values and state values. Every head starts at zero, and reads the hidden states of a model.

Shapes: H heads, D hidden, V vocabulary; `...` is any number of leading dimensions, as [B, T + 1] or [M].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tokenrl_cli.config.ranges import Positive, Size, SizeOrZero
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import ModelModule, SettingError, Tokenizer

Project = Callable[[Tensor], Tensor]  # hidden [..., D] -> what the model's own logits say of values [..., V]


class Head(nn.Module):
    """Values from hidden states: a `QHead` has a value for each token, a `ScalarHead` one number for a state."""

    lr_factor: float = 1.0  # learning rate of its parameters over that of the model's


class QHead(Head):
    """Q-values: called with hidden [..., D] and `project` it returns Q [H, ..., V], H separate estimates."""


class Linear(QHead):
    """`count` linear heads, Q_h(s, a) = w_{h,a} x + b_{h,a}, where x is the hidden state of s.

    With `layer` > 0, x is a layer of `layer` times D units and a ReLU on it, one for each head, initialised at random
    and trained with it. Two heads that start at zero on the same x get the same gradients and stay equal for ever, so
    `count` above 1 needs it: the constructor raises UserError without.
    """

    def __init__(
        self, model: ModelModule, tokenizer: Tokenizer, count: Size, layer: SizeOrZero, lr_factor: Positive
    ) -> None:
        super().__init__()
        if count > 1 and layer == 0:
            raise SettingError("layer", f"must be at least 1 with {count} heads, got 0")
        self.lr_factor = lr_factor
        like = next(model.parameters())
        layers = [nn.Sequential(nn.Linear(model.width, layer * model.width), nn.ReLU()) for _ in range(count) if layer]
        outputs = [zeroed(nn.Linear((layer or 1) * model.width, tokenizer.size)) for _ in range(count)]
        self.layers = nn.ModuleList(layers).to(like.device, like.dtype)
        self.outputs = nn.ModuleList(outputs).to(like.device, like.dtype)

    def forward(self, hidden: Tensor, project: Project) -> Tensor:
        """Returns Q of hidden states, [..., D] -> [H, ..., V], H = `count`, in float32 or float64. `project` is not
        read. Gradients flow into `hidden` and the heads."""
        inputs = [layer(hidden) for layer in self.layers] or [hidden]
        return torch.stack([precise(output(each)) for output, each in zip(self.outputs, inputs, strict=True)])


class Dueling(QHead):
    """Q(s, a) = V(s) + A(s, a) - mean_b A(s, b). Wang et al. 2016 (arXiv:1511.06581, equation 9)."""

    def __init__(self, model: ModelModule, tokenizer: Tokenizer, lr_factor: Positive) -> None:
        super().__init__()
        self.lr_factor = lr_factor
        like = next(model.parameters())
        self.value = zeroed(nn.Linear(model.width, 1)).to(like.device, like.dtype)
        self.advantage = zeroed(nn.Linear(model.width, tokenizer.size)).to(like.device, like.dtype)

    def forward(self, hidden: Tensor, project: Project) -> Tensor:
        """Returns Q of hidden states, [..., D] -> [1, ..., V], in float32 or float64. `project` is not read. Gradients
        flow into `hidden` and the head."""
        advantage = precise(self.advantage(hidden))
        return (precise(self.value(hidden)) + advantage - advantage.mean(-1, keepdim=True)).unsqueeze(0)


class Logits(QHead):
    """Q(s, a) = temperature * logits(s, a) + level(s): the model's own logits are its values.

    softmax(Q / temperature) is then the policy as it was before. A softmax does not depend on the level of the logits,
    but V does. The level has a head of its own, whose `lr_factor` is large because it has far to go.
    """

    def __init__(self, model: ModelModule, lr_factor: Positive) -> None:
        super().__init__()
        self.lr_factor = lr_factor
        self.level = ScalarHead(model, lr_factor)

    def forward(self, hidden: Tensor, project: Project) -> Tensor:
        """Returns Q of hidden states, project(hidden) + level(hidden), [..., D] -> [1, ..., V], in float32 or float64.
        `project` must map hidden states to temperature * logits [..., V]. Gradients flow into `hidden`, into the head's
        own layer for the level and, through `project`, into the model's output layer."""
        values: Tensor = (precise(project(hidden)) + self.level(hidden).unsqueeze(-1)).unsqueeze(0)
        return values


class ScalarHead(Head):
    """One number for a state, w x + b with x its hidden state; w and b start at 0."""

    def __init__(self, model: ModelModule, lr_factor: float) -> None:
        super().__init__()
        self.lr_factor = lr_factor
        like = next(model.parameters())
        self.linear = zeroed(nn.Linear(model.width, 1)).to(like.device, like.dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the number for each hidden state, [..., D] -> [...], in float32 or float64. Gradients flow into
        `hidden` and the head."""
        return precise(self.linear(hidden).squeeze(-1))


def refuse_logits(head: QHead) -> None:
    """Raises SettingError, a UserError, if `head` is a `Logits`, which takes Q from the model's logits: only soft
    Q-learning can learn such values."""
    if isinstance(head, Logits):
        problem = "log-probabilities are no values here: the policy would begin as a power of the warm start"
        remedy = "algorithm/head=linear, or algorithm=soft_q algorithm/head=logits algorithm/prior=uniform"
        raise SettingError("/head=logits", problem, remedy)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Sets weight and bias of a layer, which must have a bias, to 0, in place, and returns the same layer."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
