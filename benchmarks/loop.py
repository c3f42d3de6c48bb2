"""How fast are rollout and update against a plain hand-written PyTorch loop of the same model?

    python benchmarks/loop.py [--repeats 15] [--threads 1]

Both sides get the same model, weights and sources and take turns in one process, each going first every other time;
the figure is the median over pairs of tokenrl's tokens per second over the plain loop's, with its quartiles. A token
counts up to EOS. Two cases: `ending`, where EOS comes about once in 12 tokens and the plain loop goes on with finished
rows until the last is done, and `full`, where no row ends early and both sides compute the same rows. Two plain
rollouts: one draws with torch.multinomial, which makes a random number for every token of the vocabulary; `frugal`
draws with one number a row, as tokenrl does. So `full` against `frugal` is what tokenrl's own book-keeping costs.
Writes benchmarks/results/loop.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1]))  # for the tests' own helpers

from tests.presets import preset
from tests.world import numbered
from tokenrl_cli.interfaces import Batch, Rollout
from tokenrl_cli.model.gpt import Gpt
from tokenrl_cli.model.recurrent import Recurrent

PAIRS = {  # of each ratio: tokenrl's figure, the plain loop's
    "rollout": ("rollout", "rollout_plain"),
    "rollout_frugal": ("rollout", "rollout_frugal"),
    "update": ("update", "update_plain"),
}
SOURCES, SAMPLES, WIDTH, LENGTH, VOCABULARY = 32, 4, 14, 24, 600


class Tokens:
    size, eos_id, unknown_id = VOCABULARY, 0, None


def models(bonus: float) -> dict[str, nn.Module]:
    """The two models, with `bonus` added to the logit of EOS."""
    torch.manual_seed(0)
    tokens: Any = Tokens()
    made: dict[str, nn.Module] = {
        "lstm": Recurrent(tokens, tokens, "lstm", 128, 128, 1, 0.0, True, False),
        "gpt": Gpt(tokens, tokens, LENGTH, 128, 4, 512, 2, 0.1, True),
    }
    for model in made.values():
        untrained: Any = model
        untrained._project = partial(ending, untrained._project, bonus)
    return made


def ending(project: Callable[[Tensor], Tensor], bonus: float, hidden: Tensor) -> Tensor:
    logits = project(hidden)
    return torch.cat([logits[..., :1] + bonus, logits[..., 1:]], -1)


def batch() -> Batch:
    draws = torch.Generator().manual_seed(0)
    source = torch.randint(VOCABULARY, (SOURCES, WIDTH), generator=draws)
    mask = torch.arange(WIDTH) < torch.randint(8, WIDTH + 1, (SOURCES, 1), generator=draws)
    target = torch.ones(SOURCES, 1, dtype=torch.int64)
    return Batch(0, source, mask, target, target.bool(), target, target.bool(), [], [], {}, *numbered(source))


@torch.no_grad()
def plain_rollout(model: Any, given: Batch, draw: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """What one writes first: repeat the state, draw, stop when all have said EOS."""
    model.eval()
    state = model.start(given.source, given.source_mask).repeat(SAMPLES)
    previous, tokens = None, []
    done = torch.zeros(SOURCES * SAMPLES, dtype=torch.bool)
    masks = []
    for _ in range(LENGTH):
        output, state = model.step(state, previous)
        previous = draw(output.logits[:, 0].softmax(-1))
        tokens.append(previous)
        masks.append(~done)
        done = done | (previous == 0)
        if done.all():
            break
    return torch.stack(tokens, 1), torch.stack(masks, 1)


def multinomial(probabilities: Tensor) -> Tensor:
    return torch.multinomial(probabilities, 1).squeeze(-1)


def frugal(probabilities: Tensor) -> Tensor:
    """The inverse of the cumulated distribution at one uniform number a row."""
    cumulated = probabilities.cumsum(-1)
    point = torch.rand(len(probabilities), 1) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, point, right=True).squeeze(-1).clamp(max=probabilities.shape[-1] - 1)


def plain_update(model: Any, optimizer: torch.optim.Optimizer, given: Batch, episodes: Rollout, scores: Tensor) -> None:
    """REINFORCE with the leave-one-out baseline, the entropy logged, the gradient clipped."""
    actions, mask = episodes.actions, episodes.mask
    group = scores.view(SOURCES, SAMPLES)
    advantages = ((group - group.mean(1, keepdim=True)) * SAMPLES / (SAMPLES - 1)).view(-1, 1)
    source, source_mask = (x.repeat_interleave(SAMPLES, 0) for x in (given.source, given.source_mask))
    logprobs = model(source, source_mask, actions).logits.log_softmax(-1)
    chosen = logprobs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    loss = -(advantages * chosen * mask).sum() / len(actions)
    entropy = -((logprobs.exp() * logprobs).sum(-1) * mask).sum() / mask.sum()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    float(loss.detach()), float(entropy.detach())


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def measure(model: nn.Module, repeats: int) -> dict[str, Any]:
    given, rewards = batch(), torch.rand(SOURCES * SAMPLES, generator=torch.Generator().manual_seed(1))
    tokens: Any = Tokens()
    lr = ["algorithm.optimizer.lr=1e-6", "algorithm.optimizer.clip_norm=1.0"]
    ours = preset("rloo", model, tokens, LENGTH, f"algorithm.samples_per_source={SAMPLES}", *lr)
    optimizer = torch.optim.Adam(model.parameters(), 1e-6)
    speeds: dict[str, list[float]] = {name: [] for pair in PAIRS.values() for name in pair}
    for turn in range(-1, repeats):  # the first is the warm-up
        rollout = ours.collect(given)  # the same episodes for both updates
        tokens_seen, judged = float(rollout.mask.sum()), with_rewards(rollout, rewards)
        runs: list[tuple[str, Callable[[], float]]] = [
            ("rollout", lambda: float(ours.collect(given).mask.sum())),
            ("rollout_plain", lambda: float(plain_rollout(model, given, multinomial)[1].sum())),
            ("rollout_frugal", lambda: float(plain_rollout(model, given, frugal)[1].sum())),
            ("update", partial(done, tokens_seen, partial(ours.update, judged))),
            (
                "update_plain",
                partial(done, tokens_seen, partial(plain_update, model, optimizer, given, rollout, rewards)),
            ),
        ]
        for name, run in runs if turn % 2 else runs[::-1]:
            took, count = timed(run)
            if turn >= 0:
                speeds[name].append(count / took)
    ratios = {
        name: [a / b for a, b in zip(speeds[first], speeds[plain], strict=True)]
        for name, (first, plain) in PAIRS.items()
    }
    return {
        "tokens_per_second": {name: round(statistics.median(values)) for name, values in speeds.items()},
        "ratio_to_plain": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "ratio_quartiles": {
            name: [round(value, 3) for value in statistics.quantiles(values, n=4)[::2]]
            for name, values in ratios.items()
        },
    }


def done(count: float, function: Callable[[], Any]) -> float:
    function()
    return count


def with_rewards(rollout: Rollout, scores: Tensor) -> Rollout:
    last = (rollout.mask.sum(-1, keepdim=True) - 1).clamp(min=0)
    return replace(rollout, rewards=torch.zeros(rollout.mask.shape).scatter(1, last, scores.unsqueeze(-1)))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=15)
    arguments.add_argument("--threads", type=int, default=1)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    shape = {"sources": SOURCES, "samples": SAMPLES, "source_tokens": WIDTH, "limit": LENGTH, "vocabulary": VOCABULARY}
    results: dict[str, Any] = {"torch": torch.__version__, "machine": platform.machine(), "cores": os.cpu_count()}
    results |= {"threads": given.threads, "repeats": given.repeats, "shape": shape}
    results["load_before"] = round(os.getloadavg()[0], 2)  # of a busy machine, only the ratios mean something
    for name in ("lstm", "gpt"):
        cases = {"ending": 4.0, "full": -1e9}
        results[name] = {case: measure(models(bonus)[name], given.repeats) for case, bonus in cases.items()}
    out = Path(__file__).parent / "results" / "loop.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
