"""Collects the facts for the line that describes a run at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenrl_cli.interfaces import Features
from tokenrl_cli.report.run_header import RunHeader

if TYPE_CHECKING:
    from torch import nn

    from tokenrl_cli.run.task import Task


def run_header(config: dict[str, Any], task: Task, model: nn.Module) -> RunHeader:
    """Returns the facts of a run for the line that describes it at its start, from its whole resolved config, its task
    and its model.

    `parameters` is the number of weights of the whole model, frozen ones included, and `learning` of those that require
    a gradient; shared ones are counted once. A data set that is read from files is named by its `path`, any other by
    its module.
    """
    trainer, block = config["trainer"], config["dataset"]
    sizes = (("warm_start", "warm_start_steps", "warm_start_batch_size"), ("train", "steps", "batch_size"))
    return RunHeader(
        parameters=sum(each.numel() for each in model.parameters()),
        learning=sum(each.numel() for each in model.parameters() if each.requires_grad),
        vocabulary=task.tokenizer.size,
        source_vocabulary=_source_vocabulary(task),
        data=str(block.get("path") or block["_target_"].split(".")[-2]),
        examples=task.dataset.size("train"),
        stages=tuple((name, trainer[steps], trainer[size]) for name, steps, size in sizes),
        device=str(task.device),
        precision=trainer["precision"],
        seed=task.seed,
    )


def _source_vocabulary(task: Task) -> int | None:
    """The number of source tokens; None where one vocabulary serves both sides, and for recordings."""
    reader = task.source_reader
    return None if reader is task.tokenizer or isinstance(reader, Features) else reader.size
