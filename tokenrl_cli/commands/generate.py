"""`tokenrl generate ckpt=...`: decodes a file or standard input, one line of output per line of input, in order.

A blank line gives a blank line. For a model of speech the lines name audio files, or `input` is one, or a pattern. With
`split=NAME` the sources of a split are decoded, with `samples=N` N empty sources.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from tokenrl_cli.data.counts import Unread
    from tokenrl_cli.interfaces import Dataset, Finding, Model, Rollout, Source
    from tokenrl_cli.run.checkpoint import Checkpoint
    from tokenrl_cli.run.task import GenerationTask


def run(config: DictConfig) -> None:
    """Decodes the sources that the config names (a file, standard input, a split, or N empty ones) and writes the
    texts, one a line, to `output` or standard output, in their order, flushed after each batch. A blank line of the
    input gives an empty one. Notes go to standard error. Called by Hydra, on whose state (HydraConfig) it depends.
    Raises UserError for a mistake of the user's, OSError if the system refuses; a file `output` is then not made."""
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commandline.earlier_run import typed_values
    from tokenrl_cli.commands.eval import refuse_unsafe_data
    from tokenrl_cli.commands.keys import Generate, require_keys
    from tokenrl_cli.config.build import build
    from tokenrl_cli.data.counts import Unread
    from tokenrl_cli.data.lines import one_line
    from tokenrl_cli.interfaces import Dataset, Features, UserError
    from tokenrl_cli.run import assembly, checkpoint

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    require_keys(plain, Generate)
    require_input(plain["input"], plain["split"], plain["samples"])
    require_output(plain["output"])
    saved = checkpoint.load(checkpoint.find(Path(plain["ckpt"]), ("best", "last")))
    named = typed_values(HydraConfig.get().overrides.task)
    whole, task, idle = prepare(plain, saved, HydraConfig.get().overrides.task)
    for finding in idle:
        print(f"{finding.severity}: {finding.text}", file=sys.stderr)
    policy = assembly.policy_of(saved, whole, plain["imports"], task)
    dataset = None
    if plain["split"] is not None:
        read = {"dataset": whole["dataset"], "data_root": plain["data_root"]}
        refuse_unsafe_data(read, saved.config, named)
        dataset = build(whole["dataset"], Dataset, plain["imports"], seed=plain["seed"])
    unread = Unread(task.source_reader, task.max_source_length)
    with _sink(plain["output"]) as out:
        if dataset is not None:
            sources = of_split(dataset, plain["split"])
        elif isinstance(task.source_reader, Features):
            if plain["samples"] is not None:
                problem = "is of models of unconditional text, and this one reads recordings"
                raise UserError(f"samples={plain['samples']}", problem, "name audio files with input=")
            sources = recordings_of(plain["input"])
        else:
            sources = sources_of(plain["input"], plain["samples"])
        for part, chunk in enumerate(_chunks(sources, plain["batch_size"])):
            for text in decoded(policy, task, chunk, part, unread):
                out.write(one_line(text) + "\n")
            out.flush()  # a pipe gets each batch as soon as it is decoded
    name, wanted = task.decoding.name, plain["samples"] or 1
    if wanted > 1 and name != "sample":
        text = f"{name} decoding gives the same text {wanted:,} times; decode=sample gives different ones"
        print(text, file=sys.stderr)
    if sentence := unread.sentence():
        print(sentence, file=sys.stderr)


def prepare(
    plain: dict[str, Any], saved: Checkpoint, line: Sequence[str]
) -> tuple[dict[str, Any], GenerationTask, list[Finding]]:
    """Returns the config of the checkpoint `saved` with the blocks of `plain`, the resolved config of `generate`, in
    place of its own (see `eval.with_overrides`); the task to generate with; and notes on settings without effect. Sets
    torch's number of threads.

    Raises UserError if a block is wrong or cannot be built, if one of the overrides `line` sets a setting without
    effect, and if the model lies where only the checkpoint's config says (`eval.refuse_unsafe_data`).
    """
    from tokenrl_cli.commandline.earlier_run import typed_values
    from tokenrl_cli.commands.eval import refuse_unsafe_data, with_overrides
    from tokenrl_cli.commands.idle import idle_findings
    from tokenrl_cli.config.build import check
    from tokenrl_cli.run import assembly

    whole = with_overrides(saved.config, saved.state["stage"], plain)
    check({name: whole[name] for name in assembly.blocks_to_generate(whole, saved.state["stage"])}, plain["imports"])
    refuse_unsafe_data({"model": whole["model"], "data_root": plain["data_root"]}, saved.config, typed_values(line))
    assembly.use_threads(whole["trainer"]["threads"])
    device = assembly.device_of(plain["device"])
    precision = assembly.precision_of(plain["precision"])
    trust, seed = plain["imports"], plain["seed"]
    task = assembly.generation_task_of(whole, trust, device, precision, seed, saved.tokenizer_dir)
    return whole, task, idle_findings(whole, task.decoding, line)


def rollout_from(policy: Model, task: GenerationTask, sources: list[Source], part: int, unread: Unread) -> Rollout:
    """Decodes one episode for each of N sources: a Rollout of N rows in their order, without rewards. Adds to `unread`
    how many sources are cut, and how many of their tokens are unknown. `policy` must be in evaluation mode. Raises
    NonFinite if a probability is not finite.

    `part` is the number of the batch: with it and the seed the draws of a sampling decoder are determined.
    """
    from tokenrl_cli import streams
    from tokenrl_cli.data.batching import source_batch
    from tokenrl_cli.run.evaluation import decode

    batch = source_batch(sources, task.source_reader, task.max_source_length, unread).to(task.device)
    with task.numerics():
        return decode(policy, batch, task, task.decoding, streams.generator(task.seed, "generate", part))


