"""How much does each estimator of the gradient vary? Every preset on the same number of sampled episodes.

    python benchmarks/variance.py [--world-batches 400] [--grammar-batches 120] [--out DIR]

Noise is trace(Cov g) / |E g|^2 of one batch's gradient g: about so many batches must be averaged before the noise is
as small as the signal. It does not depend on the scale of an estimator. `world` is the enumerable world of the tests
(8 sources of 4 episodes; `cosine` is that of the mean gradient with the exact one, so what is below 1 is bias, and
what the mean still varies), `grammar` the demo's task after its warm start (16 sources of 4, reward BLEU). KL terms and
cross-entropy are off; value heads learn for 60 batches before they are measured; what is sampled besides the episodes
(a greedy companion, continuations) is not counted. Writes benchmarks/results/variance.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from runs import run
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))  # for the world of the tests

from tests.presets import preset
from tests.world import RECORDED, Letters, TableReward, TabularPolicy, batch_of, exact_gradient
from tokenrl_cli.algorithm.parts.critic import ValueHead
from tokenrl_cli.credit.delta import Delta
from tokenrl_cli.credit.terminal import Terminal
from tokenrl_cli.data.batching import Batching
from tokenrl_cli.episodes.scoring import judge
from tokenrl_cli.interfaces import Batch, Reward
from tokenrl_cli.run import assembly, checkpoint

NAMES = ("reinforce", "reinforce_pp", "scst", "rloo", "grpo", "dr_grpo", "dapo", "mrt", "a2c", "ppo", "vine")
ALIKE = "epochs=1 minibatches=1 kl_coef=0 kl_loss_coef=0 nll_mix=0 samples_per_source=4 overlong_share=0".split()
CREDITS = {"terminal": Terminal(), "delta": Delta()}
LEARNED = 60


class Kept:
    """Keeps the gradient of the policy and changes nothing; a value head may learn."""

    def __init__(self, policy: list[Tensor], head: list[Tensor]) -> None:
        self.policy, self.inner = policy, torch.optim.Adam(head, 0.003) if head else None
        self.gradient = torch.zeros(0)

    def zero_grad(self) -> None:
        for parameter in self.policy:
            parameter.grad = None
        if self.inner:
            self.inner.zero_grad()

    def step(self) -> dict[str, float]:
        flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in self.policy]
        self.gradient = torch.cat(flat).double()
        if self.inner:
            self.inner.step()
        return {}


def gradients(algorithm: Any, batches: Callable[[int], Batch], count: int, reward: Reward, credit: Any) -> Tensor:
    """[count, parameters]."""
    head = list(algorithm.critic.head.parameters()) if isinstance(algorithm.critic, ValueHead) else []
    algorithm.optimizer = Kept(list(algorithm.model.parameters()), head)
    found = []
    for step in range(count + (LEARNED if head else 0)):
        batch = batches(step)
        rollout, _ = judge(algorithm.collect(batch), batch, algorithm.tokenizer, reward, credit)
        algorithm.update(rollout)
        found.append(algorithm.optimizer.gradient)
    return torch.stack(found[-count:])


def noise(found: Tensor) -> float:
    spread = float(found.var(0).sum())
    signal = float(found.mean(0).square().sum()) - spread / len(found)  # the mean itself still varies
    return spread / signal if signal > 0 else float("inf")


def in_the_world(count: int) -> dict[str, Any]:
    exact = -exact_gradient(TabularPolicy(RECORDED.policy), RECORDED.rewards).flatten()
    rows: dict[str, Any] = {}
    for name in NAMES:
        for credit, spread in CREDITS.items():
            policy = TabularPolicy(RECORDED.policy)
            algorithm = preset(name, policy, Letters(), 3, *(f"algorithm.{word}" for word in ALIKE))
            algorithm.tokenizer = Letters()
            reward = TableReward(RECORDED.table)
            found = gradients(algorithm, lambda step: batch_of(8, step), count, reward, spread)
            cosine = float(torch.cosine_similarity(found.mean(0), exact, 0))
            rows.setdefault(name, {})[credit] = {"noise": noise(found), "cosine": cosine}
    return rows


def on_grammar(count: int, out: Path) -> dict[str, Any]:
    folder = out / "warm_start"
    run(folder, "model=lstm", "reward=bleu", "trainer.steps=0", "seed=1", quiet=True)
    saved = checkpoint.load(checkpoint.find(folder, ("warm_start",)))
    cpu = assembly.device_of("cpu")
    task = assembly.task_of(saved.config, [], cpu, torch.float32, saved.config["seed"], saved.tokenizer_dir)
    limit = task.decoding.max_length
    batching = Batching(task.dataset, "train", 16, task.source_reader, task.tokenizer, limit, task.seed)
    rows: dict[str, Any] = {}
    for name in NAMES:
        for credit, spread in CREDITS.items():
            model = assembly.model_of(saved.config, [], task)
            checkpoint.restore(model, saved)
            algorithm = preset(name, model, task.tokenizer, limit, *(f"algorithm.{word}" for word in ALIKE))
            algorithm.tokenizer = task.tokenizer
            found = gradients(algorithm, batching.batch, count, task.reward, spread)
            rows.setdefault(name, {})[credit] = {"noise": noise(found)}
            print(f"grammar {name} {credit} {rows[name][credit]['noise']:.1f}", flush=True)
    return rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--world-batches", type=int, default=400)
    arguments.add_argument("--grammar-batches", type=int, default=120)
    arguments.add_argument("--out", type=Path, default=Path("outputs") / "variance")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    world = in_the_world(given.world_batches)
    grammar = on_grammar(given.grammar_batches, given.out)
    path = Path(__file__).parent / "results" / "variance.json"
    path.write_text(json.dumps({"world": world, "grammar": grammar}, indent=2) + "\n", "utf-8")
    print(f"{'':14}{'world, terminal':>22}{'world, delta':>22}{'grammar, terminal':>20}{'delta':>10}")
    for name in NAMES:
        cells = [f"{world[name][credit]['noise']:9.2f} (cos {world[name][credit]['cosine']:.3f})" for credit in CREDITS]
        far = [f"{grammar[name][credit]['noise']:.1f}" for credit in CREDITS]
        print(f"{name:14}{cells[0]:>22}{cells[1]:>22}{far[0]:>20}{far[1]:>10}")


if __name__ == "__main__":
    main()
