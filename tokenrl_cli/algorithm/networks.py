"""Operations on whole networks: frozen copies, Polyak averaging, and two models that act as one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenrl_cli.interfaces import ModelModule, ModelOutput, Rollout, State


def frozen_copy(module: Any) -> Any:
    """Returns a deep copy of a torch.nn.Module in evaluation mode, whose parameters require no gradient. The module
    itself stays as it is.

    Parameters that require no gradient in `module`, because they are frozen or lie under an adapter, are the same
    objects in the copy: no optimiser changes them, and a copy of an adapted model is as small as its adapter. So a
    copy of a copy shares all of it. Those of torch's recurrent layers are copied all the same, for cuDNN keeps the
    weights of a layer together.
    """
    recurrent = (part for part in module.modules() if isinstance(part, nn.RNNBase))
    moved = {id(each) for part in recurrent for each in part.parameters()}
    shared = {id(each): each for each in module.parameters() if not each.requires_grad and id(each) not in moved}
    copied = copy.deepcopy(module, shared).requires_grad_(False).eval()
    for part in copied.modules():
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters()  # a copy's weights are not contiguous: cuDNN would gather them at every call
    return copied


def moving_copy(module: Any, share: float) -> Any:
    """Returns a `frozen_copy` of a module for `move`, which moves it by `share` at a time. Where `share` is neither 0
    nor 1 and parameters that move are bfloat16 or float16, the whole copy is float32: it would be rounded to where it
    was at every small move, and so would never move."""
    rounded = any(torch.finfo(each.dtype).bits < 32 for each in module.parameters() if each.requires_grad)
    if not rounded or share in (0.0, 1.0):
        return frozen_copy(module)
    return copy.deepcopy(module).float().requires_grad_(False).eval()


def differentiable(module: Any) -> Any:
    """Changes the recurrent layers of torch's in a torch.nn.Module (RNN, GRU, LSTM) so that a gradient flows through
    them in evaluation mode, and returns the same module.

    Policy gradients are taken in evaluation mode, where cuDNN refuses the backward pass of these layers. Without
    dropout a layer computes the same in both modes, so for the length of a call with gradients in evaluation mode it is
    switched to training mode, with its own dropout off. The outputs stay the same.
    """
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part.register_forward_pre_hook(_begin_call)
            part.register_forward_hook(_end_call, always_call=True)
    return module


def _begin_call(layer: Any, _inputs: Any) -> None:
    if torch.is_grad_enabled() and not layer.training:
        layer.dropout_elsewhere, layer.dropout, layer.training = layer.dropout, 0.0, True


def _end_call(layer: Any, _inputs: Any, _output: Any) -> None:
    if (dropout := layer.__dict__.pop("dropout_elsewhere", None)) is not None:
        layer.dropout, layer.training = dropout, False


def one_more_column(actions: Tensor) -> Tensor:
    """Returns a copy of actions [B, T], T at least 1, with a column of zeros at the end, [B, T + 1], so that a
    teacher-forced pass has T + 1 states, including the one after the last token. The zeros change no output, for a
    model reads a token only after the state in which it was generated."""
    return torch.cat([actions, torch.zeros_like(actions[:, :1])], 1)


def read_states(model: ModelModule, episodes: Rollout) -> ModelOutput:
    """Returns the model's output, in one teacher-forced pass, for every state of the episodes and for the one after the
    last column: hidden [B, T + 1, D], logits [B, T + 1, V], column t for the state before token t. Gradients flow; the
    model's mode is not changed."""
    output: ModelOutput = model(
        episodes.source, episodes.source_mask, one_more_column(episodes.actions), episodes.source_row
    )
    return output


@torch.no_grad()
def move(kept: nn.Module, learned: nn.Module, share: float) -> None:
    """Moves the parameters of `kept` (a target network), in place, by `share` (0 to 1) of the way to those of
    `learned`, which stay: Polyak averaging; 0 changes nothing, 1 copies. Parameters are paired in their order. Those
    that both share stay, and buffers are not moved. ValueError where the two have not as many parameters and `share` is
    above 0."""
    if share > 0:
        for ours, theirs in zip(kept.parameters(), learned.parameters(), strict=True):
            if ours is not theirs:
                ours.lerp_(theirs.to(ours.dtype), share)


