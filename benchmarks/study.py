"""What does RL add on real text, and what do its controls add? Arms from one warm start a seed, on equal budgets.

    python benchmarks/study.py [--datasets e2e_nlg tatoeba_en_de] [--arms rloo ppo ...] [--seeds 1 2] [--out DIR]

Every arm starts from the same warm start (chosen on validation) and gets the same number of sampled and recited
tokens. Controls: `mle` goes on with cross-entropy; `constant` is REINFORCE whose reward is always 1. Reported is the
last checkpoint on the test set, greedy, beam and sampled, each against `mle`: the mean paired difference over the seeds
with a 95 % interval that resamples seeds and then sentences (with one seed: sentences alone). Runs that have their
results are not run again. Writes benchmarks/results/study.json, where arms that are not asked for stay. Data: where
TOKENRL_DATA is.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runs import DECODINGS, evaluated, run

from tokenrl_cli.interfaces import Evaluation
from tokenrl_cli.metrics.significance import hierarchical_bootstrap
from tokenrl_cli.report.results import RESAMPLES, SEED

RECIPES = {  # tokens an arm
    "e2e_nlg": ("e2e_lstm_rloo", 700_000),
    "tatoeba_en_de": ("tatoeba_lstm_rloo", 500_000),
    "g2p_cmudict": ("g2p_gru_rloo", 700_000),
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
    "double_dqn_greedy": ["algorithm=double_dqn", "credit=delta", "algorithm.optimizer.lr=1e-3"],
}
METRICS = {"g2p_cmudict": ("per", "exact_match")}  # the objective and another; else BLEU and chrF


def warm_start(out: Path, dataset: str, seed: int) -> None:
    recipe, _ = RECIPES[dataset]
    run(folder(out, dataset, "warm_start", seed), f"experiment={recipe}", f"seed={seed}", "trainer.steps=0", quiet=True)


def arm(out: Path, dataset: str, name: str, seed: int) -> None:
    recipe, tokens = RECIPES[dataset]
    start = folder(out, dataset, "warm_start", seed) / "checkpoints" / "warm_start"
    lengths = [f"trainer.{key}=100000" for key in ("steps", "eval_every", "checkpoint_every")]
    budget = ["trainer.warm_start_steps=0", f"trainer.max_tokens={tokens}", *lengths]
    given = [f"experiment={recipe}", f"seed={seed}", f"init_from={start}", *budget, *ARMS[name]]
    run(folder(out, dataset, name, seed), *given, quiet=True)


def folder(out: Path, dataset: str, name: str, seed: int) -> Path:
    return out / f"{dataset}-{name}-{seed}"


def row(out: Path, dataset: str, name: str, seeds: list[int], controls: dict[str, list[Evaluation]]) -> dict[str, Any]:
    """The mean of an arm over its seeds, and its difference from the control."""
    found: dict[str, Any] = {"seeds": seeds}
    if name != "warm_start":
        ended = [json.loads((folder(out, dataset, name, seed) / "results.json").read_text()) for seed in seeds]
        for each in ("wall_time_s", "peak_memory_mb"):
            found[each] = [result[each] for result in ended]
    link = "warm_start" if name == "warm_start" else "last"
    for decode in DECODINGS:
        said = [evaluated(folder(out, dataset, name, seed), decode, link) for seed in seeds]
        controls.setdefault(decode, said)  # the control comes first
        metrics = METRICS.get(dataset, ("bleu", "chrf"))
        names = (*metrics, "reward", "entropy", "completions/mean_length")
        found[decode] = {each: sum(one.metrics[each] for one in said) / len(said) for each in names}
        for metric in metrics:
            pairs = [(a.corpus[metric], b.corpus[metric]) for a, b in zip(said, controls[decode], strict=False)]
            found[decode][f"{metric}_difference"] = vars(hierarchical_bootstrap(pairs, RESAMPLES, SEED))
    return found


def study(out: Path, dataset: str, names: list[str], seeds: list[int], jobs: int) -> dict[str, Any]:
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda seed: warm_start(out, dataset, seed), seeds))
        for seed in seeds:
            list(pool.map(lambda name: arm(out, dataset, name, seed), names))  # noqa: B023 - done before the next seed
    controls: dict[str, list[Evaluation]] = {}
    rows = {name: row(out, dataset, name, seeds, controls) for name in sorted({*names, "mle"}, key=_control_first)}
    rows["warm_start"] = row(out, dataset, "warm_start", seeds, controls)
    return rows


def _control_first(name: str) -> tuple[bool, str]:
    return name != "mle", name


def table(dataset: str, rows: dict[str, Any]) -> str:
    metric = METRICS.get(dataset, ("bleu",))[0]
    heads = "".join(f"{f'{metric} {decode} (against mle)':>34} reward" for decode in DECODINGS)
    lines = [f"{'':18}{heads}   wall s   peak MB"]
    for name, found in rows.items():
        cells = [f"{name:18}"]
        for decode in DECODINGS:
            apart = found[decode][f"{metric}_difference"]
            interval = f"{apart['mean']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]"
            reward = found[decode].get("reward")
            cells.append(f"{found[decode][metric]:8.3f} {interval:>25} {'' if reward is None else f'{reward:.3f}':>6}")
        for each, wide in (("wall_time_s", 9), ("peak_memory_mb", 10)):
            known = found.get(each, [])
            cells.append(f"{sum(known) / len(known):{wide}.0f}" if known else "")
        lines.append("".join(cells))
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--datasets", nargs="+", default=list(RECIPES), choices=RECIPES)
    arguments.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1])
    arguments.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    arguments.add_argument("--out", type=Path, default=Path("outputs") / "study")
    given = arguments.parse_args()
    path = Path(__file__).parent / "results" / "study.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for dataset in given.datasets:
        rows = study(given.out, dataset, given.arms, given.seeds, given.jobs)
        results[dataset] = results.get(dataset, {}) | rows
        path.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
        print(f"{dataset}, {len(given.seeds)} seed(s)\n{table(dataset, rows)}\n", flush=True)


if __name__ == "__main__":
    main()
