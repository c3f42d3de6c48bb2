"""The error rates of two systems on the same utterances, by paired bootstrap over utterances and over speakers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenrl_cli.data.lines import json_object, read_lines
from tokenrl_cli.files import writing
from tokenrl_cli.files.records import read_json
from tokenrl_cli.interfaces import CorpusScore, UserError
from tokenrl_cli.metrics.saved_statistics import load
from tokenrl_cli.metrics.significance import FEWEST_BLOCKS, Difference, by_block, paired_bootstrap
from tokenrl_cli.report.error_table import NO_SPEAKER
from tokenrl_cli.report.evaluation_folder import file_name, settings_in
from tokenrl_cli.report.results import RESAMPLES, SEED

REMEDY = "name the folder of an evaluation, e.g. against=RUN/eval/test-greedy"


def evaluations(path: Path, split: str) -> list[Path]:
    """Returns the folders of evaluations of a split that `path` may stand for: itself if it is one, for a run those in
    its eval/. Raises UserError if there is none."""
    own = (settings_in(path) or {}).get("split")
    if own == split:
        return [path]
    if own is not None:
        raise UserError(f"against={path}", f"is an evaluation of the split {own}, not of {split}", REMEDY)
    inside = path / "eval"
    folders = sorted(inside.iterdir()) if inside.is_dir() else []
    found = [each for each in folders if (settings_in(each) or {}).get("split") == split]
    if not found:
        remedy = f"tokenrl eval ckpt={path} split={split} makes one" if path.is_dir() else REMEDY
        raise UserError(f"against={path}", f"has no evaluation of the split {split}", remedy)
    return found


def evaluation_of(path: Path, split: str, folder: Path) -> Path:
    """Returns the folder of the evaluation that `path` stands for (`evaluations`), to compare that in `folder` with,
    which it never is: of several the one of the same name. Raises UserError if there is none, or no such one of
    several."""
    name = folder.name
    found = [each for each in evaluations(path, split) if each.resolve() != folder.resolve()]
    if not found:
        problem = f"has no evaluation of the split {split} but {name}, which is the one to compare"
        raise UserError(f"against={path}", problem, REMEDY)
    chosen = [each for each in found if each.name == name] or found
    if len(chosen) > 1:
        several = ", ".join(each.name for each in chosen)
        raise UserError(f"against={path}", f"has several evaluations of {split}, none named {name}: {several}", REMEDY)
    return chosen[0]


def write_differences(folder: Path, other: Path) -> dict[str, Any]:
    """Returns the result of `differences`, which is written to against.json in `folder`, too."""
    found = differences(folder, other)
    writing.write(folder / "against.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return found


def differences(folder: Path, other: Path) -> dict[str, Any]:
    """Compares the error rates of the evaluation in `folder` with those of the one in `other`, on the same utterances.

    In the result, plain values for JSON, `metrics` has for each error rate of both the difference rate - other rate
    (below 0: `folder` makes fewer errors): `mean`, `low` and `high` of its 95 % interval, two-sided `p`, by a paired
    bootstrap over utterances; and under `speakers` the same over speakers, each drawn with all utterances, and their
    `number`. Interval and p are None where there are too few (30 utterances, 4 speakers), or no difference; `speakers`
    is None where the data name none. Raises UserError if the two were not evaluated on the same texts, if a rate was
    computed in two ways, if they have none in common, and where a file cannot be read.
    """
    here, there = (read_json(each / "results.json", "evaluation") for each in (folder, other))
    if here["settings"]["data"] != there.get("settings", {}).get("data"):
        problem = f"was not evaluated on the sources and references of {folder}"
        raise UserError(f"against={other}", problem, "evaluate both on the same split, with the same examples=")
    scores, others = load(folder / "statistics.npz"), load(other / "statistics.npz")
    names = [name for name in here.get("errors", {}) if name in others]
    if not names:
        raise UserError(f"against={other}", f"has no error rate that {folder} has", "evaluate both with metrics of one")
    metrics = {}
    for name in names:
        one, two = scores[name], others[name]
        if one.signature != two.signature:
            problem = f"{name} was computed as {two.signature}, and in {folder} as {one.signature}"
            raise UserError(f"against={other}", problem, "evaluate both in the same way")
        metrics[name] = _tested(one, two, _speakers(folder / file_name([name]) / "alignments.jsonl"))
    return {"against": str(other), "metrics": metrics}


def _speakers(file: Path) -> list[str] | None:
    """The speaker of each utterance in a file of alignments; None if none has one."""
    found = [
        json_object(line, f"{file}, line {number}").get("speaker") for number, line in enumerate(read_lines(file), 1)
    ]
    if all(each is None for each in found):
        return None
    return [NO_SPEAKER if each is None else each for each in found]


def _tested(one: CorpusScore, two: CorpusScore, speakers: list[str] | None) -> dict[str, Any]:
    found = _plain(paired_bootstrap(one, two, RESAMPLES, SEED))
    if speakers is None:
        return found | {"speakers": None}
    first, second = (by_block(each, speakers) for each in (one, two))
    tested = paired_bootstrap(first, second, RESAMPLES, SEED, FEWEST_BLOCKS)
    return found | {"speakers": {"number": len(first.sentences), **_plain(tested)}}


def _plain(difference: Difference) -> dict[str, float | None]:
    return {name: value for name, value in vars(difference).items() if name != "sacrebleu_p"}


def difference_lines(found: dict[str, Any]) -> list[str]:
    """Returns a line for each error rate in the result of `differences`, and one for its speakers."""
    lines = []
    for name, each in found["metrics"].items():
        lines.append(f"{name} less that of {found['against']}: {each['mean']:+.4g}{_interval(each)}, over utterances")
        if (speakers := each["speakers"]) is not None:
            lines.append(f"{name} difference{_interval(speakers)}, over {speakers['number']} speakers")
    return lines


def _interval(each: dict[str, Any]) -> str:
    if each["p"] is None:
        return "  no interval and no p (too few, or no difference)"
    return f"  95 % [{each['low']:+.4g}, {each['high']:+.4g}]  p {each['p']:.3f}"
