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
    from tokenrl_cli.interfaces import Dataset, Model
    from tokenrl_cli.train import Task


def run(config: DictConfig) -> None:
    from tokenrl_cli import assemble, checkpoint
    from tokenrl_cli.build import check
    from tokenrl_cli.commands.eval import with_overrides
    from tokenrl_cli.commands.keys import Generate
    from tokenrl_cli.interfaces import UserError

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(plain, plain["imports"], Generate)
    if plain["split"] and plain["input"]:
        problem = f"names the sources to decode, and so does input={plain['input']}"
        raise UserError(f"split={plain['split']}", problem, "leave one of them out")
    saved = checkpoint.load(checkpoint.find(Path(plain["ckpt"]), ("best", "last")))
    whole = with_overrides(saved.config, saved.state["stage"], plain) | {"metrics": {}}
    check(whole, plain["imports"])
    assemble.use_threads(whole["trainer"]["threads"])
    device = assemble.device_of(plain["device"])
    precision = assemble.precision_of(plain["precision"])
    task = assemble.task_of(whole, plain["imports"], device, precision, plain["seed"], saved.tokenizer_dir)
    policy = assemble.policy_of(saved, whole, plain["imports"], task)
    source = _sources(task.dataset, plain["split"]) if plain["split"] else _opened(plain["input"])
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


def _sources(dataset: Dataset, split: str) -> Any:
    """The sources of a split, in its order."""
    from tokenrl_cli.interfaces import UserError
    from tokenrl_cli.splits import require_split

    require_split(dataset, split)
    size = dataset.size(split)
    if size is None:
        raise UserError(f"split={split}", "is unlimited: it has no end to be decoded to", "split=val or split=test")
    return nullcontext(dataset.example(split, index).source for index in range(size))


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
