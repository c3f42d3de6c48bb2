"""How fast is GRPO from a pretrained model, and how much memory does it take: tokenrl beside TRL and a plain loop?

    python -m venv TRL  # an environment of its own for TRL, which sees the packages of this one
    python -c "import torch; print(torch.__path__[0].removesuffix('torch'))" > TRL/lib/python3.11/site-packages/own.pth
    TRL/bin/pip install --no-deps trl==1.16.0
    python benchmarks/pretrained.py --trl TRL/bin/python [--repeats 5]

Each side is a process of its own with the same random Llama of 31 M parameters and 32,000 tokens, the same prompts, K
samples of each, the same limit, reward and objective, and Adam (TRL's is fused, by default): one step on each batch, no
KL, no dropout, float32, one thread. They take turns; a ratio is of two steps of one round, and the first round is the
warm-up. EOS is as improbable as any other token, so hardly a row ends before the limit; tokens are counted.

    tokenrl             algorithm=grpo
    plain               `transformers.generate`, log_softmax over all logits of the response in float32, autograd
    trl                 GRPOTrainer, its whole step, without gradient checkpointing, for that costs time
    tokenrl, recompute  with model.recompute=true
    trl, checkpointing  with gradient checkpointing, which is TRL's default

Seconds are CPU seconds, which other work on the machine changes little. A rollout ends with sampled tokens; an update
is everything after the reward. `peak_mb` is the most memory that the process held (VmHWM), libraries included, and
`ready_mb` what it held before the first step (VmRSS). Without an environment with TRL its two sides are left out.
Writes benchmarks/results/pretrained.json if all sides ran. Linux.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # for the tests' own helpers

# libraries are imported by the sides that need them: no process shall pay for another's
VOCABULARY, SOURCES, SAMPLES, PROMPT, LENGTH = 32_000, 4, 4, (24, 32), 32
SIZES = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 6,
         "num_key_value_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 512}  # fmt: skip
RATE, CLIP = 1e-6, 1.0
SIDES = ("tokenrl", "plain", "trl", "tokenrl, recompute", "trl, checkpointing")
SECONDS = ("rollout_s", "update_s", "step_s")
PAIRS = [("tokenrl", "plain"), ("tokenrl", "trl"), ("tokenrl, recompute", "trl, checkpointing")]
Side = Callable[[int], dict[str, float]]  # the step of a number -> what was measured


def score(text: str) -> float:
    """The reward: the share of words that end in an even digit."""
    words = text.split()
    return sum(word[-1] in "02468" for word in words) / max(len(words), 1)


def write_checkpoint(place: Path) -> None:
    """A random Llama with a vocabulary of words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<pad>"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(VOCABULARY - len(special)))])}
    engine = Tokenizer(models.WordLevel(words, "<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=engine, padding_side="left", **roles).save_pretrained(place)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, pad_token_id=3, **SIZES)
    LlamaForCausalLM(config).save_pretrained(place)


def prompts(step: int) -> list[str]:
    """SOURCES texts of as many words as PROMPT says; a pure function of the step."""
    import torch

    draw = torch.Generator().manual_seed(step)
    lengths = torch.randint(PROMPT[0], PROMPT[1] + 1, (SOURCES,), generator=draw).tolist()
    lengths[0] = PROMPT[1]  # every batch is equally wide
    return [
        " ".join(f"w{i}" for i in torch.randint(VOCABULARY - 4, (length,), generator=draw).tolist())
        for length in lengths
    ]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what `function` returned."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def held(name: str) -> float:
    """MB, of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


class Turns:
    """The link of a side's process to the one that compares: a line of numbers comes for each step, and one goes."""

    def __init__(self) -> None:
        self.replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print goes elsewhere

    def wait(self) -> int:
        """Returns the number of the next step, once it is this side's turn; ends the process if there is none."""
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        return int(line)

    def answer(self, told: dict[str, float]) -> None:
        """Sends what was measured, with the memory held now and at most."""
        print(json.dumps(told | {"now_mb": held("VmRSS"), "peak_mb": held("VmHWM")}), file=self.replies, flush=True)

    def serve(self, side: Side) -> None:
        """Takes steps until there is none."""
        self.answer({})
        while True:
            self.answer(side(self.wait()))


# -------------------------------------------------------------------------------------------------------- the sides


def tokenrl_side(place: Path, recompute: bool) -> Side:
    import numpy as np
    import torch

    from tests.presets import preset
    from tests.world import numbered
    from tokenrl_cli.credit.terminal import Terminal
    from tokenrl_cli.episodes.scoring import judge
    from tokenrl_cli.interfaces import Batch, Texts
    from tokenrl_cli.model.adapter import NoAdapter
    from tokenrl_cli.model.hf_causal import HfCausal
    from tokenrl_cli.tokenizer.pretrained import Pretrained

    tokenizer: Any = Pretrained(str(place), None, False, None, "tokenizer")
    tokenizer.train([])
    model = HfCausal(tokenizer, tokenizer, str(place), "float32", None, recompute, NoAdapter())
    keys = {"samples_per_source": SAMPLES, "kl_loss_coef": 0, "optimizer.lr": RATE, "optimizer.clip_norm": CLIP}
    words = [f"algorithm.{key}={value}" for key, value in keys.items()]
    algorithm = preset("grpo", model, tokenizer, LENGTH, *words)

    class Even:
        def __call__(self, texts: Texts) -> np.ndarray:
            return np.array([score(text) for text in texts.hypotheses])

    def batch_of(step: int) -> Batch:
        texts = prompts(step)
        rows = [torch.tensor(tokenizer.encode_source(text, PROMPT[1])[0]) for text in texts]
        source = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(source.shape[1]) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
        none = torch.zeros(SOURCES, 1, dtype=torch.int64)
        references: list[list[str]] = [[] for _ in texts]
        return Batch(step, source, mask, none, none.bool(), none, none.bool(), texts, references, {}, *numbered(source))

    def take(step: int) -> dict[str, float]:
        batch = batch_of(step)
        rollout_s, rollout = timed(lambda: algorithm.collect(batch))
        judge_s, (judged, _) = timed(lambda: judge(rollout, batch, tokenizer, Even(), Terminal()))
        update_s, metrics = timed(lambda: algorithm.update(judged))
        whole = rollout_s + judge_s + update_s
        return {"rollout_s": rollout_s, "update_s": update_s, "step_s": whole, "loss": metrics["loss/policy"],
                "tokens": int(rollout.mask.sum()), "prompt_tokens": int(batch.source_mask.sum())}  # fmt: skip

    return take


def plain_side(place: Path) -> Side:
    """What one writes first, with left padding, K samples of `generate`, and group-normalised rewards."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(place)
    model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.0)

    @torch.no_grad()
    def rollout(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        given = tokenizer(texts, return_tensors="pt", padding=True)
        given.pop("token_type_ids", None)
        known = {"do_sample": True, "num_return_sequences": SAMPLES, "max_new_tokens": LENGTH, "top_k": 0}
        ids = model.generate(**given, **known)
        width = given["input_ids"].shape[1]
        ended = (ids[:, width:] == tokenizer.eos_token_id).int().cumsum(-1)
        said = (ended == 0) | ((ended == 1) & (ids[:, width:] == tokenizer.eos_token_id))
        return ids, torch.cat([given["attention_mask"].repeat_interleave(SAMPLES, 0), said.long()], 1), said

    def update(ids: torch.Tensor, seen: torch.Tensor, said: torch.Tensor, rewards: torch.Tensor) -> float:
        group = rewards.view(SOURCES, SAMPLES)
        advantages = ((group - group.mean(1, keepdim=True)) / (group.std(1, keepdim=True) + 1e-4)).view(-1, 1)
        places = (seen.cumsum(-1) - 1).clamp(min=0)
        steps = said.shape[1]
        logits = model(ids, attention_mask=seen, position_ids=places, logits_to_keep=steps + 1).logits[:, :-1]
        logprobs = logits.float().log_softmax(-1)
        entropy = -((logprobs.detach().exp() * logprobs.detach()).sum(-1) * said).sum() / said.sum()
        chosen = logprobs.gather(-1, ids[:, -steps:].unsqueeze(-1)).squeeze(-1)
        ratio = (chosen - chosen.detach()).exp()
        gained = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        loss = -((gained * said).sum(-1) / said.sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        float(entropy)
        return float(loss.detach())

    def take(step: int) -> dict[str, float]:
        start = time.process_time()
        rollout_s, (ids, seen, said) = timed(lambda: rollout(prompts(step)))
        texts = tokenizer.batch_decode(ids[:, -said.shape[1] :], skip_special_tokens=True)
        rewards = torch.tensor([score(text) for text in texts])
        update_s, loss = timed(lambda: update(ids, seen, said, rewards))
        prompt_tokens = (int(seen.sum()) - int(said.sum())) / SAMPLES
        return {"rollout_s": rollout_s, "update_s": update_s, "step_s": time.process_time() - start, "loss": loss,
                "tokens": int(said.sum()), "prompt_tokens": prompt_tokens}  # fmt: skip

    return take


def trl_side(place: Path, checkpointing: bool, steps: int, turns: Turns) -> None:
    """GRPOTrainer drives its own loop, so it answers from within it."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    told: dict[str, float] = {}

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            told["rollout_s"], result = timed(lambda: super(Timed, self)._generate_single_turn(*args, **kwargs))
            told["prompt_tokens"], told["tokens"] = sum(map(len, args[0])) / SAMPLES, sum(map(len, result[0]))
            return result

        def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> Any:
            told["before_s"], result = timed(
                lambda: super(Timed, self)._generate_and_score_completions(*args, **kwargs)
            )
            return result

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            told["loss"] = float(loss.detach())
            return loss

    class InTurn(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            turns.answer({})

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.wait()
            told["start"] = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            told["step_s"] = time.process_time() - told["start"]
            told["update_s"] = told["step_s"] - told["before_s"]
            turns.answer({name: told[name] for name in (*SECONDS, "loss", "tokens", "prompt_tokens")})

    settings = GRPOConfig(
        output_dir=str(place / "out"), use_cpu=True, bf16=False, gradient_checkpointing=checkpointing,
        per_device_train_batch_size=SOURCES * SAMPLES, gradient_accumulation_steps=1, num_generations=SAMPLES,
        max_completion_length=LENGTH, max_steps=steps, learning_rate=RATE, lr_scheduler_type="constant",
        weight_decay=0.0, max_grad_norm=CLIP, beta=0.0, loss_type="grpo", shuffle_dataset=False,
        logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": [text for step in range(steps) for text in prompts(step)]})
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(place),
        reward_funcs=lambda completions, **_: [score(text) for text in completions],
        args=settings,
        train_dataset=data,
        callbacks=[InTurn()],
    )
    trainer.train()


# --------------------------------------------------------------------------------------------------- the comparison


class Rival:
    """The process of a side."""

    def __init__(self, name: str, python: str, place: Path, steps: int) -> None:
        self.name, self.log = name, place / f"{name}.log"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        words = [python, __file__, "--side", name, "--place", str(place), "--steps", str(steps)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True, env=environment
        )
        self.ready_mb = self.answer()["now_mb"]
        self.steps: list[dict[str, float]] = []

    def answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed:\n{self.log.read_text()[-3000:]}")
        told: dict[str, float] = json.loads(line)
        return told

    def step(self, number: int) -> None:
        assert self.process.stdin is not None
        print(number, file=self.process.stdin, flush=True)
        told = self.answer()
        most = SOURCES * SAMPLES * LENGTH
        assert 0.8 * most <= told["tokens"] <= most, f"{self.name} sampled {told['tokens']} tokens"
        assert math.isfinite(told["loss"]), f"the loss of {self.name} is {told['loss']}"
        self.steps.append(told)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def take_turns(rivals: dict[str, Rival], repeats: int) -> None:
    """One step of each side a round, forwards and backwards in turn."""
    names = list(rivals)
    for number in range(repeats + 1):
        for name in names if number % 2 else names[::-1]:
            rivals[name].step(number)
        read = {name: rival.steps[-1]["prompt_tokens"] for name, rival in rivals.items()}
        assert len(set(read.values())) == 1, f"the prompts differ: {read}"
        print(number, {name: round(rival.steps[-1]["step_s"], 2) for name, rival in rivals.items()}, flush=True)
    for rival in rivals.values():
        rival.end()


def summary(rivals: dict[str, Rival]) -> dict[str, Any]:
    """Medians of each side, and how many times as fast ours is: lower quartile, median and upper quartile."""
    measured = {name: rival.steps[1:] for name, rival in rivals.items()}  # without the warm-up
    sides = {
        name: {
            "rollout_tokens_per_s": round(statistics.median(step["tokens"] / step["rollout_s"] for step in steps)),
            **{key: round(statistics.median(step[key] for step in steps), 3) for key in SECONDS},
            "peak_mb": round(steps[-1]["peak_mb"]),
            "ready_mb": round(rivals[name].ready_mb),
        }
        for name, steps in measured.items()
    }
    ratios = {}
    for ours, theirs in PAIRS:
        if ours in rivals and theirs in rivals:
            pairs = list(zip(measured[ours], measured[theirs], strict=True))
            faster = {key: statistics.quantiles((b[key] / a[key] for a, b in pairs), n=4) for key in SECONDS}
            ratios[f"{ours} / {theirs}"] = {
                "times_as_fast": {
                    key.removesuffix("_s"): [round(value, 2) for value in values] for key, values in faster.items()
                },
                "peak_memory": round(sides[ours]["peak_mb"] / sides[theirs]["peak_mb"], 2),
            }
    return {"sides": sides, "ratios": ratios}


def play(name: str, place: Path, steps: int) -> None:
    """The life of a side's process."""
    turns = Turns()
    if name.startswith("trl"):
        trl_side(place, name != "trl", steps, turns)
    elif name == "plain":
        turns.serve(plain_side(place))
    else:
        turns.serve(tokenrl_side(place, name != "tokenrl"))


def has_trl(python: str | None) -> bool:
    """Whether this interpreter imports TRL; says so if it does not."""
    found = python is not None and subprocess.run([python, "-c", "import trl"], capture_output=True).returncode == 0
    if not found:
        why = f"{python} does not import it" if python else "no --trl PYTHON was given"
        print(f"without TRL, for {why}: the first lines of {__file__} say how to make an environment")
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--trl", metavar="PYTHON", help="interpreter of an environment with TRL")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    for name in ("side", "place", "steps"):
        arguments.add_argument(f"--{name}", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.side:
        return play(given.side, Path(given.place), int(given.steps))
    trl = has_trl(given.trl)
    results: dict[str, Any] = {
        "python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(),
        "threads": 1, "repeats": given.repeats, "load_before": round(os.getloadavg()[0], 2),
        "shape": {"sources": SOURCES, "samples": SAMPLES, "prompt_words": PROMPT, "limit": LENGTH,
                  "vocabulary": VOCABULARY, **SIZES},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_checkpoint(place)
        rivals = {
            name: Rival(name, given.trl if name.startswith("trl") else sys.executable, place, given.repeats + 2)
            for name in given.sides
            if trl or not name.startswith("trl")
        }
        take_turns(rivals, given.repeats)
        results |= summary(rivals) | {"load_after": round(os.getloadavg()[0], 2)}
    out = Path(__file__).parent / "results" / "pretrained.json"
    if set(rivals) == set(SIDES):
        out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