Join = Callable[[ModelOutput, Any], Tensor]  # outputs of the first model and of the second, or None -> [..., V]


@dataclass(frozen=True)
class Both:
    """The states of two models that generate the same episodes; `second` is None where there is only one model."""

    first: State
    second: State | None

    def reorder(self, index: Tensor) -> Both:
        """Returns the states at `index` [M] int64, repeats allowed, of both models, or of the only one; do not use the
        old state afterwards. See `State.reorder`."""
        return Both(self.first.reorder(index), self.second and self.second.reorder(index))

    def repeat(self, times: int) -> Both:
        """Returns each state `times` times, its copies next to each other, of both models, or of the only one; do not
        use the old state afterwards. See `State.repeat`."""
        return Both(self.first.repeat(times), self.second and self.second.repeat(times))


class Composed(nn.Module):
    """A Model whose logits `join(first, second)` computes from the ModelOutput of a model and that of a second one, or
    None where there is no second.

    `values(first, second)`, where given, computes Q [..., V] from the same outputs, for `start_value` and
    `action_values`. Both models are submodules, so that evaluation mode reaches them. Their weights are shared, not
    copied. `width` and the hidden states are those of the first model.
    """

    def __init__(self, first: ModelModule, second: ModelModule | None, join: Join, values: Join | None = None) -> None:
        super().__init__()
        self.first, self.second, self.join, self.values, self.width = first, second, join, values, first.width

    def forward(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Teacher-forced pass of the first model, and of the second if there is one, over actions [B, T] int64; see
        `Model.__call__`. Returns hidden [B, T, D] of the first model, and logits [B, T, V] by `join`, computed at the
        first access. Gradients flow. `project` of the output gives these logits of all states, whatever it is called
        with.

        source [N, S] int64 or [N, S, F], source_mask [N, S] bool; source_row [B] int64 is the source of each row, None:
        N = B and row b has source b.
        """
        first = self.first(source, source_mask, actions, source_row)
        second = None if self.second is None else self.second(source, source_mask, actions, source_row)
        return ModelOutput(first.hidden, lambda _: self.join(first, second))

    def start(self, source: Tensor, source_mask: Tensor) -> Both:
        """Returns the states of the first model, and of the second if there is one, before the first token, one row for
        each of N sources, source [N, S] int64 or [N, S, F] with source_mask [N, S] bool."""
        second = None if self.second is None else self.second.start(source, source_mask)
        return Both(self.first.start(source, source_mask), second)

    def step(self, state: Any, previous: Tensor | None) -> tuple[ModelOutput, State]:
        """Generates one step of B episodes with the first model, and the second if there is one; see `Model.step`.
        Returns hidden [B, 1, D] of the first model with logits [B, 1, V] by `join`, and the state after the step.
        `previous` [B] int64 are the tokens generated last, None before the first. Take it that `state` cannot be used
        again, as the models may reuse its memory."""
        first, second, following = self._step(state, previous)
        return ModelOutput(first.hidden, lambda _: self.join(first, second)), following

    def _step(self, state: Any, previous: Tensor | None) -> tuple[ModelOutput, Any, Both]:
        first, left = self.first.step(state.first, previous)
        second, right = (None, None) if self.second is None else self.second.step(state.second, previous)
        return first, second, Both(left, right)

    def start_value(self, source: Tensor, source_mask: Tensor) -> Tensor | None:
        """Returns max_a Q(s_0, a) [N] of N sources, source [N, S] or [N, S, F] with source_mask [N, S] bool; None
        without `values`. Gradients flow. See `ValuedPolicy.start_value`."""
        if self.values is None:
            return None
        first, second, _ = self._step(self.start(source, source_mask), None)
        return self.values(first, second)[:, 0].amax(-1)

    def action_values(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> Tensor | None:
        """Returns Q(s_t, a_t) [B, T] of the actions [B, T] for source [B, S] or [B, S, F] with source_mask [B, S] bool,
        row b of each for row b of actions; None without `values`. Padding gets values without meaning. Gradients flow.
        See `ValuedPolicy.action_values`."""
        if self.values is None:
            return None
        first = self.first(source, source_mask, actions)
        second = None if self.second is None else self.second(source, source_mask, actions)
        return self.values(first, second).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
