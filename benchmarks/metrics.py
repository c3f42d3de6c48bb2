"""How fast are rewards of every prefix against the loop that calls the reference library on each prefix?

    python benchmarks/metrics.py [--repeats 10] [--rows 8]

Both sides go from text to one number a prefix, on one thread, in one process, and take turns. The library loop is
measured on `--rows` rows of the batch, other ones each time, and its time is per row; the ratio is that of the medians.
Words are drawn by Zipf's law from 5,000, the hypothesis has 60 % of its words from the first reference. Caches are warm
on both sides (sacrebleu remembers tokenized lines, we remember words and references); `cold` is the first batch of an
object that has seen nothing. `terminal` is the whole text alone, against the library called once a text.
Memory is the peak of a process of its own above what it held before. `first use` starts Python with an empty cache of
compiled loops, and again with the full one. Writes benchmarks/results/metrics.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from tokenrl_cli.interfaces import Texts
from tokenrl_cli.reward.bleu import Bleu
from tokenrl_cli.reward.chrf import Chrf
from tokenrl_cli.reward.error_rate import ErrorRate
from tokenrl_cli.reward.rouge import Rouge

SIZES = [(64, 30, 1), (64, 30, 4), (256, 100, 1), (256, 100, 4)]  # texts, tokens, references
REWARDS: dict[str, Callable[[], Any]] = {
    "bleu": lambda: Bleu(4, "exp", None, True, "13a", False),
    "rouge1": lambda: Rouge("rouge1", "fmeasure", False),
    "rouge2": lambda: Rouge("rouge2", "fmeasure", False),
    "rougeL": lambda: Rouge("rougeL", "fmeasure", False),
    "chrf": lambda: Chrf(6, 0, 2, False, False),
    "chrf++": lambda: Chrf(6, 2, 2, False, False),
    "wer": lambda: ErrorRate("words", 1.0, 1.0, 1.0, False, "keep", "keep"),
    "cer": lambda: ErrorRate("characters", 1.0, 1.0, 1.0, False, "keep", "keep"),
}
FLOORS = {  # what each ratio must reach, at 64 texts of 30 tokens and at 256 of 100
    "bleu": (60, 100), "rouge1": (100, 200), "rouge2": (100, 200), "rougeL": (100, 200),
    "chrf": (20, 60), "wer": (15, 30),
}  # fmt: skip


def libraries() -> dict[str, Callable[[str, list[str]], float]]:
    import jiwer
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf, plus = BLEU(effective_order=True), CHRF(), CHRF(word_order=2)
    rouge = {name: RougeScorer([name]) for name in ("rouge1", "rouge2", "rougeL")}
    return {
        "bleu": lambda text, refs: bleu.sentence_score(text, refs).score,
        **{
            name: lambda text, refs, name=name: rouge[name].score_multi(refs, text)[name].fmeasure  # type: ignore[misc]
            for name in rouge
        },
        "chrf": lambda text, refs: chrf.sentence_score(text, refs).score,
        "chrf++": lambda text, refs: plus.sentence_score(text, refs).score,
        "wer": lambda text, refs: 1 - min(jiwer.wer(ref, text) for ref in refs),
        "cer": lambda text, refs: 1 - min(jiwer.cer(ref, text) for ref in refs),
    }


def batch(texts: int, tokens: int, references: int, words: int, seed: int) -> tuple[Texts, list[list[str]]]:
    random = np.random.default_rng(seed)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    vocabulary = [" " + "".join(random.choice(letters, random.integers(2, 9))) for _ in range(words)]
    weights = 1 / np.arange(1, words + 1)

    def sentence(size: int) -> list[str]:
        return [str(word) for word in random.choice(vocabulary, size, p=weights / weights.sum())]

    prefixes, refs = [], []
    for _ in range(texts):
        first = sentence(tokens)
        said = [word if random.random() < 0.6 else other for word, other in zip(first, sentence(tokens), strict=True)]
        prefixes.append(list(accumulate(said, initial="")))
        refs.append(["".join(first), *("".join(sentence(tokens)) for _ in range(references - 1))])
    nothing = np.zeros((texts, tokens), dtype=np.int64)
    whole = [strings[-1] for strings in prefixes]
    seen = Texts(whole, refs, whole, {}, nothing, nothing == 0, np.ones(texts, dtype=bool), 0)
    return seen, prefixes


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def compare(name: str, size: tuple[int, int, int], repeats: int, rows: int) -> dict[str, float]:
    library = libraries()[name]
    seen, prefixes = batch(*size, words=5000, seed=1)
    REWARDS[name]().prefix_scores(*batch(2, 5, 1, words=9, seed=2))  # compiled and loaded
    reward = REWARDS[name]()
    cold = seconds(lambda: reward.prefix_scores(seen, prefixes))
    times: dict[str, list[float]] = {"ours": [], "library": [], "terminal": [], "library_terminal": []}
    random = np.random.default_rng(3)
    for _ in range(repeats):
        some = random.choice(size[0], rows, replace=False)
        pairs = [(text, seen.references[row]) for row in some for text in prefixes[row]]
        last = [(seen.hypotheses[row], seen.references[row]) for row in range(size[0])]
        times["ours"].append(seconds(lambda: reward.prefix_scores(seen, prefixes)))
        times["library"].append(seconds(lambda p=pairs: [library(*pair) for pair in p]) * size[0] / rows)  # type: ignore[misc]
        times["terminal"].append(seconds(lambda: reward(seen)))
        times["library_terminal"].append(seconds(lambda p=last: [library(*pair) for pair in p]))  # type: ignore[misc]
    middle = {key: statistics.median(values) for key, values in times.items()}
    return {
        "ms": middle["ours"] * 1e3,
        "cold_ms": cold * 1e3,
        "library_ms": middle["library"] * 1e3,
        "ratio": middle["library"] / middle["ours"],
        "terminal_ms": middle["terminal"] * 1e3,
        "terminal_ratio": middle["library_terminal"] / middle["terminal"],
    }


def peak_memory() -> dict[str, float]:
    """MB above what was held before, for each reward at 256 texts of 256 tokens and four references of 256."""
    seen, prefixes = batch(256, 256, 4, words=5000, seed=1)
    small = batch(2, 5, 1, words=9, seed=2)
    found = {}
    for name, make in REWARDS.items():
        child = os.fork()  # Linux counts a peak for each process: a new one for each reward
        if child == 0:
            make().prefix_scores(*small)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            make().prefix_scores(seen, prefixes)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps({name: (after - before) / 1024}), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    return found


def first_use() -> dict[str, float]:
    """Seconds from starting Python to the first scores of every reward: with an empty cache, and with a full one."""
    program = "import sys; sys.argv[0] = 'x'; from benchmarks import metrics; metrics.every_reward()"
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        home = Path(__file__).parents[1]
        for name in ("first", "later"):
            run = [sys.executable, "-c", program]
            found[name] = seconds(lambda: subprocess.run(run, env=environment, cwd=home, check=True))  # noqa: B023
    found["python"] = seconds(lambda: subprocess.run([sys.executable, "-c", "import numpy"], check=True))
    return found


def every_reward() -> None:
    for make in REWARDS.values():
        make().prefix_scores(*batch(2, 5, 1, words=9, seed=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--memory", action="store_true", help="only the peaks, a line each")
    options = parser.parse_args()
    if options.memory:
        peak_memory()
        return
    every_reward()
    print(f"{'reward':8} {'B':>4} {'T':>4} {'refs':>4} {'ms':>8} {'cold':>8} {'library':>10} {'ratio':>7} {'floor':>6} "
          f"{'terminal':>9} {'ratio':>6}")  # fmt: skip
    table = []
    for name in REWARDS:
        for size in SIZES:
            row = compare(name, size, options.repeats, options.rows)
            floor = FLOORS.get(name, (None, None))[size[1] == 100]
            table.append({"reward": name, "texts": size[0], "tokens": size[1], "references": size[2], **row})
            print(f"{name:8} {size[0]:4} {size[1]:4} {size[2]:4} {row['ms']:8.2f} {row['cold_ms']:8.1f} "
                  f"{row['library_ms']:10.0f} {row['ratio']:7.0f} {floor or '':>6} {row['terminal_ms']:9.2f} "
                  f"{row['terminal_ratio']:6.1f}", flush=True)  # fmt: skip
            if floor and row["ratio"] < floor:
                print(f"  below its floor of {floor}")
    said = subprocess.run([sys.executable, __file__, "--memory"], capture_output=True, text=True, check=True).stdout
    memory = {name: peak for line in said.splitlines() for name, peak in json.loads(line).items()}
    start = first_use()
    print("peak memory above the baseline, MB:", {name: round(peak) for name, peak in memory.items()})
    print("first use, s:", {name: round(value, 2) for name, value in start.items()})
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "python": platform.python_version(), "load": os.getloadavg()[0], "repeats": options.repeats,
        "table": table, "peak_memory_mb": memory, "first_use_s": start,
    }  # fmt: skip
    place = Path(__file__).parent / "results" / "metrics.json"
    place.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
