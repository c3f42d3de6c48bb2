"""A device that is not the CPU, on the CPU: what mixes the two fails, as it would on a GPU.

Its tensors are numbers of the CPU under another device's name. Every operation on them is looked at on its way: one
that reads a tensor of the device beside one of the CPU is refused where CUDA refuses it. A tensor of the CPU without
dimensions counts as a number, and places in a tensor of the device may be named by indices of the CPU.

    python -m tests.elsewhere COMMAND ...      runs `tokenrl COMMAND` there, each in quotes, one after another

It needs a function that torch calls experimental, and leaves its mark on the process: hence a process of its own.
"""

from __future__ import annotations

import shlex
import sys
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

NAME = "elsewhere"


class Distant(torch.Tensor):
    """A tensor of the CPU that says it is of the device."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Any:
        layout = {"strides": near.stride(), "storage_offset": near.storage_offset(), "dtype": near.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, near.size(), device=f"{NAME}:0", **layout)

    def __init__(self, near: torch.Tensor) -> None:
        self.near = near

    def tolist(self) -> Any:
        return self.near.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return performed(func, args, kwargs or {})


class Everywhere(TorchDispatchMode):
    """Sees, too, what makes a tensor of the device from nothing, or from one of the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return performed(func, args, kwargs or {})


def performed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU; its results are where CUDA would leave them."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    device = kwargs.get("device")
    distant = any(isinstance(x, Distant) for x in tensors)
    if distant:
        refuse_mixture(func, args, tensors)
    if device is not None:
        distant = torch.device(device).type == NAME
        kwargs = kwargs | {"device": torch.device("cpu")}
        if distant and kwargs.get("generator") is not None:
            raise RuntimeError(f"{func}: a generator of the CPU cannot draw on the device")
    near_args, near_kwargs = (tree_map(lambda x: x.near if isinstance(x, Distant) else x, y) for y in (args, kwargs))
    if func is torch.ops.aten._local_scalar_dense.default:
        return func(*near_args)
    result = func(*near_args, **near_kwargs)
    if func is torch.ops.aten.copy_.default:  # into wherever it is copied
        return args[0]
    if not distant:
        return result
    wrapped = tree_map(lambda x: Distant(x) if isinstance(x, torch.Tensor) else x, result)
    crossing = device is not None and not any(isinstance(x, Distant) for x in tensors)
    return wrapped if crossing else return_and_correct_aliasing(func, args, kwargs, wrapped)


def refuse_mixture(func: Any, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> None:
    """As CUDA does: tensors of the CPU beside those of the device, unless they are numbers, indices or copied."""
    near = [x for x in tensors if not isinstance(x, Distant)]
    aten = torch.ops.aten
    places = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
    if func is aten.copy_.default or (func in places and isinstance(args[0], Distant)):
        return
    numbers = torch.Tag.pointwise in func.tags or func in (aten.where.self, aten.masked_fill_.Tensor)
    if any(x.dim() > 0 or not numbers for x in near):
        shapes = ", ".join(f"{'device' if isinstance(x, Distant) else 'cpu'} {list(x.shape)}" for x in tensors)
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, got {shapes}")


def recurrent(cell: str, read: Any, hx: Any, weights: Any, bias: bool, layers: int, dropout: float, training: bool,
              both: bool, batch_first: bool) -> Any:  # fmt: skip
    """One layer of torch's RNN, GRU or LSTM in plain operations, with the rule of the GPU's library: no backward pass
    in evaluation mode."""
    assert bias
    assert layers == 1
    assert not both
    assert batch_first
    inner, outer, b_inner, b_outer = weights
    h = (hx[0] if cell == "lstm" else hx).squeeze(0)
    c = hx[1].squeeze(0) if cell == "lstm" else h
    said = []
    for t in range(read.shape[1]):
        x, y = read[:, t] @ inner.T + b_inner, h @ outer.T + b_outer
        if cell == "rnn_tanh":
            h = (x + y).tanh()
        elif cell == "gru":
            (r, z, n), (r2, z2, n2) = x.chunk(3, -1), y.chunk(3, -1)
            update, proposed = (z + z2).sigmoid(), (n + (r + r2).sigmoid() * n2).tanh()
            h = (1 - update) * proposed + update * h
        else:
            i, f, g, o = (x + y).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        said.append(h)
    output = torch.stack(said, 1)
    if output.requires_grad and not training:
        output.register_hook(refuse_backward)
    last = (output, h.unsqueeze(0))
    return (*last, c.unsqueeze(0)) if cell == "lstm" else last


def refuse_backward(gradient: Any) -> None:
    raise RuntimeError("cudnn RNN backward can only be called in training mode")


def registered() -> bool:
    """Makes the device known to torch. False where this torch cannot."""
    from torch.utils import backend_registration

    register = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if register is None:
        return False
    register(NAME)
    for cell in ("rnn_tanh", "gru", "lstm"):
        setattr(torch._VF, cell, partial(recurrent, cell))
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    return True


def main(commands: list[str]) -> int:
    from tokenrl_cli.cli import status
    from tokenrl_cli.run import assembly

    if not registered():
        print("this torch knows no device written in Python")
        return 77
    assembly.device_of = lambda name: torch.device(f"{NAME}:0")
    failed = 0
    for command in commands:
        with Everywhere():
            result = status(shlex.split(command))
        print(f"exit {result}: {command}", flush=True)
        failed += result != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
