"""`tokenrl eval ckpt=...`: decodes a split with a saved policy and scores the texts; without a run see
eval_model.py."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from tokenrl_cli.files import disk
from tokenrl_cli.run import directory

if TYPE_CHECKING:
    from tokenrl_cli.data.splits import Reader
    from tokenrl_cli.interfaces import Evaluation, Finding, Model
    from tokenrl_cli.report.display import Display
    from tokenrl_cli.report.error_table import ErrorReport
    from tokenrl_cli.run.checkpoint import Checkpoint
    from tokenrl_cli.run.task import Task

BLOCKS = ("dataset", "reward", "metrics", "algorithm", "decode")  # which the command line may change
READ = ("model", "dataset", "reward", "metrics", "data_root")  # which may name files
# keys that change the numbers; batch_size does, because sampled texts depend on the other texts of their batch
COUNTED = ("examples", "batch_size", "precision", "seed")


def run(config: DictConfig) -> float | None:
    """Evaluates the policy of `ckpt` on a split, shows every metric with its signature and a 95 % interval, and writes
    them to a folder in `out`, or else in RUN/eval/. Called by Hydra, on whose state (HydraConfig) it depends.

    The folder is named <split>-<decode> and after all settings that differ from the checkpoint's and the defaults, so
    that each job of a sweep over `algorithm.beta` or `decode.beam_size` gets its own; the step is added if it is not
    the checkpoint that RUN stands for. An evaluation only ever replaces the results of the same evaluation.

    Returns the value of the run's `trainer.monitor`, None if this evaluation does not have it. Raises UserError for a
    mistake of the user's, OSError if the results cannot be written.
    """
    from hydra.core.hydra_config import HydraConfig

    from tokenrl_cli.commandline.earlier_run import typed_values
    from tokenrl_cli.commands.eval_errors import error_reports, require_comparable, show_alignments, show_difference
    from tokenrl_cli.commands.keys import Eval, require_keys
    from tokenrl_cli.files.writing import require_room
    from tokenrl_cli.report.display import choose_display
    from tokenrl_cli.report.evaluation_folder import folder_for
    from tokenrl_cli.run import checkpoint

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    require_keys(plain, Eval)
    saved = checkpoint.load(checkpoint.find(Path(plain["ckpt"]), ("best", "last")))
    out = Path(plain["out"]) if plain["out"] else refuse_link(saved.path.parent.parent / "eval")
    require_room(out)
    require_comparable(plain["against"], plain["split"])
    _refuse_features(HydraConfig.get().overrides.task)
    examination = prepare(plain, saved, typed_values(HydraConfig.get().overrides.task))
    display = choose_display()
    try:
        progress = partial(display.evaluating, "eval", plain["split"], saved.step)
        evaluation = examination.evaluate(progress)
        settings = settings_of(saved, examination.config, plain, evaluation)
        folder = refuse_link(folder_for(out, parts_of(saved, plain, settings, evaluation.decode), settings))
        errors = error_reports(examination.task, evaluation)
        results = write(folder, evaluation, str(saved.path), settings, examination.findings, errors)
        show(display, evaluation, results)
        show_alignments(display, errors)
        show_difference(display, folder, plain["against"], plain["split"])
        if sentence := unread_tokens(evaluation, examination.task):
            display.message(sentence)
        stage = saved.state["stage"].replace("_", " ")
        display.message(f"step {saved.step} ({stage}), written to {folder}")
    finally:
        display.close()
    monitored = evaluation.metrics.get(examination.config["trainer"]["monitor"])
    return None if monitored is None else float(monitored)


@dataclass(frozen=True)
class Examination:
    """Everything that an evaluation of a policy needs, checked and built by `prepare`."""

    step: int  # of the checkpoint
    config: dict[str, Any]  # of the checkpoint, with the blocks of the command line in place of its own
    plain: dict[str, Any]  # of the command
    task: Task
    policy: Model
    findings: list[Finding]

    def evaluate(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Evaluation:
        """Decodes the split and scores the texts; `run.evaluation.evaluate` explains the numbers of the result. Writes
        and shows nothing. `progress(done, total)` is called before each batch and after the last one with the numbers
        of examples. Raises NonFinite if a probability is not finite, UserError if a reward or metric fails."""
        from tokenrl_cli.run.evaluation import evaluate

        split, examples, size = self.plain["split"], self.plain["examples"], self.plain["batch_size"]
        decoding = self.task.decoding
        return evaluate(self.policy, self.task, split, examples, size, decoding, "eval", self.step, progress)


def prepare(plain: dict[str, Any], saved: Checkpoint, named: dict[str, str]) -> Examination:
    """Builds the evaluation of the policy in the checkpoint `saved` that `plain`, the resolved config of `eval`,
    describes: task, policy and findings. Sets torch's number of threads and seeds its global generator.

    `named` holds the values typed on the command line, by key: they may name files outside data_root and the current
    directory that otherwise only the checkpoint's config names. Raises UserError for such a file that is not in
    `named`, for missing data or a missing split, for references that are needed and missing, for a setting in `named`
    that has no effect, and for components that do not fit each other.
    """
    from tokenrl_cli.config.build import check
    from tokenrl_cli.run import assembly

    whole = with_overrides(saved.config, saved.state["stage"], plain)
    blocks = assembly.blocks_to_evaluate(whole, saved.state["stage"])
    check({name: whole.get(name) for name in blocks}, plain["imports"])
    refuse_unsafe_data(whole, saved.config, named)
    task, findings = prepared(whole, plain, saved.tokenizer_dir, [f"{key}={value}" for key, value in named.items()])
    policy = assembly.policy_of(saved, whole, plain["imports"], task)
    return Examination(saved.step, whole, plain, task, policy, findings)


def prepared(
    whole: dict[str, Any], plain: dict[str, Any], tokenizers: Path | None, line: list[str]
) -> tuple[Task, list[Finding]]:
    """Returns the task of an evaluation, and the findings to show (notes on settings without effect, and on sampling).
    `whole` is the config to build from; where all sources are empty, so that texts are sampled, the block decode in it
    is replaced by one with the temperature and beam_size that are used then. `plain` is the resolved config of the
    command (split, examples, device, precision, seed, imports), `line` its overrides; `tokenizers` is the folder of
    saved tokenizers, None to read or train those of the config. Sets torch's number of threads. Raises UserError for
    missing data or a missing split, for references that are needed and missing, for a setting in `line` that has no
    effect, for components that do not fit each other, and for a saved run that scores texts and was trained from a
    pretrained model that may not be read (`refuse_outside_judges`)."""
    from tokenrl_cli.commandline.earlier_run import typed_values
    from tokenrl_cli.commandline.outside_data import refuse_outside_judges
    from tokenrl_cli.commands.idle import idle_findings
    from tokenrl_cli.data.splits import require_references, require_split
    from tokenrl_cli.run import assembly
    from tokenrl_cli.run.evaluation import decoding_for
    from tokenrl_cli.run.findings import sampling_findings

    refuse_outside_judges(whole, typed_values(line))
    assembly.use_threads(whole["trainer"]["threads"])
    device = assembly.device_of(plain["device"])
    precision = assembly.precision_of(plain["precision"])
    facts = (whole, plain["imports"], device, precision, plain["seed"], tokenizers)
    task = assembly.task_of(*facts, learns=False)
    require_split(task.dataset, plain["split"])
    assembly.split_sizes(task.dataset, [plain["split"]])
    require_references(task.dataset, _reference_readers(task, plain["split"]))
    found = sampling_findings(task, [plain["split"]], plain["examples"])
    idle = idle_findings(whole, task.decoding, line)
    if found:  # all sources are empty: sample, and record so in the settings
        task = replace(task, decoding=decoding_for(task, plain["split"], plain["examples"]))
        whole["decode"] = whole["decode"] | {key: getattr(task.decoding, key) for key in ("temperature", "beam_size")}
    return task, [*idle, *found]


def refuse_unsafe_data(whole: dict[str, Any], saved: dict[str, Any], named: dict[str, str]) -> None:
    """Raises UserError if model, dataset, reward, metrics or data_root of `whole`, the config to use, name an existing
    file outside the current directory and data_root that only `saved`, the config of the checkpoint, names
    (`refuse_outside_data`), or a relative path of `saved` that does not exist in the current directory
    (`refuse_missing`).

    `named` holds the values typed on the command line, by key, which are allowed.
    """
    from tokenrl_cli.commandline.outside_data import refuse_missing, refuse_outside_data

    read = {key: value for key, value in whole.items() if key in READ}
    refuse_outside_data(read, saved, named)
    refuse_missing(read, saved, saved.get("started_in"))


def _reference_readers(task: Task, split: str) -> list[Reader]:
    """The reward and the metrics of an evaluation that may read the references of the split."""
    from tokenrl_cli.data.splits import Reader
    from tokenrl_cli.episodes.scoring import name_of

    found = [Reader(f"metrics.{name}", metric, split, f"~metrics.{name}") for name, metric in task.metrics.items()]
    reward = f"reward={name_of(task.reward)}"
    return [Reader(reward, task.reward, split, "choose a reward that needs none: reward=NAME"), *found]


def show(display: Display, evaluation: Evaluation, results: dict[str, Any]) -> None:
    """Shows an evaluation with its first 2 texts, then each metric with its interval and signature, the table of errors
    of each error rate, and the findings. `results` is the content of results.json, as `write` returns it."""
    from tokenrl_cli.report.error_table import error_lines

    display.evaluation(evaluation, 2)
    for name, metric in results["metrics"].items():
        low, high = metric["low"], metric["high"]
        interval = "" if low is None else f"  95 % [{low + 0.0:.4g}, {high + 0.0:.4g}]"
        value = "nan" if metric["value"] is None else f"{metric['value'] + 0.0:.4g}"
        display.message(f"{name} {value}{interval}  {metric['signature']}")
    for name, summary in results["errors"].items():
        for line in error_lines(summary, name):
            display.message(line)
    for finding in results["findings"]:
        display.message(f"{finding['severity']}: {finding['text']}")


def unread_tokens(evaluation: Evaluation, task: Task) -> str:
    """Returns a sentence on how many of the sources were cut, how many of their tokens are unknown to the model, and
    how many tokens of the references are unknown, which makes `nll` and `perplexity` unreliable; "" if there are
    none."""
    from tokenrl_cli.data.counts import Unread, unknown_share
    from tokenrl_cli.data.encoding import encoded_sources

    counts = Unread(task.source_reader, task.dataset.max_source_length)
    sources = [task.dataset.example(evaluation.split, i).source for i in range(len(evaluation.sources))]
    counts.add(encoded_sources(task.source_reader, sources, counts.limit))
    found = [sentence] if (sentence := counts.sentence()) else []
    if task.tokenizer.unknown_id is not None:
        ids = [i for references in evaluation.references for text in references for i in task.tokenizer.encode(text)]
        if unknown := ids.count(task.tokenizer.unknown_id):
            found.append(f"{unknown_share(unknown, len(ids), 'reference')} unknown")
    return "; ".join(found)


# ------------------------------------------------------------------------------------------- what was evaluated, where


def settings_of(
    saved: Checkpoint, whole: dict[str, Any], requested: dict[str, Any], evaluation: Evaluation
) -> dict[str, Any]:
    """Returns all settings that the numbers of an evaluation depend on, as plain JSON values, to tell whether two
    evaluations can be compared.

    `saved` is the checkpoint, `whole` its config with the blocks that the command changed (`Examination.config`),
    `requested` the resolved config of `eval`, `evaluation` its result, of which the sources and references are read.
    Paths in the block dataset that lie below data_root are written relative to it, so that data in another place count
    as the same.

    `weights` and `data` are the first 12 hex digits of SHA-256 sums. That of `data` is of the sources and references.
    That of `weights` is of the policy alone, the model and the entries of the algorithm that it needs: a checkpoint has
    the same one once `checkpoint.slim` has reduced it.
    """
    from safetensors.torch import save

    from tokenrl_cli.run.assembly import POLICY

    files = json.loads((saved.path / "manifest.json").read_text("utf-8"))["files"]
    weights = [files[name]["sha256"] for name in sorted(files) if name.startswith("model.")]
    policy = {name: value for name, value in saved.algorithm.items() if name.startswith(POLICY)}
    weights.append(hashlib.sha256(save(policy)).hexdigest())
    weights += [base.sha256 for base in saved.bases.values()]  # under an adapter the rest lies there
    return settings_from(whole, requested, evaluation, weights, saved.step, saved.state["stage"])


def settings_from(
    whole: dict[str, Any], requested: dict[str, Any], evaluation: Evaluation, weights: list[str], step: int, stage: str
) -> dict[str, Any]:
    """Returns the settings that the numbers of an evaluation depend on, plain JSON values: split, step, stage, weights,
    data, the keys COUNTED of the command and the blocks BLOCKS ({} for one that is missing), for a policy of any
    origin. `whole` is the config that it was evaluated with, `requested` that of the command, `evaluation` the result.
    `weights` are texts that identify the policy, of which a SHA-256 is written; it was saved after `step` steps, in
    `stage`."""
    from tokenrl_cli.report.journal import json_values

    blocks = {name: whole.get(name) or {} for name in BLOCKS}
    blocks["dataset"] = relative_to_data_root(blocks["dataset"], requested["data_root"])
    settings = {
        "split": requested["split"],
        **{key: requested[key] for key in COUNTED},
        **blocks,
        "step": step,
        "stage": stage,
        "weights": _digest(weights),
        "data": _digest([evaluation.sources, evaluation.references]),
    }
    found: dict[str, Any] = json.loads(json.dumps(json_values(settings)))
    return found


def parts_of(saved: Checkpoint, requested: dict[str, Any], settings: dict[str, Any], decode: str) -> list[str]:
    """Returns the parts of the folder's name: split, decoding, KEY=VALUE of each setting with another value than usual,
    and step=N if RUN does not stand for this checkpoint. Usual is in a block the value of the checkpoint `saved`, in
    the decoding that of its option in conf/, of the seed that of the run, of other keys the default of `eval`. Keys of
    the algorithm are written without "algorithm.". `requested` is the resolved config of `eval`, `settings` the result
    of `settings_of`, `decode` the name of the decoding, such as "greedy"."""
    from tokenrl_cli.report.evaluation_folder import changed_settings

    defaults = file_values("eval.yaml")
    usual = {key: defaults[key] for key in COUNTED} | {"seed": saved.config["seed"]}
    own = {name: saved.config.get(name) or {} for name in BLOCKS}
    own["dataset"] = relative_to_data_root(own["dataset"], str(saved.config.get("data_root", "data")))
    own["decode"] = file_values(f"decode/{decode}.yaml") | {"max_length": saved.config["decode"]["max_length"]}
    before = usual | {name: own[name] for name in BLOCKS if name != "algorithm"}
    changed = changed_settings(before, {key: settings[key] for key in before})
    parts = [requested["split"], decode, *changed, *changed_settings(own["algorithm"], settings["algorithm"])]
    if chosen_checkpoint(saved.path.parent) not in (None, saved.path):
        parts.append(f"step={saved.step}")
    return parts


def refuse_link(path: Path) -> Path:
    """Returns `path`, a folder to write to, which need not exist. Raises UserError if it is a link: in a run from an
    untrusted source it could lead outside the run. Folders on the way to it may be links."""
    from tokenrl_cli.interfaces import UserError

    if path.is_symlink():
        raise UserError(str(path), f"is a link to {os.readlink(path)}: no link is followed", "name a folder with out=")
    return path


def relative_to_data_root(value: Any, root: str) -> Any:
    """Returns a copy of a block, or any value of it, with "data_root" in place of `root` at the beginning of texts that
    lie below it."""
    if isinstance(value, dict):
        return {key: relative_to_data_root(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [relative_to_data_root(item, root) for item in value]
    return "data_root" + value[len(root) :] if isinstance(value, str) and value.startswith(f"{root}/") else value


def file_values(name: str) -> dict[str, Any]:
    """Returns the plain values of a file of conf/ as it is written, without its defaults filled in. `name` is its path
    in conf/, such as "decode/beam.yaml". Raises OSError if there is no such file."""
    import yaml

    from tokenrl_cli.config.options import conf_dir

    found: dict[str, Any] = yaml.safe_load((conf_dir() / name).read_text("utf-8"))
    return found


def _digest(value: Any) -> str:
    """The first 12 digits of the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def chosen_checkpoint(folder: Path) -> Path | None:
    """Returns the directory of the checkpoint that a run stands for, absolute and without links, given its folder of
    checkpoints: the best, else the last; None if it has neither, as the folder around a copied checkpoint."""
    links = [folder / name for name in ("best", "last") if (folder / name).exists()]
    return links[0].resolve() if links else None