def decoded(policy: Model, task: GenerationTask, sources: list[Source | None], part: int, unread: Unread) -> list[str]:
    """Decodes one text for each source, in their order, "" for None. `policy` must be in evaluation mode; `part` is the
    number of the batch, which with the seed of the task determines the draws. Adds to `unread` what of the sources is
    cut or unknown. Raises NonFinite if a probability is not finite."""
    present = [source for source in sources if source is not None]
    if not present:
        return [""] * len(sources)
    rollout = rollout_from(policy, task, present, part, unread)
    rows = zip(rollout.actions.tolist(), rollout.mask.sum(-1).tolist(), strict=True)
    texts = iter([task.tokenizer.decode(ids[:length]) for ids, length in rows])
    return ["" if source is None else next(texts) for source in sources]


def of_split(dataset: Dataset, split: str) -> Iterator[Source | None]:
    """Returns an iterator over the sources of a split, in order, each read when it is needed. Raises UserError at once
    if the split does not exist or is unlimited."""
    from tokenrl_cli.data.splits import require_split
    from tokenrl_cli.interfaces import UserError

    require_split(dataset, split)
    size = dataset.size(split)
    if size is None:
        raise UserError(f"split={split}", "is unlimited and cannot be decoded whole", "split=val or split=test")
    return (dataset.example(split, index).source for index in range(size))


def recordings_of(path: str | None) -> Iterator[Source | None]:
    """Returns an iterator over recordings to decode: the audio file `path`; the audio files that match it, sorted by
    name, where it is a pattern such as *.wav; else those that its lines name, relative to its own folder. With None the
    lines of standard input name them, relative to the current directory. None for a blank line. Raises UserError where
    it is read and an audio file is missing, or cannot be read."""
    from tokenrl_cli.data.audio import ENDINGS, recording_of
    from tokenrl_cli.data.lines import holds_nul, read_lines, standard_input

    place = Path(path or "")
    if path is not None and not place.exists():
        return (recording_of(Path(each)) for each in sorted(glob.glob(path, recursive=True)))
    if place.suffix.lower() in ENDINGS or (path is not None and holds_nul(place)):
        return iter([recording_of(place)])
    lines = standard_input() if path is None else read_lines(place)
    return (recording_of(place.parent / line.strip()) if line.strip() else None for line in lines)


def require_input(path: str | None, split: str | None, samples: int | None) -> None:
    """Raises UserError if more than one of the keys input, split and samples is given (is not None), if the input file
    does not exist or is a folder, or if none is given and standard input is closed."""
    from tokenrl_cli.data.lines import require_open
    from tokenrl_cli.interfaces import UserError

    keys = {"input": path, "split": split, "samples": samples}
    typed = [f"{key}={value}" for key, value in keys.items() if value is not None]
    if len(typed) > 1:
        raise UserError(typed[1], f"cannot be given with {typed[0]}: both say what to decode", "leave one of them out")
    if not typed:
        require_open()
    if path is not None and not Path(path).exists() and not glob.glob(path, recursive=True):
        raise UserError(f"input={path}", "there is no such file", "give a text file, one source a line")
    if path is not None and Path(path).is_dir():
        remedy = "give a text file, one source a line, or for speech a pattern: input='FOLDER/*.wav'"
        raise UserError(f"input={path}", "is a folder", remedy)


def sources_of(path: str | None, samples: int | None) -> Iterator[str | None]:
    """Returns an iterator over the lines of a file, or of standard input if `path` is None, as they arrive, without
    line breaks, None for a blank one; with `samples` over that many empty sources instead. Raises UserError while it is
    read if the text is not UTF-8 or cannot be read."""
    from tokenrl_cli.data.lines import read_lines, standard_input
    from tokenrl_cli.interfaces import UserError

    if samples is not None:
        return repeat("", samples)
    if path is not None and not Path(path).exists():
        raise UserError(f"input={path}", "names several files, and texts are read from one", "name one text file")
    lines = standard_input() if path is None else read_lines(Path(path))
    return (line if line.strip() else None for line in lines)


def require_output(path: str | None) -> None:
    """Checks an output path before any work: raises UserError if anything exists there, a link included, or if its
    folder is missing; OSError if nothing can be written to the folder. None, standard output, is always accepted.
    Leaves no file."""
    from tokenrl_cli.files.writing import require_room
    from tokenrl_cli.interfaces import UserError

    if path is None:
        return
    if os.path.lexists(path):
        raise UserError(f"output={path}", "exists already", "name a new file, or remove that one")
    if not Path(path).parent.is_dir():
        raise UserError(f"output={path}", f"there is no folder {Path(path).parent}", "make it, or name another file")
    require_room(Path(path).parent)


def _sink(path: str | None) -> Any:
    """A context that gives standard output, or a file that gets its name only when all of it is written."""
    from tokenrl_cli.files.writing import whole

    if path is None:
        return nullcontext(sys.stdout)
    return whole(Path(path), replaces=False)


def _chunks(sources: Iterator[Source | None], size: int) -> Iterator[list[Source | None]]:
    """Yields the sources in lists of `size`, the last one shorter."""
    while chunk := list(islice(sources, size)):
        yield chunk
