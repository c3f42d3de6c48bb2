"""How much memory does an update take where the vocabulary is large?

    python benchmarks/memory.py [--presets soft_q rloo ...]

A GRU with 32,000 tokens learns from 64 episodes of 32 tokens, one preset a process, on the CPU. What must exist is
counted: weights, copies that follow or stay, moments of Adam and the replay, which stay, and gradients, which an update
needs. `peak` is what the process held at most during the second update above what stayed; a tensor [B, T, V] is 250 MB
in float32. All presets reduce over the vocabulary piece by piece: beyond gradients their peak must stay below one such
tensor (exit status 1 if it does not). `seconds` is the CPU time of one update, the least of three, in a process of its
own with the allocator as it comes. Writes benchmarks/results/memory.json. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))  # for the tests' own helpers

from tests.presets import preset
from tests.world import numbered
from tokenrl_cli.episodes.sampling import Samples, recite, rollout_of
from tokenrl_cli.interfaces import SAMPLED, Batch, Rollout
from tokenrl_cli.model.recurrent import Recurrent

V, B, T = 32_000, 64, 32
TENSOR = B * T * V * 4  # bytes
VALUES = "dqn double_dqn dueling_dqn mc_q cql soft_q pcl oreo tba shiq ilql".split()
VARIANTS = {"soft_q, logits": ["soft_q", "algorithm/head=logits", "algorithm/prior=uniform"],
            "dqn, two heads": ["dqn", "algorithm/head=two"],
            "dqn, expected": ["dqn", "algorithm/acting=tilted", "algorithm/backup=expected",
                              "algorithm/exploration=none"]}  # fmt: skip
GRADIENTS = ["rloo", "ppo", "grpo"]
PAIRED = ["tba", "rloo", "grpo"]  # learn from two episodes of a source
COMPARED = ["mle", *GRADIENTS]
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # what is freed goes back


class Words:
    """Token i is the word i; 0 ends a text."""

    size, eos_id, unknown_id = V, 0, None

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(map(str, ids))


def batch_of(step: int, sources: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    source, targets = (torch.randint(1, V, (sources, T), generator=draw) for _ in range(2))
    full, words = torch.ones(sources, T, dtype=torch.bool), ["?"] * sources
    return Batch(
        step, source, full, targets, full, targets, full, words, [[word] for word in words], {}, *numbered(source)
    )


def episodes(batch: Batch, role: str) -> Rollout:
    """B full ones, as if sampled, half a point each."""
    draw = torch.Generator().manual_seed(1000 + batch.step)
    actions, full = torch.randint(1, V, (B, T), generator=draw), torch.ones(B, T, dtype=torch.bool)
    ended = torch.zeros(B, dtype=torch.bool)
    said = rollout_of(batch, Samples(actions, full, torch.full((B, T), -10.0), None, ended), SAMPLED)
    rollout = said if role == "sampled" else recite(batch, 0)
    rewards = torch.zeros(B, T, dtype=torch.float64)
    rewards[:, -1] = 0.5
    return replace(rollout, rewards=rewards)


@torch.no_grad()
def scored(algorithm: Any, rollout: Rollout) -> Rollout:
    """As the policy itself would have said them: a policy gradient checks that."""
    logprobs = algorithm.model.eval()(
        rollout.source, rollout.source_mask, rollout.actions, rollout.source_row
    ).logits.log_softmax(-1)
    return replace(rollout, logprobs=logprobs.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1))


def size_of(modules: Iterable[Any]) -> int:
    seen = {p.data_ptr(): p.nbytes for module in modules if isinstance(module, nn.Module) for p in module.parameters()}
    return sum(seen.values())


def status(name: str) -> int:
    """Bytes, of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def measured(words: list[str], timed: bool) -> dict[str, float]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    name, *parts = words
    model = Recurrent(Words(), Words(), "gru", 64, 128, 1, 0.0, False, False)  # type: ignore[arg-type]
    keys = [] if name == "mle" else ["algorithm.samples_per_source=1"]
    keys = ["algorithm.samples_per_source=2"] if name in PAIRED else keys
    keys += ["algorithm.epochs=1", "algorithm.minibatches=1"] if name in GRADIENTS else []
    if name in VALUES:
        keys += ["algorithm.data.minibatch_size=64", "algorithm.data.updates=1", "algorithm.data.capacity=50000"]
    algorithm = preset(name, model, Words(), T, *keys, *parts)  # type: ignore[arg-type]
    offline = getattr(getattr(algorithm, "data", None), "demonstrated", 0) == 1
    role = "recited" if name == "mle" or offline else "sampled"
    taken = []
    for step in range(4 if timed else 2):
        rollout = episodes(batch_of(step, B // 2 if name in PAIRED else B), role)
        if name in GRADIENTS:
            rollout = scored(algorithm, rollout)
        if step == 1 and not timed:
            for parameter in model.parameters():
                parameter.grad = None
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
            before = status("VmRSS")
        begun = time.process_time()
        algorithm.update(rollout)
        taken.append(time.process_time() - begun)
    if timed:
        return {"seconds": round(min(taken[1:]), 2)}
    peak = status("VmHWM") - before
    learned = getattr(algorithm, "learned", model)
    learning = [p for group in algorithm.optimizer.inner.param_groups for p in group["params"]]
    gradients = sum(p.nbytes for p in learning)
    copies = size_of([getattr(algorithm, "target", None), getattr(getattr(algorithm, "prior", None), "model", None),
                      getattr(getattr(algorithm, "acting", None), "model", None),
                      getattr(getattr(algorithm, "reference", None), "model", None),
                      getattr(getattr(algorithm, "exploration", None), "model", None)])  # fmt: skip
    replay = algorithm.data.replay.bytes if name in VALUES else 0
    found = {"weights": size_of([learned]), "copies": copies, "moments": 2 * gradients, "replay": replay,
             "gradients": gradients, "peak": peak, "beyond": peak - gradients}  # fmt: skip
    return {key: round(value / 1e6, 1) for key, value in found.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    chosen = {name: [name] for name in (*COMPARED, *VALUES)} | VARIANTS
    arguments.add_argument("--presets", nargs="+", default=list(chosen), choices=chosen)
    arguments.add_argument("--here", choices=["memory", "time"], help="measure one preset in this process")
    given = arguments.parse_args()
    if given.here:
        print(json.dumps(measured(chosen[given.presets[0]], given.here == "time")))
        return
    path = Path(__file__).parent / "results" / "memory.json"
    before = json.loads(path.read_text("utf-8"))  # what is not measured this time stays
    memory, seconds, right = before["MB"], before.get("seconds", {}), True
    for name in given.presets:
        found = {}
        for what, setting in (("memory", AT_ONCE), ("time", {})):
            command = [sys.executable, __file__, "--here", what, "--presets", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | setting)
            found[what] = json.loads(done.stdout)
        memory[name], seconds[name] = found["memory"], found["time"]["seconds"]
        right = right and memory[name]["beyond"] < TENSOR / 1e6
        cells = "  ".join(f"{key} {value:7.1f}" for key, value in memory[name].items())
        tensors = memory[name]["beyond"] * 1e6 / TENSOR
        print(f"{name:16}{cells}  {tensors:5.2f} [B, T, V]  {seconds[name]:.2f} s", flush=True)
    path.write_text(json.dumps({"V": V, "B": B, "T": T, "MB": memory, "seconds": seconds}, indent=2) + "\n", "utf-8")
    sys.exit(not right)


if __name__ == "__main__":
    main()
