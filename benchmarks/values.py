"""Do learned values get where theory says they can, on tasks with a known optimum?

    python benchmarks/values.py [--seeds 1 2 3] [--tasks walks reverse] [--out DIR]

`walks`: offline. Random walks of which few reach the goal; imitation earns what they earn (sampled: at most 0.1 more),
and the shortest way has to be put together from pieces: 0.9 of the optimum, which breadth-first search knows, greedily
decoded. `reverse`: demonstrations wrong in 3 symbols of 10. From an imitation that samples them right 7 times of 10
soft Q-learning and path consistency must sample 0.95; from one cut short, which decodes 0.8 or less, double Q-learning
must decode 0.95. All over seeds. Runs that have their results are not run again. Writes benchmarks/results/values.json;
exit status 1 if one is elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runs import run

from tokenrl_cli.dataset.walks import Walks

COMMON = (
    "model=gru trainer.batch_size=64 trainer.warm_start_batch_size=64 trainer.eval_every=100000 "
    "trainer.checkpoint_every=100000 trainer.gate=null trainer.device=cpu"
).split()
TASKS = {
    "walks": "dataset=walks dataset.train_size=10000 dataset.test_size=500 model.embedding=32 model.hidden=128 "
    "decode.max_length=13 reward=walk trainer.alike_lengths=false",
    "reverse": "dataset=reverse dataset.symbols=6 dataset.min_symbols=2 dataset.max_symbols=4 dataset.corruption=0.3 "
    "dataset.val_size=32 dataset.test_size=2000 model.embedding=32 model.hidden=48 decode.max_length=6 "
    "reward=token_accuracy",
}
STARTS = {"imitation": {"walks": 2500, "reverse": 1200}, "cut_short": {"reverse": 50}}  # steps
OFFLINE = "algorithm/data=offline"
ILQL = ["algorithm.conservatism=0.003", "algorithm.expectile=0.9", "algorithm.beta=32"]

SOFT_Q = ["algorithm/head=two", "algorithm.temperature=0.1"]
PCL = [OFFLINE, "algorithm/state_value=tied", "algorithm.temperature=0.1"]


def falling(steps: int, rate: str) -> list[str]:
    """A learning rate that falls to nothing."""
    schedule = [
        "optimizer/schedule@algorithm.optimizer.schedule=cosine",
        f"algorithm.optimizer.schedule.horizon={steps}",
    ]
    return [*schedule, f"algorithm.optimizer.lr={rate}"]


ARMS: dict[str, dict[str, tuple[str, int, list[str]]]] = {  # task -> arm: what it starts from, steps, overrides
    "walks": {
        "soft_q": ("imitation", 1500, [OFFLINE, *SOFT_Q, *falling(1500, "1e-3")]),
        "ilql": ("imitation", 2500, [*falling(2500, "1e-3"), *ILQL]),
        "pcl": ("imitation", 2000, [*PCL, *falling(2000, "2e-3")]),
        "mc_q": ("imitation", 1500, [OFFLINE, *falling(1500, "1e-3")]),
    },
    "reverse": {
        "soft_q": ("imitation", 200, ["credit=delta"]),
        "pcl": ("imitation", 200, []),
        "double_dqn": ("cut_short", 400, ["credit=delta", "algorithm.exploration.steps=100"]),
    },
}
RATE = "algorithm.optimizer.lr=2e-3"  # unless the arm has its own
WANTED = {  # task -> arm: (what is asked for, at least)
    "walks": dict.fromkeys(("ilql", "soft_q", "pcl"), ("reward", 0.9)),  # of the optimum
    "reverse": {"soft_q": ("sampled_reward", 0.95), "pcl": ("sampled_reward", 0.95), "double_dqn": ("reward", 0.95)},
}


def start(out: Path, task: str, name: str, seed: int) -> Path:
    folder, steps = out / f"{task}-{name}-{seed}", STARTS[name][task]
    lengths = [f"trainer.warm_start_steps={steps}", f"warm_start.optimizer.schedule.horizon={steps}", "trainer.steps=0"]
    run(folder, *TASKS[task].split(), *COMMON, *lengths, f"seed={seed}", quiet=True)
    return folder


def arm(out: Path, task: str, name: str, seed: int) -> dict[str, Any]:
    begin, steps, overrides = ARMS[task][name]
    folder = out / f"{task}-{name}-{seed}"
    lengths = [f"init_from={start(out, task, begin, seed)}", "trainer.warm_start_steps=0", f"trainer.steps={steps}"]
    chosen = [f"algorithm={name}", f"seed={seed}", *([] if any(".lr=" in word for word in overrides) else [RATE])]
    run(folder, *TASKS[task].split(), *COMMON, *lengths, *chosen, *overrides, quiet=True)
    return final(folder)


def final(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())["test"]
    return {
        stage: {key: found[stage][key] for key in ("reward", "sampled_reward")} for stage in ("warm_start", "final")
    }


def walks() -> tuple[float, float]:
    """What the demonstrations earn, and what the best texts of the test set earn."""
    data = Walks(21, 3, 12, 1, 10_000, 200, 500, 4, "truncate")
    shown, test = ([data.example(split, i) for i in range(data.sizes[split])] for split in ("train", "test"))
    earned = sum(data.graph.score(int(each.source), each.demonstrations[0]) for each in shown) / len(shown)
    return earned, sum(data.graph.best(int(each.source), "") for each in test) / len(test)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    arguments.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    arguments.add_argument("--out", type=Path, default=Path("outputs") / "values")
    given = arguments.parse_args()
    path = Path(__file__).parent / "results" / "values.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    shown, best = walks()
    right = True
    with ThreadPoolExecutor(given.jobs) as pool:
        for task in given.tasks:
            rows: dict[str, Any] = {}
            optimum = best if task == "walks" else 1.0
            for name in [name for name in STARTS if task in STARTS[name]]:
                folders = list(pool.map(lambda seed: start(given.out, task, name, seed), given.seeds))  # noqa: B023
                rows[name] = [final(folder)["final"] for folder in folders]
            if task == "walks":
                rows["optimum"], rows["data"] = optimum, shown
                right = right and all(each["sampled_reward"] <= shown + 0.1 for each in rows["imitation"])
            else:
                right = right and all(each["reward"] <= 0.8 for each in rows["cut_short"])
            for name in ARMS[task]:
                ended = list(pool.map(lambda seed: arm(given.out, task, name, seed), given.seeds))  # noqa: B023
                rows[name] = [each["final"] for each in ended]
                if name in WANTED[task]:
                    key, share = WANTED[task][name]
                    right = right and all(each[key] >= share * optimum for each in rows[name])
            results[task] = rows
            print(f"{task}: optimum {optimum:.3f}" + (f", demonstrations {shown:.3f}" if task == "walks" else ""))
            for name, found in rows.items():
                if isinstance(found, list):
                    cells = (f"{each['reward']:.3f} greedy {each['sampled_reward']:.3f} sampled" for each in found)
                    print(f"  {name:12}" + "   ".join(cells), flush=True)
            path.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print("as theory says" if right else "NOT as theory says")
    sys.exit(not right)


if __name__ == "__main__":
    main()
