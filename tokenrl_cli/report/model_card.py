"""The README.md of an exported model: what it is, how it was trained, and what it scored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenrl_cli.files.records import yaml_text

BLOCKS = (
    "model", "dataset", "features", "tokenizer", "source_tokenizer", "reward", "metrics", "credit",
    "warm_start", "algorithm",
)  # fmt: skip


def front_matter(library: str | None, tags: Sequence[str]) -> list[str]:
    """Returns the lines of YAML that a hub reads at the head of a model card, between two lines "---": `library` under
    library_name (None: left out) and the tags; an empty line comes last."""
    content: dict[str, Any] = {"library_name": library} if library else {}
    return ["---", *yaml_text(content | {"tags": list(tags)}).splitlines(), "---", ""]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Returns the lines of a Markdown table, and an empty line after it; `head` and each of `rows` have the same number
    of cells. Cells are written by `str`, in one line each, with "|" escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(_cell, line))} |" for line in lines] + [""]


def _cell(value: Any) -> str:
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").strip()


def number(value: float | None) -> str:
    """Returns a number as a table shows it, with four significant digits; "nan" for None."""
    return "nan" if value is None else f"{value + 0.0:.4g}"


def interval(entry: dict[str, Any]) -> str:
    """Returns the 95 % interval in an entry with "low" and "high" as text, "[LOW, HIGH]"; "" where there is none."""
    return "" if entry.get("low") is None else f"[{number(entry['low'])}, {number(entry['high'])}]"


def scores(evaluations: Sequence[dict[str, Any]], results: dict[str, Any] | None, step: int, command: str) -> list[str]:
    """Returns the lines of the section on the scores of the model that was saved after `step` steps of its run.

    `evaluations` are the contents of results.json of evaluations of that model, `results` is the content of
    results.json of its run, None where the run has not ended. Where there is no evaluation, the section names
    `command`, which makes one.
    """
    lines = ["## Scores", ""]
    rows = [
        (name, number(each["value"]), interval(each), f"{found['split']}, {found['examples']} examples",
         settings_in_short(found["decode"]), each["signature"])
        for found in evaluations
        for name, each in found["metrics"].items()
    ]  # fmt: skip
    if rows:
        lines += table(["metric", "value", "95 % interval", "split", "decoding", "signature"], rows)
    if results is not None:
        lines += _results(results, step)
    if not rows:
        lines += [f"`{command}` measures it with intervals; export it again afterwards.", ""]
    return lines


def settings_in_short(decode: Any) -> str:
    """Returns a decoding, a block of a config, as text: KEY=VALUE between commas, without keys that begin with "_". Of
    anything but a dictionary it is str(decode)."""
    if not isinstance(decode, dict):
        return str(decode)
    return ", ".join(f"{key}={value}" for key, value in decode.items() if not key.startswith("_"))


def _results(results: dict[str, Any], step: int) -> list[str]:
    """The numbers on test in results.json of a run: of this model, and what the RL stage added by its end."""
    names = [name for name in ("best", "final", "warm_start") if results["steps"].get(name) == step]
    lines = []
    if names:
        rows = [(name, number(value)) for name, value in results["test"][names[0]].items() if "/" not in name]
        lines += [
            f"On test at the end of the run, {results['decode']} decoding:",
            "",
            *table(["metric", "value"], rows),
        ]
    differences = [
        (name, number(each["mean"]), interval(each), number(each["p"]) if each["p"] is not None else "")
        for name, each in results["difference"].items()
    ]
    last = "this model" if results["steps"].get("final") == step else f"step {results['steps'].get('final')}"
    lines += [f"What reinforcement learning added on test: the end of the run ({last}) less the warm start:", ""]
    return lines + table(["metric", "difference", "95 % interval", "p"], differences)


def training(config: dict[str, Any], step: int, stage: str, line: Sequence[str]) -> list[str]:
    """Returns the lines of the section on the training: step and stage ("warm_start" or "train") of the checkpoint, the
    overrides `line` as typed, and the blocks of `config`, that of the checkpoint. Absolute paths are shown by their
    last part alone, for a card is made to be published."""
    what = {"warm_start": "cross-entropy (the warm start)", "train": "reinforcement learning"}[stage]
    blocks: dict[str, Any] = {name: config[name] for name in BLOCKS if config.get(name)}
    blocks |= {name: config[name] for name in ("trainer", "decode", "seed") if name in config}
    lines = ["## Training", "", f"Saved after step {step} of the run, in the stage of {what}.", ""]
    if line:
        lines += ["```sh", " ".join(["tokenrl train", *(without_folders(each) for each in line)]), "```", ""]
    return [*lines, "```yaml", *yaml_text(without_folders(blocks)).splitlines(), "```", ""]


def without_folders(value: Any) -> Any:
    """Returns a value, or a copy of a config, in which each text that is an absolute path, or one that begins with "~",
    is replaced by its last part, also after the "=" of an override."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    key, equals, rest = value.partition("=")
    head, path = (f"{key}=", rest) if equals and re.fullmatch(r"[\w.@/+~]+", key) else ("", value)
    plain = path.strip("'\"")
    is_path = plain.startswith((os.sep, "~")) and "\n" not in plain
    return f"{head}{Path(plain).name}" if is_path else value


def tensors(shapes: Iterable[tuple[str, Sequence[int], str]]) -> list[str]:
    """Returns the lines of the section on the tensors of a file: `shapes` yields (name, shape, type as text) of
    each."""
    rows = [(f"`{name}`", f"[{', '.join(map(str, shape))}]", kind) for name, shape, kind in shapes]
    return ["## Tensors", "", *table(["name", "shape", "type"], rows)]
