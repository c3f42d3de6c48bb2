"""Does everything work on a GPU, and how fast?

    make prove-gpu                    with .venv
    PYTHON=python3 make prove-gpu     with that interpreter as it is; `make gpu-wheels` fetches what it may lack

Every preset takes steps on the device in float32, and one of each class in bf16; what is sampled is what is scored, and
the CPU scores the same; a run that was stopped goes on to the same bits; the demo; tokens a second and memory of a
large LSTM and of a GPT-2 in size, beside `transformers` where that is installed. A check that fails hides no other:
exit status 1 at the end. Below 6 minutes on one H100 (what has no time left counts as failed); writes
benchmarks/results/gpu.json. Without a GPU a small version of everything runs on the CPU, in less than a minute, and
nothing is written.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts: without it its sums have no order

import absl.logging  # noqa: F401  its handler keeps the stream of its first import: the real one
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1]))  # for the tests' own helpers

from tests.presets import PRESETS, composed, targets
from tests.running import TINY
from tests.world import numbered
from tokenrl_cli.algorithm.policy_gradient import PolicyGradient
from tokenrl_cli.cli import status
from tokenrl_cli.config.build import build
from tokenrl_cli.data.batching import evaluation_batches
from tokenrl_cli.episodes.sampling import Decoding, generate, logprobs_of
from tokenrl_cli.interfaces import Algorithm, Batch, Rollout
from tokenrl_cli.model.gpt import Gpt
from tokenrl_cli.model.recurrent import Recurrent
from tokenrl_cli.report.results import peak_memory_mb
from tokenrl_cli.run import assembly
from tokenrl_cli.run.task import Task

LIMIT, SPARE = 360.0, 15.0  # seconds of the whole, and of what is kept back to stop and to write
MODELS = {
    "rnn": ["model=rnn", "model.embedding=16", "model.hidden=24"],
    "gru": ["model=gru", "model.embedding=16", "model.hidden=24", "model.layers=2"],
    "lstm": ["model=lstm", "model.embedding=16", "model.hidden=24", "model.layers=2"],
    "transformer": ["model=transformer", "model.width=16", "model.heads=2", "model.feedforward=32"],
    "gpt": ["model=gpt", "model.width=16", "model.heads=2", "model.feedforward=32"],
}
PARTICULAR = {"actor_critic": ["credit=delta", "algorithm.critic_steps=1"]}  # its policy learns in the second step
SAME_FLOAT32 = 1e-4  # nats: the largest difference of a log-probability; TF32, which must be off, makes about 1e-3
SAME_BF16 = 0.05  # nats: the mean one in mixed precision, whose numbers have 8 bits
FLOAT32, BF16 = torch.float32, torch.bfloat16
Numbers = dict[str, Any]

NO_MODEL = [word for word in TINY if not word.startswith("model")]
SHORT = ["trainer.eval_examples=4", "dataset.test_size=4"]


def one_of_each_class() -> list[str]:
    """A preset of every class of algorithms."""
    return sorted({targets(name): name for name in PRESETS}.values())


@dataclass(frozen=True)
class Scale:
    """How much of everything: on a GPU, or on the CPU where there is none."""

    presets: list[tuple[str, str]]  # name, precision
    resumed: list[tuple[str, str]]  # model, preset
    demo: list[str]  # overrides
    sizes: dict[str, dict[str, int]]  # of the two models whose speed is measured
    sources: int
    samples: int  # of each source
    source_tokens: int
    tokens: int  # of each text
    micro_batches: int
    repeats: int


ON_GPU = Scale(
    presets=[*((name, "fp32") for name in PRESETS), *((name, "bf16") for name in one_of_each_class())],
    resumed=[(model, name) for model in ("lstm", "gpt") for name in ("rloo", "ppo", "dqn", "soft_q", "mle")],
    demo=[],
    sizes={
        "lstm": {"vocabulary": 16_000, "embedding": 512, "hidden": 512, "layers": 1},
        "gpt": {"vocabulary": 50_257, "width": 768, "heads": 12, "feedforward": 3072, "layers": 12},
    },
    sources=128, samples=4, source_tokens=32, tokens=128, micro_batches=8, repeats=3,
)  # fmt: skip
ON_CPU = Scale(
    presets=[*((name, "fp32") for name in one_of_each_class()), ("rloo", "bf16")],
    resumed=[("lstm", "rloo"), ("gpt", "soft_q")],
    demo=["trainer.warm_start_steps=4", "trainer.steps=2", "trainer.eval_examples=8", "dataset.val_size=80",
          "dataset.test_size=8", "model.hidden=32",
          "trainer.gate=null"],
    sizes={
        "lstm": {"vocabulary": 100, "embedding": 16, "hidden": 16, "layers": 1},
        "gpt": {"vocabulary": 100, "width": 16, "heads": 2, "feedforward": 32, "layers": 2},
    },
    sources=4, samples=2, source_tokens=4, tokens=8, micro_batches=2, repeats=1,
)  # fmt: skip


class OverTime(BaseException):
    """The time of the whole is over. No Exception: what catches those must not go on."""


class Failure(Exception):
    """A check that did not hold, with the numbers that say so."""

    def __init__(self, reason: str, numbers: Numbers | None = None) -> None:
        super().__init__(reason)
        self.numbers = numbers or {}


@dataclass
class Proof:
    """Every check with what came of it."""

    device: torch.device
    scale: Scale
    folder: Path  # for runs
    limit: float  # seconds
    began: float = field(default_factory=time.monotonic)
    checks: dict[str, Numbers] = field(default_factory=dict)

    def check(self, name: str, function: Callable[..., Numbers], *arguments: Any) -> None:
        """Runs one check and keeps its numbers; whatever goes wrong in it is its own affair."""
        left = self.limit - (time.monotonic() - self.began)
        if left <= 0:
            self._keep(name, False, 0.0, {"reason": "not run: no time was left"})
            return
        start = time.monotonic()
        try:
            with alarm(left):
                numbers = function(self, *arguments)
            passed = True
        except OverTime:
            numbers, passed = {"reason": "stopped: the time was over"}, False
        except Failure as failure:
            numbers, passed = {"reason": str(failure)} | failure.numbers, False
        except Exception as error:
            trace = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(trace.filename).name}:{trace.lineno}"
            numbers, passed = {"reason": f"{type(error).__name__}: {error} ({place})"}, False
        self._keep(name, passed, time.monotonic() - start, numbers)

    def _keep(self, name: str, passed: bool, seconds: float, numbers: Numbers) -> None:
        self.checks[name] = {"passed": passed, "seconds": round(seconds, 1)} | numbers
        print(line(name, self.checks[name]), flush=True)

    @property
    def failed(self) -> list[str]:
        return [name for name, each in self.checks.items() if not each["passed"]]


def line(name: str, check: Numbers) -> str:
    """One row of the table."""
    said = {key: value for key, value in check.items() if key not in ("passed", "seconds")}
    numbers = "  ".join(f"{key} {value}" for key, value in said.items())
    return f"{'ok' if check['passed'] else 'FAILED':<7}{check['seconds']:6.1f} s  {name:<28}  {numbers}".rstrip()


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises OverTime in what runs inside, after so long."""

    def over(_number: int, _frame: object) -> None:
        raise OverTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ------------------------------------------------------------------------------------------------------ whole runs


