"""What does RL add on real text, and what do its controls add? Arms from one warm start a seed, on equal budgets.

    python benchmarks/study.py [--datasets e2e_nlg tatoeba_en_de] [--arms rloo ppo ...] [--seeds 1 2] [--out DIR]

Every arm starts from the same warm start (chosen on validation) and gets the same number of sampled and recited
tokens. Controls: `mle` goes on with cross-entropy; `constant` is REINFORCE whose reward is always 1. Reported is the
last checkpoint on the test set, greedy, beam and sampled, each against `mle`: the mean paired difference over the seeds
with a 95 % interval and its p, which resamples seeds and, for each seed drawn, its sentences anew (with one seed:
sentences alone). Runs that have their results are not run again, and what they say of the test set is decoded once:
its statistics per sentence go to benchmarks/results/study/DATASET-ARM-SEED.npz as soon as that arm is there, and the
table is computed from these files alone (`--table` computes it again without any run). Writes
benchmarks/results/study.json, where arms that are not asked for stay. Data: where TOKENRL_DATA is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import yaml
from runs import DECODINGS, evaluated, run

from tokenrl_cli.interfaces import CorpusScore
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.metrics.saved_statistics import load, load_numbers, save
from tokenrl_cli.metrics.significance import hierarchical_bootstrap
from tokenrl_cli.report.results import RESAMPLES, SEED
from tokenrl_cli.report.results_table import with_interval

RECIPES = {  # tokens an arm
    "e2e_nlg": ("e2e_lstm_rloo", 700_000),
    "tatoeba_en_de": ("tatoeba_lstm_rloo", 500_000),
    "g2p_cmudict": ("g2p_gru_rloo", 700_000),
    "fsdd_connected": ("fsdd_lstm_rloo", 130_000),
    "an4": ("an4_lstm_rloo", 130_000),
}
TEXT = ("e2e_nlg", "tatoeba_en_de", "g2p_cmudict")  # studied where no --datasets are named
SPEECH = {  # arms beside the control
    "fsdd_connected": ("mle_smoothed", "constant", "rloo", "rloo_delta_optimal", "mwer", "ocd"),
    "an4": ("rloo_delta_optimal", "mwer"),
}
ARMS = {
    "mle": ["algorithm=mle", "~algorithm.samples_per_source"],
    "constant": ["algorithm=reinforce", "algorithm/baseline=none", "reward=constant"],
    "rloo": ["algorithm=rloo"],
    "scst": ["algorithm=scst", "algorithm.samples_per_source=1"],
    "grpo": ["algorithm=grpo"],
    "ppo": ["algorithm=ppo", "algorithm.epochs=2"],
    "mrt": ["algorithm=mrt"],
    "soft_q": ["algorithm=soft_q", "credit=delta", "algorithm.optimizer.lr=1e-3"],
    "pcl": ["algorithm=pcl", "algorithm.optimizer.lr=5e-4"],
    "mc_q": ["algorithm=mc_q", "credit=delta", "algorithm.optimizer.lr=1e-3"],
    "ilql": ["algorithm=ilql", "credit=delta", "algorithm.optimizer.lr=3e-4"],
    "double_dqn": [
        *("algorithm=double_dqn", "credit=delta", "algorithm.optimizer.lr=1e-3"),
        *("algorithm/acting=tilted", "algorithm/exploration=none"),
    ],
    "mle_smoothed": ["algorithm=mle", "~algorithm.samples_per_source", "algorithm.label_smoothing=0.1"],
    "rloo_delta_optimal": ["algorithm=rloo", "credit=delta_optimal"],
    "mwer": ["algorithm=mwer", "credit=terminal"],
    "ocd": ["algorithm=ocd"],
    "double_dqn_greedy": ["algorithm=double_dqn", "credit=delta", "algorithm.optimizer.lr=1e-3"],
}
OF_TEXT = tuple(name for name in ARMS if name not in ("mle_smoothed", "rloo_delta_optimal", "mwer", "ocd"))
RESULTS = Path(__file__).parent / "results"
COSTS = ("wall_time_s", "peak_memory_mb")  # of a run
DECODING = Lock()  # one evaluation at a time in this process
OTHER = ("entropy", "completions/mean_length", "sampled_reward")  # of an evaluation, without an interval
METRICS = {  # the objective and another; else BLEU and chrF
    "g2p_cmudict": ("per", "exact_match"),
    "fsdd_connected": ("wer", "cer"),
    "an4": ("wer", "cer"),
}
VIEWS = {  # what is decoded, split/decoding; else test, by each decoding. test_seen: the speakers of train
    "fsdd_connected": ("test/greedy", "test/beam", "test_seen/greedy", "test_seen/beam"),
    "an4": ("test/greedy", "test/beam"),
}


def warm_start(out: Path, dataset: str, seed: int) -> None:
    recipe, _ = RECIPES[dataset]
    run(folder(out, dataset, "warm_start", seed), f"experiment={recipe}", f"seed={seed}", "trainer.steps=0", quiet=True)


def arm(out: Path, dataset: str, name: str, seed: int, longer: float) -> None:
    recipe, tokens = RECIPES[dataset]
    start = folder(out, dataset, "warm_start", seed) / "checkpoints" / "warm_start"
    lengths = [f"trainer.{key}=100000" for key in ("steps", "eval_every", "checkpoint_every")]
    budget = ["trainer.warm_start_steps=0", f"trainer.max_tokens={round(tokens * longer)}", *lengths]
    given = [f"experiment={recipe}", f"seed={seed}", f"init_from={start}", *budget, *ARMS[name]]
    run(folder(out, dataset, name, seed), *given, quiet=True)


def folder(out: Path, dataset: str, name: str, seed: int) -> Path:
    return out / f"{dataset}-{name}-{seed}"


def keep(out: Path, dataset: str, name: str, seed: int) -> None:
    """Decodes the test set with an arm's last checkpoint (of the warm start: the one that the arms begin from) and
    keeps what the table needs: of each decoding METRICS and the recipe's reward, as statistics per sentence, and other
    numbers. Nothing where the file is there and no older than the run. The reward is rounded to float32."""
    path, link = kept_file(dataset, name, seed), "warm_start" if name == "warm_start" else "last"
    ended = folder(out, dataset, name, seed)
    if path.is_file() and path.stat().st_mtime >= (ended / "results.json").stat().st_mtime:
        return
    recipe = yaml.safe_load((folder(out, dataset, "warm_start", seed) / "config.yaml").read_text("utf-8"))
    summary = json.loads((ended / "results.json").read_text("utf-8"))
    corpus: dict[str, CorpusScore] = {}
    numbers = {cost: float(summary[cost]) for cost in COSTS}
    for view in views(dataset):
        split, decode = view.split("/") if "/" in view else ("test", view)
        with DECODING:
            said = evaluated(ended, decode, link, recipe["reward"], split)
        for metric in METRICS.get(dataset, ("bleu", "chrf")):
            mask = np.where(np.isnan(said.corpus[metric].sentences), np.nan, 0.0)  # the statistics say the rest
            corpus[f"{view}/{metric}"] = replace(said.corpus[metric], sentences=mask)
        rewards = mean_score(np.float32(said.scores).astype(np.float64), said.corpus["reward"].signature)
        corpus[f"{view}/reward"] = replace(rewards, sentences=rewards.sentences * 0)
        numbers |= {f"{view}/{other}": said.metrics[other] for other in OTHER if other in said.metrics}
    save(path, corpus, numbers)


def views(dataset: str) -> tuple[str, ...]:
    """What is decoded of an arm: by each decoding the split test, or the pairs "split/decoding" of VIEWS."""
    return VIEWS.get(dataset, tuple(DECODINGS))


def kept_file(dataset: str, name: str, seed: int) -> Path:
    return RESULTS / "study" / f"{dataset}-{name}-{seed}.npz"


def row(dataset: str, name: str, seeds: list[int]) -> dict[str, Any]:
    """The mean of an arm over its seeds and its difference from the control, from the files that `keep` wrote."""
    said = [load(kept_file(dataset, name, seed)) for seed in seeds]
    control = [load(kept_file(dataset, "mle", seed)) for seed in seeds]
    numbers = [load_numbers(kept_file(dataset, name, seed)) for seed in seeds]
    found: dict[str, Any] = {"seeds": seeds}
    if name != "warm_start":
        found |= {cost: [each[cost] for each in numbers] for cost in COSTS}
    for decode in views(dataset):
        metrics = (*METRICS.get(dataset, ("bleu", "chrf")), "reward")
        values = {each: [one[f"{decode}/{each}"].value for one in said] for each in metrics}
        known = [each for each in OTHER if all(f"{decode}/{each}" in one for one in numbers)]
        values |= {each: [one[f"{decode}/{each}"] for one in numbers] for each in known}
        found[decode] = {each: sum(several) / len(several) for each, several in values.items()}
        for metric in metrics:
            key = f"{decode}/{metric}"
            pairs = [(a[key], b[key]) for a, b in zip(said, control, strict=True)]
            apart = hierarchical_bootstrap(pairs, RESAMPLES, SEED)
            kept = {each: getattr(apart, each) for each in ("mean", "low", "high", "p")}
            found[decode][f"{metric}_difference"] = kept
    return found


def study(out: Path, dataset: str, names: Iterable[str], seeds: list[int], jobs: int, longer: float) -> None:
    """Runs what is missing, seed by seed, the control first; each arm is kept as soon as it has ended."""

    def whole(name: str, seed: int) -> None:
        arm(out, dataset, name, seed, longer)
        keep(out, dataset, name, seed)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda seed: warm_start(out, dataset, seed), seeds))
        for seed in seeds:
            keep(out, dataset, "warm_start", seed)
            list(pool.map(lambda name: whole(name, seed), ordered(names)))  # noqa: B023 - done before the next seed


def ordered(names: Iterable[str]) -> list[str]:
    """With the control, and it first."""
    return sorted({*names, "mle"}, key=_control_first)


def _control_first(name: str) -> tuple[bool, str]:
    return name != "mle", name


def table(dataset: str, rows: dict[str, Any]) -> str:
    metric = METRICS.get(dataset, ("bleu",))[0]
    heads = "".join(f"{f'{metric} {decode} (against mle)':>34} reward" for decode in views(dataset))
    lines = [f"{'':18}{heads}   wall s   peak MB"]
    for name, found in rows.items():
        cells = [f"{name:18}"]
        for decode in views(dataset):
            apart = found[decode][f"{metric}_difference"]
            interval = with_interval(apart)
            reward = found[decode].get("reward")
            cells.append(f"{found[decode][metric]:8.3f} {interval:>25} {'' if reward is None else f'{reward:.3f}':>6}")
        for each, wide in (("wall_time_s", 9), ("peak_memory_mb", 10)):
            known = found.get(each, [])
            cells.append(f"{sum(known) / len(known):{wide}.0f}" if known else "")
        lines.append("".join(cells))
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--datasets", nargs="+", default=list(TEXT), choices=RECIPES)
    arguments.add_argument("--arms", nargs="+", default=None, choices=ARMS)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1])
    arguments.add_argument("--longer", type=float, default=1.0, help="factor of the tokens of an arm")
    arguments.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    arguments.add_argument("--out", type=Path, default=Path("outputs") / "study")
    arguments.add_argument("--table", action="store_true", help="only compute the table again, from what is kept")
    given = arguments.parse_args()
    path = RESULTS / "study.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for dataset in given.datasets:
        arms = given.arms or SPEECH.get(
            dataset, [name for name in ARMS if name not in SPEECH["fsdd_connected"] or name == "rloo"]
        )
        if not given.table:
            study(given.out, dataset, arms, given.seeds, given.jobs, given.longer)
        rows = {name: row(dataset, name, given.seeds) for name in [*ordered(arms), "warm_start"]}
        results[dataset] = results.get(dataset, {}) | rows
        path.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
        print(f"{dataset}, {len(given.seeds)} seed(s)\n{table(dataset, rows)}\n", flush=True)


if __name__ == "__main__":
    main()
