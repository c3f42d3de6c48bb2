"""`tokenrl generate ckpt=...`: decodes a file or standard input, one line in, one line out, in order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from tokenrl_cli.interfaces import Model
    from tokenrl_cli.train import Task


def run(config: DictConfig) -> None:
    from tokenrl_cli import assemble, checkpoint
    from tokenrl_cli.build import check
    from tokenrl_cli.commands.eval import with_overrides
    from tokenrl_cli.commands.keys import Generate, require_keys

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    require_keys(plain, Generate)
    saved = checkpoint.load(checkpoint.find(Path(plain["ckpt"]), ("best", "last")))
    whole = with_overrides(saved.config, saved.state["stage"], plain) | {"metrics": {}}
    check(whole, plain["imports"])
    assemble.use_threads(whole["trainer"]["threads"])
    device = assemble.device_of(plain["device"])
    precision = assemble.precision_of(plain["precision"])
    task = assemble.task_of(whole, plain["imports"], device, precision, plain["seed"], saved.tokenizer_dir)
    policy = assemble.policy_of(saved, whole, plain["imports"], task)
    source = _opened(plain["input"])
    with source as lines, _sink(plain["output"]) as out:
        for part, sources in enumerate(_chunks(lines, plain["batch_size"], plain["input"] or "standard input")):
            for text in decoded(policy, task, sources, part):
                out.write(" ".join(text.splitlines()) + "\n")
            out.flush()


def decoded(policy: Model, task: Task, sources: list[str], part: int) -> list[str]:
    """One text a source; the draws of a sampling decoder depend on the seed and on `part` alone."""
    from tokenrl_cli import streams
    from tokenrl_cli.batching import source_batch
    from tokenrl_cli.train import episodes

    batch = source_batch(sources, task.source_tokenizer, task.dataset.max_source_length).to(task.device)
    with task.numerics():
        rollout = episodes(policy, batch, task, task.decoding, streams.generator(task.seed, "generate", part))
    rows = zip(rollout.actions.tolist(), rollout.mask.sum(-1).tolist(), strict=True)
    return [task.tokenizer.decode(ids[:length]) for ids, length in rows]


def _opened(path: str | None) -> Any:
    from tokenrl_cli.interfaces import UserError

    if path is None:
        return nullcontext(sys.stdin)
    if not Path(path).is_file():
        raise UserError(f"input={path}", "there is no such file", "give a text file, one source a line")
    return Path(path).open(encoding="utf-8")


def _sink(path: str | None) -> Any:
    from tokenrl_cli.interfaces import UserError

    if path is None:
        return nullcontext(sys.stdout)
    if Path(path).exists():
        raise UserError(f"output={path}", "exists already", "name a new file, or remove that one")
    return Path(path).open("w", encoding="utf-8")


def _chunks(lines: Any, size: int, name: str) -> Iterator[list[str]]:
    from tokenrl_cli.interfaces import UserError

    try:
        while chunk := [line.rstrip("\r\n") for line in islice(lines, size)]:
            yield chunk
    except UnicodeDecodeError as error:
        raise UserError(name, f"is not UTF-8 text: {error}", "convert it, e.g. with iconv") from None