def _refuse_features(line: Sequence[str]) -> None:
    """Raises UserError if one of the overrides `line` chooses or sets features: the model learned from those of its
    checkpoint."""
    from tokenrl_cli.interfaces import UserError

    for word in line:
        if re.match(r"[+~]*features\b", word):
            problem = "cannot be changed in an evaluation: the model learned from the features of its checkpoint"
            raise UserError(word, problem, "leave it out")


def with_overrides(saved: dict[str, Any], stage: str, requested: dict[str, Any]) -> dict[str, Any]:
    """Returns a new config, whose blocks are not copied: that of a checkpoint, `saved`, with the blocks of `requested`,
    the config of the command, in place of its own (dataset, reward, metrics, algorithm, decode, model); an empty block
    replaces nothing. Raises UserError if these change the algorithm of the RL stage and the `stage` of the checkpoint
    is "warm_start"; an algorithm that is the same is ignored then; and if they change more of the model than where its
    pretrained parts lie."""
    from tokenrl_cli.commandline.earlier_run import refuse_another_model
    from tokenrl_cli.interfaces import UserError
    from tokenrl_cli.report.evaluation_folder import changed_settings
    from tokenrl_cli.run.assembly import STAGES

    changed = {name: requested[name] for name in BLOCKS if requested.get(name) and name != "algorithm"}
    if requested.get("algorithm") and STAGES[stage] == "algorithm":
        changed["algorithm"] = requested["algorithm"]
    elif requested.get("algorithm") and (ignored := changed_settings(saved["algorithm"], requested["algorithm"])):
        problem = "changes the algorithm of the RL stage, and this checkpoint is of the warm start"
        raise UserError(f"algorithm.{ignored[0]}", problem, "name one of the RL stage, e.g. ckpt=RUN/checkpoints/last")
    rerooted = relative_to_data_root
    refuse_another_model(
        {"model": rerooted(saved["model"], str(saved.get("data_root", "data")))},
        rerooted(requested["model"], requested["data_root"]),
    )
    return saved | changed | {"model": requested["model"]}


