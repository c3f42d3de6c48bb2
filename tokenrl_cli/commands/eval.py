"""`tokenrl eval ckpt=...`: scores a split with a saved policy."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from tokenrl_cli.interfaces import Evaluation

BLOCKS = ("dataset", "reward", "metrics", "algorithm", "decode")  # which the command line may change


def run(config: DictConfig) -> float | None:
    """Every metric with its signature and a 95 % interval, on the screen and in RUN/eval/<split>-<decode>/.

    What the command line changed of the algorithm is in the name, too: a sweep over `algorithm.beta` keeps all of it.
    So is the step of a checkpoint that is not the one that RUN stands for.
    """
    from tokenrl_cli import assemble, checkpoint
    from tokenrl_cli.build import check
    from tokenrl_cli.commands.keys import Eval
    from tokenrl_cli.report.terminal import display
    from tokenrl_cli.train import evaluate

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(plain, plain["imports"], Eval)
    saved = checkpoint.load(checkpoint.find(Path(plain["ckpt"]), ("best", "last")))
    whole = with_overrides(saved.config, saved.state["stage"], plain)
    check(whole, plain["imports"])
    assemble.use_threads(whole["trainer"]["threads"])
    device = assemble.device_of(plain["device"])
    precision = assemble.precision_of(plain["precision"])
    task = assemble.task_of(whole, plain["imports"], device, precision, plain["seed"], saved.tokenizer_dir)
    policy = assemble.policy_of(saved, whole, plain["imports"], task)
    shown = display()
    try:
        split, examples, size = plain["split"], plain["examples"], plain["batch_size"]
        progress = partial(shown.evaluating, "eval", split, saved.step)
        evaluation = evaluate(policy, task, split, examples, size, task.decoding, "eval", saved.step, progress)
        out = Path(plain["out"]) if plain["out"] else saved.path.parent.parent / "eval"
        parts = [evaluation.split, evaluation.decode, *differing(saved.config["algorithm"], whole["algorithm"])]
        if meant(saved.path.parent) not in (None, saved.path):
            parts.append(f"step={saved.step}")
        folder = out / "-".join(parts).replace("/", "_")
        results = write(folder, evaluation, str(saved.path), whole["decode"])
        shown.evaluation(evaluation, 2)
        for name, metric in results["metrics"].items():
            interval = f"[{metric['low']:.4g}, {metric['high']:.4g}]"
            shown.message(f"{name} {metric['value']:.4g}  95 % {interval}  {metric['signature']}")
        stage = saved.state["stage"].replace("_", " ")
        shown.message(f"step {saved.step} ({stage}), written to {folder}")
    finally:
        shown.close()
    monitored = evaluation.metrics.get(whole["trainer"]["monitor"])
    return None if monitored is None else float(monitored)


def meant(folder: Path) -> Path | None:
    """The checkpoint that a run stands for; None where there is no run around, but a copy of a checkpoint."""
    links = [folder / name for name in ("best", "last") if (folder / name).exists()]
    return links[0].resolve() if links else None


def with_overrides(saved: dict[str, Any], stage: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint's config with the blocks of the command line in place of its own."""
    from tokenrl_cli.assemble import STAGES
    from tokenrl_cli.interfaces import UserError

    changed = {name: asked[name] for name in BLOCKS if asked.get(name) and name != "algorithm"}
    if asked.get("algorithm") and STAGES[stage] == "algorithm":
        changed["algorithm"] = asked["algorithm"]
    elif asked.get("algorithm") and (ignored := differing(saved["algorithm"], asked["algorithm"])):
        problem = "changes an algorithm that this checkpoint knows nothing of: it is of the warm start"
        raise UserError(f"algorithm.{ignored[0]}", problem, "name one of the RL stage, ckpt=RUN/checkpoints/last")
    return saved | changed


def differing(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """KEY=VALUE of the values that were others before."""
    found = []
    for key, value in now.items():
        if isinstance(value, dict):
            found += differing(before.get(key) or {}, value, f"{prefix}{key}.")
        elif before.get(key) != value:
            found.append(f"{prefix}{key}={value}")
    return found


def write(folder: Path, evaluation: Evaluation, ckpt: str, decode: dict[str, Any]) -> dict[str, Any]:
    """hypotheses.txt and references.N.txt, one line a sentence, in the order of the split; results.json."""
    from tokenrl_cli.metrics.significance import bootstrap_interval
    from tokenrl_cli.report.results import RESAMPLES, SEED

    folder.mkdir(parents=True, exist_ok=True)
    _lines(folder / "hypotheses.txt", evaluation.hypotheses)
    for number in range(max(len(references) for references in evaluation.references)):
        column = [refs[number] if number < len(refs) else "" for refs in evaluation.references]
        _lines(folder / f"references.{number}.txt", column)
    metrics = {}
    for name, score in evaluation.corpus.items():
        low, high = bootstrap_interval(score, RESAMPLES, SEED)
        metrics[name] = {"value": score.value, "low": low, "high": high, "signature": score.signature}
    results = {
        "format": 1,
        "ckpt": ckpt,
        "split": evaluation.split,
        "decode": decode,
        "examples": len(evaluation.hypotheses),
        "metrics": metrics,
        "other": {name: value for name, value in evaluation.metrics.items() if name not in metrics},
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return results


def _lines(path: Path, texts: list[str]) -> None:
    """A line break inside a text would shift every line after it."""
    path.write_text("".join(" ".join(text.splitlines()) + "\n" for text in texts), "utf-8")
