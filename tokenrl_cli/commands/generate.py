"""`tokenrl generate ckpt=...`: decodes a file or standard input, one line in, one line out, in order.

A blank line gives a blank line. With `samples=N` nothing is read, and N texts are written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from tokenrl_cli.interfaces import Model
    from tokenrl_cli.train import Task
    from tokenrl_cli.unread import Unread


def run(config: DictConfig) -> None:
    from tokenrl_cli import assemble, checkpoint
    from tokenrl_cli.build import check
    from tokenrl_cli.commands.eval import with_overrides
    from tokenrl_cli.commands.keys import Generate
    from tokenrl_cli.lines import one_line
    from tokenrl_cli.unread import Unread

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(plain, plain["imports"], Generate)
    require_input(plain["input"], plain["samples"])
    saved = checkpoint.load(checkpoint.find(Path(plain["ckpt"]), ("best", "last")))
    whole = with_overrides(saved.config, saved.state["stage"], plain) | {"metrics": {}}
    check(whole, plain["imports"])
    assemble.use_threads(whole["trainer"]["threads"])
    device = assemble.device_of(plain["device"])
    precision = assemble.precision_of(plain["precision"])
    task = assemble.task_of(whole, plain["imports"], device, precision, plain["seed"], saved.tokenizer_dir)
    policy = assemble.policy_of(saved, whole, plain["imports"], task)
    unread = Unread(task.source_tokenizer.unknown_id, task.dataset.max_source_length)
    with _sink(plain["output"]) as out:
        sources = sources_of(plain["input"], plain["samples"])
        for part, chunk in enumerate(_chunks(sources, plain["batch_size"])):
            for text in decoded(policy, task, chunk, part, unread):
                out.write(one_line(text) + "\n")
            out.flush()
    name, wanted = task.decoding.name, plain["samples"] or 1
    if wanted > 1 and name != "sample":
        print(f"{name} decoding gives the same text {wanted:,} times; decode=sample draws them", file=sys.stderr)
    if said := unread.sentence():
        print(said, file=sys.stderr)


def decoded(policy: Model, task: Task, sources: list[str | None], part: int, unread: Unread) -> list[str]:
    """One text a source, "" for None; the draws of a sampling decoder depend on the seed and on `part` alone.

    What of the sources the model does not get to read is counted in `unread`.
    """
    from tokenrl_cli import streams
    from tokenrl_cli.batching import source_batch
    from tokenrl_cli.train import episodes

    given = [source for source in sources if source is not None]
    if not given:
        return [""] * len(sources)
    batch = source_batch(given, task.source_tokenizer, task.dataset.max_source_length, unread).to(task.device)
    with task.numerics():
        rollout = episodes(policy, batch, task, task.decoding, streams.generator(task.seed, "generate", part))
    rows = zip(rollout.actions.tolist(), rollout.mask.sum(-1).tolist(), strict=True)
    texts = iter([task.tokenizer.decode(ids[:length]) for ids, length in rows])
    return ["" if source is None else next(texts) for source in sources]


def require_input(path: str | None, samples: int | None) -> None:
    """Raises UserError, before anything is loaded, where there is nothing to read or two things are asked for."""
    from tokenrl_cli.interfaces import UserError
    from tokenrl_cli.lines import require_open

    if samples is None and path is None:
        require_open()
    if samples is not None and path is not None:
        problem = f"writes texts without a source, and input={path} has sources"
        raise UserError(f"samples={samples}", problem, "give one of the two")
    if samples is not None and samples < 1:
        raise UserError("samples", f"must be at least 1, got {samples}")
    if path is not None and not Path(path).exists():
        raise UserError(f"input={path}", "there is no such file", "give a text file, one source a line")
    if path is not None and Path(path).is_dir():
        raise UserError(f"input={path}", "is a folder", "give a text file, one source a line")


def sources_of(path: str | None, samples: int | None) -> Iterator[str | None]:
    """The lines of the input, as they come, None for a blank one; or `samples` empty sources."""
    from tokenrl_cli.lines import read_lines, standard_input

    if samples is not None:
        return repeat("", samples)
    lines = standard_input() if path is None else read_lines(Path(path))
    return (line if line.strip() else None for line in lines)


def _sink(path: str | None) -> Any:
    from tokenrl_cli.interfaces import UserError

    if path is None:
        return nullcontext(sys.stdout)
    if Path(path).exists():
        raise UserError(f"output={path}", "exists already", "name a new file, or remove that one")
    return Path(path).open("w", encoding="utf-8")


def _chunks(sources: Iterator[str | None], size: int) -> Iterator[list[str | None]]:
    while chunk := list(islice(sources, size)):
        yield chunk