def train(proof: Proof, folder: Path, *overrides: str) -> Numbers:
    """`tokenrl train` in this process and on the device; -> its results. Raises Failure with its last words."""
    said = io.StringIO()
    forget_peak(proof.device)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        done = status(["train", *overrides, f"trainer.device={proof.device.type}", *where(folder, overrides)])
    if done != 0:
        words = said.getvalue().strip().splitlines() or ["nothing was said"]
        error = next((each for each in reversed(words) if "Error: " in each), words[-1])
        raise Failure(f"tokenrl train ended with {done}: {error}")
    if proof.device.type == "cuda" and torch.cuda.max_memory_allocated() == 0:
        raise Failure("nothing was computed on the device")
    results: Numbers = json.loads((folder / "results.json").read_text("utf-8"))
    return results


def where(folder: Path, overrides: tuple[str, ...]) -> list[str]:
    """The directory of a new run; one that goes on has its own."""
    return [] if any(word.startswith("resume=") for word in overrides) else [f"hydra.run.dir={folder}"]


def preset_steps(proof: Proof, name: str, precision: str) -> Numbers:
    """Two steps of a preset, after one of imitation, and every number of theirs is one."""
    folder = proof.folder / f"{name}-{precision}"
    lengths = ["trainer.warm_start_steps=1", "trainer.steps=2", "trainer.log_every=1", "trainer.eval_every=2"]
    words = [*TINY, *SHORT, *lengths, f"trainer.precision={precision}", f"algorithm={name}"]
    train(proof, folder, *words, *PARTICULAR.get(name, []))
    steps = [json.loads(each) for each in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    learned = [step["metrics"] for step in steps if (step["stage"], step["split"]) == ("train", "train")]
    losses = {key: value for step in learned for key, value in step.items() if key.startswith("loss/")}
    if len(learned) != 2 or not losses or not all(map(finite, losses.values())):
        raise Failure(f"{len(learned)} steps, losses {losses}")
    return {"loss": round(float(next(iter(losses.values()))), 4)}


def finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")


def resume(proof: Proof, model: str, name: str) -> Numbers:
    """Six steps at once, and three and three: the same weights, moments and memory of the algorithm, bit for bit.

    Where an operation of torch's has no deterministic algorithm it says so, and the bits decide: then with attention by
    plain products, whose gradient has an order.
    """
    folder, numbers = proof.folder / f"resume-{model}-{name}", {"deterministic": "all"}
    try:
        with deterministic(strict=True):
            differing = compared(proof, folder / "strict", model, name)
    except Failure as failure:
        if "determinis" not in str(failure):
            raise
        numbers = {"deterministic": str(failure)}
        with deterministic(strict=False):
            differing = compared(proof, folder / "lenient", model, name)
    if differing:
        raise Failure(f"{len(differing)} tensors differ, first {differing[0]}", numbers)
    return numbers


@contextlib.contextmanager
def deterministic(strict: bool) -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    for kind in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{kind}_sdp")(strict)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        for kind in ("flash", "mem_efficient", "cudnn"):
            getattr(torch.backends.cuda, f"enable_{kind}_sdp")(True)


def compared(proof: Proof, folder: Path, model: str, name: str) -> list[str]:
    """Names of what differs between the last checkpoints of a run at once and of one that was stopped."""
    lengths = ["trainer.warm_start_steps=2", "trainer.eval_every=6", "trainer.checkpoint_every=3"]
    words = [*NO_MODEL, *MODELS[model], *SHORT, *lengths, f"algorithm={name}"]
    train(proof, folder / "once", *words, "trainer.steps=6")
    train(proof, folder / "twice", *words, "trainer.steps=3")
    train(proof, folder / "twice", f"resume={folder / 'twice'}", "trainer.steps=6")
    return difference(folder / "once", folder / "twice")


def difference(one: Path, other: Path) -> list[str]:
    """Names of the tensors and numbers that differ, bit for bit, between the last checkpoints of two runs."""
    from tokenrl_cli.run import checkpoint

    first, second = (checkpoint.load(checkpoint.find(run, ("last",))) for run in (one, other))
    if first.step != second.step:
        return [f"step: {first.step} and {second.step}"]
    found = []
    for a, b in ((first.model, second.model), (first.algorithm, second.algorithm)):
        found += [name for name in sorted(set(a) | set(b)) if not same_bits(a.get(name), b.get(name))]
    return found


def same_bits(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        flat = [each.contiguous().view(-1).view(torch.uint8) for each in (one, other)]
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(*flat)
    return type(one) is type(other) and one == other


def demo(proof: Proof) -> Numbers:
    """The README's demo, on the device; RL must gain BLEU, where it runs in full."""
    results = train(proof, proof.folder / "demo", "model=lstm", "reward=bleu", *proof.scale.demo)
    bleu = {name: round(row["bleu"], 2) for name, row in results["test"].items()}
    change = results["difference"]["bleu"]  # without an interval where the test set is small
    gained = {name: None if change[name] is None else round(change[name], 2) for name in ("mean", "low", "high")}
    numbers = {"bleu": bleu, "difference": gained, "tokens_per_second": results["tokens_per_second"],
               "wall_time_s": results["wall_time_s"], "peak_mb": peak_mb(proof.device)}  # fmt: skip
    if not proof.scale.demo and (gained["low"] or 0.0) <= 0:
        raise Failure("RL gained no BLEU", numbers)
    return numbers


# ------------------------------------------------------------------------------------------------ log-probabilities


def task_and_model(name: str, device: torch.device, precision: torch.dtype) -> tuple[Task, Any]:
    """As `tokenrl train` makes them, its weights moved away from where all tokens are alike."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(composed((*NO_MODEL, *MODELS[name])), resolve=True)
    task = assembly.task_of(config, [], device, precision, config["seed"], None)
    model = assembly.model_of(config, [], task).eval()
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += (0.1 * torch.randn(parameter.shape, generator=draws)).to(device)
    return task, model


def first_batch(task: Task) -> Batch:
    tokenizers = task.source_reader, task.tokenizer
    _, batch = next(evaluation_batches(task.dataset, "val", 16, 16, *tokenizers, task.decoding.max_length))
    return batch.to(task.device)


def scored(task: Task, model: Any, read: tuple[Tensor, ...], decoding: Decoding) -> Tensor:
    """log-probabilities [B, T] of actions, teacher-forced."""
    with torch.no_grad(), task.numerics():
        logits = model(*read).logits
    return logprobs_of(logits, read[-1], decoding, None).double().cpu()


def gap(one: Tensor, other: Tensor, mask: Tensor) -> tuple[float, float]:
    """The largest and the mean difference of two log-probabilities, over real tokens; finite only if both are."""
    apart = (one - other).abs()[mask.cpu()]
    return float(apart.max()), float(apart.mean())


def within(largest: float, mean: float, precision: torch.dtype) -> bool:
    return largest <= SAME_FLOAT32 if precision == FLOAT32 else mean <= SAME_BF16


def logprobs(proof: Proof, name: str, precision: torch.dtype) -> Numbers:
    """Token by token, all at once, and all at once on the CPU: a model says the same."""
    task, model = task_and_model(name, proof.device, precision)
    cpu = replace(task, device=torch.device("cpu"))
    batch, times = first_batch(task), 4
    decoding = replace(task.decoding, temperature=1.0, beam_size=1)
    with task.numerics():
        said = generate(
            model, batch.source, batch.source_mask, decoding, times, task.tokenizer.eos_id,
            torch.Generator().manual_seed(0),
        )  # fmt: skip
    read = tuple(each.repeat_interleave(times, 0) for each in (batch.source, batch.source_mask))
    here = scored(task, model, (*read, said.actions), decoding)
    stepwise = gap(said.logprobs.double().cpu(), here, said.mask)
    other = copy.deepcopy(model).cpu()
    there = scored(cpu, other, tuple(each.cpu() for each in (*read, said.actions)), decoding)
    devices = gap(here, there, said.mask)
    nats = -float(here[said.mask.cpu()].mean())  # of a policy that is sure of itself nothing could differ
    numbers = {"sampled_scored": rounded(stepwise), "cpu_device": rounded(devices), "nats": round(nats, 2)}
    if nats < 0.5:
        raise Failure("the model says always the same", numbers)
    if not (within(*stepwise, precision) and within(*devices, precision)):
        raise Failure("log-probabilities differ", numbers)
    return numbers


def rounded(largest_and_mean: tuple[float, float]) -> dict[str, float]:
    return {key: float(f"{value:.1e}") for key, value in zip(("max", "mean"), largest_and_mean, strict=True)}


def no_tf32(proof: Proof) -> Numbers:
    """float32 means float32, once the command has chosen its device."""
    assembly.device_of(proof.device.type)
    found = {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32}
    if proof.device.type == "cuda" and any(found.values()):
        raise Failure("TF32 is on", found)
    return found


# ------------------------------------------------------------------------------------------------ speed and memory


class Tokens:
    """EOS is no token that the model has a logit for: no text ends before the limit, and nothing is spent on that."""

    eos_id, unknown_id = -1, None

    def __init__(self, size: int) -> None:
        self.size = size


def large_model(name: str, scale: Scale) -> nn.Module:
    size = dict(scale.sizes[name])
    tokens: Any = Tokens(size.pop("vocabulary"))
    torch.manual_seed(0)
    if name == "lstm":
        return Recurrent(tokens, tokens, "lstm", **size, dropout=0.0, tied=True, window=False)
    return Gpt(tokens, tokens, scale.tokens, **size, dropout=0.0, tied=True)


def learner(model: Any, scale: Scale, tokens: Tokens, device: torch.device) -> PolicyGradient:
    """`algorithm=rloo`, with a rate at which the model stays what it is."""
    from omegaconf import OmegaConf

    words = ("algorithm=rloo", f"algorithm.samples_per_source={scale.samples}", "algorithm.optimizer.lr=1e-9",
             f"algorithm.micro_batches={scale.micro_batches}")  # fmt: skip
    block = OmegaConf.to_container(composed(words).algorithm, resolve=True)
    known = {"model": model, "tokenizer": tokens, "max_length": scale.tokens, "device": device, "seed": 0}
    made: PolicyGradient = build(block, Algorithm, [], **known)  # type: ignore[arg-type]
    return made


def sources(scale: Scale, vocabulary: int, device: torch.device) -> Batch:
    draws = torch.Generator().manual_seed(0)
    source = torch.randint(vocabulary, (scale.sources, scale.source_tokens), generator=draws)
    mask = torch.ones_like(source, dtype=torch.bool)
    target = torch.zeros(scale.sources, 1, dtype=torch.int64)
    return Batch(0, source, mask, target, target == 0, target, target == 0, [], [], {}, *numbered(source)).to(device)


def speed(proof: Proof, name: str, precision: torch.dtype) -> Numbers:
    """Tokens a second of a rollout and of an update, the median of some, and the peak of memory."""
    scale, device = proof.scale, proof.device
    if device.type == "cpu" and precision == BF16:
        return {"skipped": "of a GPU alone"}
    model = large_model(name, scale).to(device)
    tokens = Tokens(scale.sizes[name]["vocabulary"])
    algorithm, batch = learner(model, scale, tokens, device), sources(scale, tokens.size, device)
    forget_peak(device)
    seconds: dict[str, list[float]] = {"rollout": [], "update": []}
    reduced = precision != FLOAT32
    with torch.autocast(device.type, precision) if reduced else contextlib.nullcontext():
        for turn in range(-1, scale.repeats):  # the first warms up
            took, rollout = timed(device, partial(algorithm.collect, batch))
            learned, _ = timed(device, partial(algorithm.update, rewarded(rollout)))
            if turn >= 0:
                seconds["rollout"].append(took)
                seconds["update"].append(learned)
    count = scale.sources * scale.samples * scale.tokens
    numbers: Numbers = {"parameters": sum(each.numel() for each in model.parameters())}
    numbers |= {key: round(count / statistics.median(each)) for key, each in seconds.items()}
    numbers["peak_mb"] = peak_mb(device)
    if tuple(rollout.actions.shape) != (scale.sources * scale.samples, scale.tokens) or not bool(rollout.mask.all()):
        raise Failure("texts ended early", numbers)
    return numbers


def rewarded(rollout: Rollout) -> Rollout:
    """A number for each text, paid at its end."""
    scores = torch.rand(len(rollout), generator=torch.Generator().manual_seed(1)).to(rollout.logprobs)
    rewards = torch.zeros_like(rollout.logprobs)
    rewards[:, -1] = scores
    return replace(rollout, rewards=rewards)


def timed(device: torch.device, function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until the device has done all of it."""
    synchronise(device)
    start = time.perf_counter()
    result = function()
    synchronise(device)
    return time.perf_counter() - start, result


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_mb(device: torch.device) -> int:
    """Of what tensors took on the GPU since the peak was forgotten; on the CPU, of the process in all its life."""
    return round(torch.cuda.max_memory_allocated(device) / 2**20) if device.type == "cuda" else peak_memory_mb()


def beside(proof: Proof, precision: torch.dtype) -> Numbers:
    """Tokens a second of `generate` of the library transformers: a GPT-2 as large as ours, not trained either."""
    try:
        from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel
    except ImportError:
        return {"skipped": "transformers is not installed"}
    scale, device, size = proof.scale, proof.device, proof.scale.sizes["gpt"]
    shape = {"vocab_size": size["vocabulary"], "n_embd": size["width"], "n_layer": size["layers"],
             "n_head": size["heads"], "n_inner": size["feedforward"]}  # fmt: skip
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(**shape, **ends, n_positions=1024)).to(device, precision).eval()
    given = sources(scale, size["vocabulary"], device).source.repeat_interleave(scale.samples, 0)
    how = GenerationConfig(do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=scale.tokens,
                           min_new_tokens=scale.tokens, pad_token_id=0, use_cache=True)  # fmt: skip
    forget_peak(device)
    seconds = []
    for turn in range(-1, scale.repeats):
        took, said = timed(
            device, lambda: model.generate(given, attention_mask=torch.ones_like(given), generation_config=how)
        )
        seconds += [took] if turn >= 0 else []
    if said.shape != (len(given), scale.source_tokens + scale.tokens):
        raise Failure(f"its texts have the shape {list(said.shape)}")
    count = len(given) * scale.tokens
    return {"parameters": model.num_parameters(), "rollout": round(count / statistics.median(seconds)),
            "peak_mb": peak_mb(device)}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- the whole


def prove(proof: Proof) -> None:
    """All checks, the sooner the more depends on them."""
    proof.check("no TF32", no_tf32)
    for name in MODELS:
        for precision in (FLOAT32, BF16):
            proof.check(f"logprobs {name} {short(precision)}", logprobs, name, precision)
    for name, precision in proof.scale.presets:
        proof.check(f"preset {name} {precision}", preset_steps, name, precision)
    for model, name in proof.scale.resumed:
        proof.check(f"resume {model} {name}", resume, model, name)
    proof.check("demo", demo)
    for precision in (FLOAT32, BF16):
        for name in proof.scale.sizes:
            proof.check(f"speed {name} {short(precision)}", speed, name, precision)
    for precision in (FLOAT32, BF16):
        proof.check(f"transformers gpt {short(precision)}", beside, precision)


def short(precision: torch.dtype) -> str:
    return "fp32" if precision == FLOAT32 else "bf16"


def summary(proof: Proof) -> Numbers:
    """What gpu.json holds."""
    scale = proof.scale
    name = torch.cuda.get_device_name(proof.device) if proof.device.type == "cuda" else platform.machine()
    shape = {key: getattr(scale, key) for key in ("sources", "samples", "source_tokens", "tokens", "micro_batches")}
    return {
        "device": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "tolerance": {"fp32_max": SAME_FLOAT32, "bf16_mean": SAME_BF16},
        "speed": {"shape": shape, "sizes": scale.sizes, "unit": "tokens a second, median", "repeats": scale.repeats},
        "seconds": round(time.monotonic() - proof.began, 1),
        "failed": proof.failed,
        "checks": proof.checks,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--limit", type=float, default=LIMIT - SPARE, help="seconds after which nothing is begun")
    given = arguments.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        print("torch finds no GPU: a small version of everything on the CPU; nothing is written")
        torch.set_num_threads(1)
    else:
        torch.cuda.init()  # what is asked of the memory before that fails
    with tempfile.TemporaryDirectory() as folder:
        proof = Proof(device, ON_CPU if device.type == "cpu" else ON_GPU, Path(folder), given.limit)
        prove(proof)
    found = summary(proof)
    if device.type == "cuda":
        out = Path(__file__).parent / "results" / "gpu.json"
        out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    print(f"{len(proof.checks)} checks, {len(proof.failed)} failed, {found['seconds']} s, {found['device']}")
    for name in proof.failed:
        print(line(name, proof.checks[name]))
    sys.exit(bool(proof.failed))


if __name__ == "__main__":
    main()