def write(
    folder: Path,
    evaluation: Evaluation,
    ckpt: str,
    settings: dict[str, Any],
    found: list[Finding],
    errors: dict[str, ErrorReport],
) -> dict[str, Any]:
    """Writes the results of an evaluation to a folder, over those of the same evaluation if there are any, and returns
    the content of its results.json; see `results_of`. `ckpt` is the path of the checkpoint, `settings` the result of
    `settings_of`, `found` are findings to add, `errors` are the reports of its error rates. The folder is made if it is
    missing; the evaluation must have an example.

    hypotheses.txt and references.N.txt have one line per example, in the order of the split, with line breaks inside a
    text as spaces; N counts from 0, and an example without that reference has an empty line. statistics.npz holds the
    sufficient statistics, from which intervals and differences can be computed again (metrics/saved_statistics.py).
    Each error rate has a folder of its own (report/error_files.py). results.json is written last.

    If anything fails a folder that is new is removed again. Raises UserError if the folder lies in a run and is a link,
    OSError if the system refuses.
    """
    new = not folder.exists()
    try:
        return _written(folder, evaluation, ckpt, settings, found, errors)
    except BaseException:
        if new:
            disk.discard(folder)
        raise


def _written(
    folder: Path,
    evaluation: Evaluation,
    ckpt: str,
    settings: dict[str, Any],
    found: list[Finding],
    errors: dict[str, ErrorReport],
) -> dict[str, Any]:
    """Does what `write` does, but leaves what was written if it fails."""
    from tokenrl_cli.files import writing
    from tokenrl_cli.metrics.saved_statistics import save
    from tokenrl_cli.report.error_files import write_errors

    if folder.parent == Path(ckpt).parent.parent / "eval":
        directory.require_own(folder.parent.parent, "eval", f"eval/{folder.name}")
    folder.mkdir(parents=True, exist_ok=True)
    _lines(folder / "hypotheses.txt", evaluation.hypotheses)
    # an interrupted evaluation may have left files of more references
    for stale in folder.glob("references.*.txt"):
        disk.discard(stale)
    for number in range(max(len(references) for references in evaluation.references)):
        column = [refs[number] if number < len(refs) else "" for refs in evaluation.references]
        _lines(folder / f"references.{number}.txt", column)
    part = folder / ".statistics.part.npz"
    disk.discard(part)
    save(part, evaluation.corpus)
    part.rename(folder / "statistics.npz")
    results = results_of(evaluation, ckpt, settings, found, errors)
    write_errors(folder, errors, results["errors"])
    writing.write(folder / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return results


def results_of(
    evaluation: Evaluation,
    ckpt: str,
    settings: dict[str, Any],
    found: list[Finding],
    errors: dict[str, ErrorReport],
) -> dict[str, Any]:
    """Returns the content of results.json for an evaluation, plain values for JSON: NaN is None. `ckpt` is the path of
    the checkpoint, `settings` the result of `settings_of`, `found` are findings to add, `errors` are the reports of its
    error rates, whose tables (`error_summary`) are `errors` in the result. There `metrics` has {"value", "low", "high",
    "signature"} for each metric on its own scale: low and high are the ends of a 95 % bootstrap interval, or None if
    the bootstrap could not give one; `findings` then has the reason. `other` has the rest of the numbers of the
    evaluation."""
    from tokenrl_cli.metrics.significance import bootstrap_interval
    from tokenrl_cli.report.error_table import error_summary
    from tokenrl_cli.report.journal import json_values
    from tokenrl_cli.report.results import RESAMPLES, SEED

    metrics = {}
    for name, score in evaluation.corpus.items():
        low, high = bootstrap_interval(score, RESAMPLES, SEED)
        metrics[name] = {"value": score.value, "low": low, "high": high, "signature": score.signature}
    results: dict[str, Any] = json_values({
        "format": 1,
        "ckpt": ckpt,
        "split": evaluation.split,
        "decode": settings["decode"],
        "examples": len(evaluation.hypotheses),
        "metrics": metrics,
        "errors": {name: error_summary(report) for name, report in errors.items()},
        "other": {name: value for name, value in evaluation.metrics.items() if name not in metrics},
        "settings": settings,
        "findings": [asdict(finding) for finding in [*found, *_findings(evaluation, metrics, settings)]],
    })  # fmt: skip
    return results


def _findings(evaluation: Evaluation, metrics: dict[str, Any], settings: dict[str, Any]) -> list[Finding]:
    """The findings that say why metrics have no interval."""
    from tokenrl_cli.metrics.significance import known, reason
    from tokenrl_cli.report.results import interval_findings

    unknown = {name: reason(evaluation.corpus[name]) for name, each in metrics.items() if each["low"] is None}
    fewest = min((known(evaluation.corpus[name]) for name in unknown), default=0)
    key = "examples" if settings["examples"] else None
    return interval_findings(unknown, fewest, evaluation.step, key, "no interval")


def _lines(path: Path, texts: list[str]) -> None:
    """Writes texts, one per line. Line breaks inside a text are replaced: they would shift all lines after it."""
    from tokenrl_cli.data.lines import one_line
    from tokenrl_cli.files import writing

    writing.write(path, "".join(one_line(text) + "\n" for text in texts))
