"""What does an update gain from reading each source once, not once for every sample of it?

    python benchmarks/sources.py [--repeats 9] [--threads 1]

The forward and the backward pass of the log-probabilities of K = 4 samples a source, whose source is 300 tokens long:
with the sources held once and `source_row`, as a rollout has them, and with a copy for every sample. Both compute the
same loss and take turns in one process, each going first every other time; the figure is the median over pairs of
CPU seconds repeated / once, with its quartiles: above 1, once is faster. Writes benchmarks/results/sources.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenrl_cli.model.gpt import Gpt
from tokenrl_cli.model.recurrent import Recurrent
from tokenrl_cli.model.transformer import Transformer

SOURCES, SAMPLES, WIDTH, LENGTH, VOCABULARY = 8, 4, 300, 24, 600


class Tokens:
    size, eos_id, unknown_id = VOCABULARY, 0, None


def models() -> dict[str, Any]:
    torch.manual_seed(0)
    tokens: Any = Tokens()
    return {
        "lstm": Recurrent(tokens, tokens, "lstm", 128, 128, 1, 0.0, True, False).eval(),
        "transformer": Transformer(tokens, tokens, LENGTH, 128, 4, 512, 2, 0.0, True).eval(),
        "gpt": Gpt(tokens, tokens, LENGTH, 128, 4, 512, 2, 0.0, True).eval(),
    }


def seconds(model: Any, actions: Tensor, *sources: Tensor, row: Tensor | None) -> tuple[float, float]:
    """Of the CPU, over all threads, and the loss."""
    model.zero_grad()
    start = time.process_time()
    logprobs = model(*sources, actions, row).logits.log_softmax(-1)
    loss = -logprobs.gather(-1, actions.unsqueeze(-1)).mean()
    loss.backward()
    return time.process_time() - start, float(loss.detach())


def measure(model: Any, repeats: int) -> dict[str, Any]:
    draws = torch.Generator().manual_seed(0)
    source = torch.randint(VOCABULARY, (SOURCES, WIDTH), generator=draws)
    mask = torch.arange(WIDTH) < torch.randint(WIDTH // 2, WIDTH + 1, (SOURCES, 1), generator=draws)
    actions = torch.randint(VOCABULARY, (SOURCES * SAMPLES, LENGTH), generator=draws)
    row = torch.arange(SOURCES).repeat_interleave(SAMPLES)
    ways = {"once": (source, mask, row), "repeated": (source[row], mask[row], None)}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, repeats):  # the first is the warm-up
        losses = []
        for name in list(ways) if turn % 2 else list(ways)[::-1]:
            ids, real, rows = ways[name]
            took, loss = seconds(model, actions, ids, real, row=rows)
            losses.append(loss)
            if turn >= 0:
                taken[name].append(took)
        assert abs(losses[0] - losses[1]) < 1e-5
    ratios = [repeated / once for once, repeated in zip(taken["once"], taken["repeated"], strict=True)]
    return {
        "cpu_ms": {name: round(1000 * statistics.median(values), 1) for name, values in taken.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=9)
    arguments.add_argument("--threads", type=int, default=1)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    shape = {"sources": SOURCES, "samples": SAMPLES, "source_tokens": WIDTH, "limit": LENGTH, "vocabulary": VOCABULARY}
    results: dict[str, Any] = {"torch": torch.__version__, "machine": platform.machine(), "cores": os.cpu_count()}
    results |= {"threads": given.threads, "repeats": given.repeats, "shape": shape}
    results["load_before"] = round(os.getloadavg()[0], 2)  # of a busy machine, only the ratios mean something
    results |= {name: measure(model, given.repeats) for name, model in models().items()}
    out = Path(__file__).parent / "results" / "sources.json"
    out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
