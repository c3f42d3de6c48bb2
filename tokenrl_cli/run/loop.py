"""The loop: one for every algorithm, the warm start included. And `evaluate`, which disturbs none of it."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from tokenrl_cli import __version__, streams
from tokenrl_cli.data.batching import Batching, evaluation_batches, example_batch
from tokenrl_cli.data.splits import all_empty, drawn_by
from tokenrl_cli.episodes.beam import beam_search
from tokenrl_cli.episodes.sampling import Decoding, generate, recite, rollout_of
from tokenrl_cli.episodes.scoring import corpus_score, judge, mean_of, name_of, per_text, scored, texts_of
from tokenrl_cli.functional.entropy import concentration, ranks
from tokenrl_cli.functional.likelihood import negative_log_likelihood
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.interfaces import (
    SAMPLED,
    Algorithm,
    Batch,
    CorpusScore,
    Credit,
    Dataset,
    Divided,
    Evaluation,
    Finding,
    Model,
    Reward,
    Rollout,
    Texts,
    Tokenizer,
    UserError,
    ValuedPolicy,
)
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.run.reward_check import ERRORS, FEW, MORE, SOURCES, metric_findings, reward_findings, trial

DIRECTIONS = {  # of what every evaluation reports besides its metrics: 1 where more is better, -1 where less is
    "reward": 1,
    "sampled_reward": 1,
    "nll": -1,
    "perplexity": -1,
    "policy/target_rank": -1,
}
OF_REFERENCES = ("nll", "perplexity", "policy/target_rank")  # left out where no source has a reference
LARGEST_NLL = 700.0  # nats; exp of more is no float any more


@dataclass(frozen=True)
class Task:
    """What is to be learned and how it is measured: everything but the model and the algorithm."""

    dataset: Dataset
    source_tokenizer: Tokenizer
    tokenizer: Tokenizer
    reward: Reward
    credit: Credit | None  # None where nothing is learned
    metrics: dict[str, Reward]
    decoding: Decoding  # its max_length is the limit of training, too
    device: torch.device
    precision: torch.dtype
    seed: int

    def numerics(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision where it was asked for; weights stay float32."""
        return numerics(self.device, self.precision)


def numerics(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """The precision of a forward pass."""
    reduced = precision != torch.float32
    return torch.autocast(device.type, precision) if reduced else contextlib.nullcontext()


class Speaks(Protocol):
    """What generating needs of a Task."""

    @property
    def tokenizer(self) -> Tokenizer: ...


@dataclass(frozen=True)
class Stage:
    """A stretch of the run: one algorithm on the batches of the steps from `start` to `end`."""

    name: str  # "warm_start" or "train"
    algorithm: Algorithm
    batching: Batching
    start: int
    end: int


class Observer(Protocol):
    """Looks on: logs, evaluates, saves, and says when to stop. Nothing it does changes what is learned."""

    def step(
        self,
        stage: Stage,
        done: int,
        rollout: Rollout,
        metrics: dict[str, float],
        columns: dict[str, list[Any]],
        seconds: dict[str, float],
    ) -> bool:
        """After `done` steps of the run. False stops the stage here."""


def run_stage(stage: Stage, done: int, task: Task, observer: Observer) -> None:
    """From `done` steps on. One global count over both stages; what a step draws is a function of (seed, step)."""
    for step in range(done, stage.end):
        torch.manual_seed(streams.derive(task.seed, "dropout", step))  # the only use of the global generator
        batch = stage.batching.batch(step).to(task.device)
        scored: dict[str, float] = {}
        columns: dict[str, list[Any]] = {}
        clock = [time.perf_counter()]
        with task.numerics():
            rollout = stage.algorithm.collect(batch)
            clock.append(time.perf_counter())
            if stage.algorithm.needs_rewards:
                assert task.credit is not None
                rollout, scores = judge(rollout, batch, task.tokenizer, task.reward, task.credit)
                scored, columns = scores.metrics, scores.columns
            clock.append(time.perf_counter())
            metrics = stage.algorithm.update(rollout)
            clock.append(time.perf_counter())
        seconds = dict(zip(("rollout", "reward", "update"), np.diff(clock).tolist(), strict=True))
        if not observer.step(stage, step + 1, rollout, metrics | scored, columns, seconds):
            break


def acting_policy(algorithm: Algorithm) -> Model:
    """The policy that an algorithm acts by, in evaluation mode: the one place where anybody but it gets it from.

    With dropout on, a policy would decode other texts at every call. An algorithm sets the mode that it learns in
    before each update.
    """
    policy = algorithm.policy()
    if not isinstance(policy, torch.nn.Module):
        found = f"{type(algorithm).__name__}.policy() gave a {type(policy).__name__}, must be a torch.nn.Module"
        raise UserError("algorithm", found, "otherwise nothing could switch its dropout off")
    policy.eval()
    return policy


def rehearse(task: Task, learns: bool) -> list[Finding]:
    """Tries reward, credit and metrics on demonstrations of val, and the reward and the metrics on the same spoiled.

    Raises UserError where they do not go together, and where no text has a reward in a run that `learns` from rewards;
    in another run that is a warning. Costs SOURCES rows through the credit and one call of the reward with six times
    as many; only where none has a reward, MORE rows through the credit. Where val has sources without references
    there are no demonstrations to try anything on, which is a note.
    """
    _, batch = next(_batches(task, "val", SOURCES, SOURCES))  # so many that one sample's bad luck does not stop a run
    if not all(batch.references):
        text = "val has sources without references: reward and metrics were not tried on demonstrations beforehand"
        return [Finding("not_tried", "note", 0, text, None)]
    rewarded = _rewarded(task, batch) or (
        len(batch.sources) == SOURCES and _rewarded(task, next(_batches(task, "val", MORE, MORE))[1])
    )
    tried = trial(batch, task.tokenizer, task.decoding.max_length, task.seed)
    found = reward_findings(task.reward, tried, rewarded)
    for finding in found:
        if finding.severity == "stop" and learns and not rewarded:
            raise UserError(str(finding.key), finding.text, f"change {finding.key}: there is nothing to learn from")
    for name, metric in task.metrics.items():
        found += metric_findings(name, metric, tried)
    return [replace(each, severity="warning") if each.severity == "stop" else each for each in found]


def _rewarded(task: Task, batch: Batch) -> bool:
    """Whether any demonstration has a reward after the credit."""
    rollout = recite(batch, task.tokenizer.eos_id)
    assert task.credit is not None
    return bool(judge(rollout, batch, task.tokenizer, task.reward, task.credit)[0].valid.any())


@torch.no_grad()
def agree(policy: Model, model: Model, task: Task) -> bool:
    """Whether two say the same of some demonstrations, token by token, without dropout."""
    for each in (policy, model):
        each.eval()
    _, batch = next(_batches(task, "val", 8, 8))
    read = (batch.source, batch.source_mask, batch.targets)
    mask = batch.target_mask.clone()
    mask[:, 0] = True  # what is said first depends on the source alone: there is something to compare without targets
    one, other = (each(*read).logits.double().log_softmax(-1)[mask] for each in (policy, model))
    return bool((one.exp() - other.exp()).abs().max() < 1e-4)


@torch.no_grad()
def evaluate(
    policy: Model,
    task: Task,
    split: str,
    examples: int,
    batch_size: int,
    decoding: Decoding,
    stage: str,
    step: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Decodes the first `examples` of a split (0: all) and scores what was said.

    `progress` is told before each batch, and after the last, how many examples are decoded and how many there are.

    Besides the metrics: `reward` and `completions/*` of this decoding; `sampled_reward`, `entropy` (nats a token) and
    the concentration of one episode a source sampled from the policy itself; of the first reference of each example
    `nll` (nats a token, EOS included), `perplexity` = exp(nll), and the rank that the policy gives its tokens; these
    are left out where no source has a reference.
    Draws from streams of its own. `policy` is in evaluation mode, as `acting_policy` gives it.
    """
    plain = replace(decoding, temperature=1.0, top_k=0, top_p=1.0, epsilon=0.0, beam_size=1)
    order: list[int] = []
    said: list[Texts] = []
    sampled: list[Texts] = []
    lengths: list[int] = []
    ended: list[bool] = []
    expected: list[float] = []
    sums: defaultdict[str, float] = defaultdict(float)
    size = task.dataset.size(split)
    total = examples if size is None else min(examples or size, size)
    with task.numerics():
        for number, (indices, batch) in enumerate(_batches(task, split, examples, batch_size)):
            progress(len(order), total)
            draws = streams.generator(task.seed, f"evaluate/{split}", number)
            rollout = episodes(policy, batch, task, decoding, draws)
            order += indices
            said.append(texts_of(rollout, batch, task.tokenizer))
            lengths += rollout.mask.sum(-1).tolist()
            ended += rollout.ended.tolist()
            other = episodes(policy, batch, task, plain, draws)
            if isinstance(policy, ValuedPolicy):
                value = policy.start_value(batch.source, batch.source_mask)
                expected += [] if value is None else value.tolist()
            sampled.append(texts_of(other, batch, task.tokenizer))
            logits = policy(other.source, other.source_mask, other.actions, other.source_row).logits
            for name, each in concentration(logits).items():
                sums[name] += float(masked_sum(each, other.mask))
            sums["tokens"] += float(other.mask.sum())
            logits = policy(batch.source, batch.source_mask, batch.reference_ids).logits
            sums["ranks"] += float(masked_sum(ranks(logits, batch.reference_ids), batch.reference_mask))
            nll = negative_log_likelihood(logits, batch.reference_ids, 0.0)
            sums["nll"] += float(masked_sum(nll, batch.reference_mask))
            sums["references"] += float(batch.reference_mask.sum())
        progress(len(order), total)
        whole = _joined(said, order)
        judged = scored(task.reward, whole)
        again = _joined(sampled, order)
        sampled_scores = per_text(scored(task.reward, again).scores, again.mask)
    scores = per_text(judged.scores, whole.mask)
    corpus = {name: corpus_score(metric, whole) for name, metric in task.metrics.items()}
    corpus |= reward_scores(task.reward, whole, scores, corpus)
    metrics = {name: score.value for name, score in corpus.items()} | _likelihood(sums)
    metrics |= {
        "reward": mean_of(scores),
        "sampled_reward": mean_of(sampled_scores),
        "entropy": sums["entropy"] / max(sums["tokens"], 1.0),
        "policy/mode_prob": sums["mode_prob"] / max(sums["tokens"], 1.0),
        "policy/top10_mass": sums["top10_mass"] / max(sums["tokens"], 1.0),
        "completions/mean_length": float(np.mean(lengths)),
        "completions/clipped_ratio": 1 - float(np.mean(ended)),
    }
    if expected:
        metrics["q/overestimation"] = mean_of(np.array(expected)[np.argsort(order, kind="stable")] - scores)
    return Evaluation(
        step, stage, split, decoding.name, metrics, corpus, whole.hypotheses, whole.references, whole.sources,
        scores.tolist(), judged.columns,
    )  # fmt: skip


@torch.no_grad()
def memory_findings(policy: Model, task: Task, examples: int, val: Evaluation) -> list[Finding]:
    """Whether RL is about to draw sources that the warm start knows by heart: a note where greedy texts for sources of
    train earn far more than those for val (`far_above`), of which `val` is the evaluation of the same policy.

    Costs one batch of `examples` sources, spread over train. Says nothing where RL has sources of its own, where train
    is unlimited, or where texts are sampled.
    """
    size = task.dataset.size("train")
    if size is None or drawn_by(task.dataset, "train") != ("train", None) or val.decode == "sample":
        return []
    indices = np.linspace(0, size - 1, min(examples, size)).astype(int).tolist()
    tokenizers = task.source_tokenizer, task.tokenizer
    batch = example_batch(task.dataset, "train", indices, *tokenizers, task.decoding.max_length).to(task.device)
    with task.numerics():
        rollout = episodes(policy, batch, task, task.decoding, streams.generator(task.seed, "memory"))
    texts = texts_of(rollout, batch, task.tokenizer)
    scores, others = per_text(scored(task.reward, texts).scores, texts.mask), np.array(val.scores)
    if not far_above(scores, others):
        return []
    divided = isinstance(task.dataset, Divided)
    text = (
        f"{val.decode} texts earn a reward of {mean_of(scores):.3f} for sources of train and {mean_of(others):.3f} for "
        "those of val: RL draws sources that the warm start has memorised, where little is left to learn"
    )
    text += "; dataset.rl_share=0.2 keeps a fifth of train for RL alone" if divided else ""
    return [Finding("memorised_sources", "note", val.step, text, "dataset.rl_share" if divided else None)]


def far_above(scores: np.ndarray, others: np.ndarray) -> bool:
    """Whether the mean of `scores` [n] is above that of `others` [m] by more than noise, which is ERRORS standard
    errors of their difference, and by more than half a standard deviation of `others`. NaN does not count."""
    scores, others = (each[~np.isnan(each)] for each in (scores, others))
    if min(len(scores), len(others)) < FEW:
        return False
    deviation = others.std(ddof=1)
    error = math.sqrt(scores.var(ddof=1) / len(scores) + deviation**2 / len(others))
    return bool(scores.mean() - others.mean() > max(ERRORS * error, deviation / 2, 1e-9))


def _likelihood(sums: dict[str, float]) -> dict[str, float]:
    """What an evaluation says of the references, per token; nothing where no source has one."""
    tokens = sums["references"]
    if not tokens:
        return {}
    nll = sums["nll"] / tokens
    perplexity = math.exp(nll) if nll < LARGEST_NLL else math.inf
    return dict(zip(OF_REFERENCES, (nll, perplexity, sums["ranks"] / tokens), strict=True))


def decoding_for(task: Task, split: str, examples: int) -> Decoding:
    """How the first `examples` of a split (0: all) are decoded: as the task says, but where every source is empty and
    decoding is not by sampling, every text would be the same, and texts are sampled at temperature 1 instead."""
    decoding = task.decoding
    if decoding.name == "sample" or not all_empty(task.dataset, split, examples):
        return decoding
    return replace(decoding, temperature=1.0, beam_size=1)


def sampling_findings(task: Task, splits: Iterable[str], examples: int = 0) -> list[Finding]:
    """Says so of splits that are decoded by sampling because all their sources are empty."""
    empty = [split for split in splits if decoding_for(task, split, examples) is not task.decoding]
    if not empty:
        return []
    text = (
        f"all sources of {' and '.join(empty)} are empty, and decode={task.decoding.name} would say one text for all: "
        "their texts are sampled at temperature 1, as by decode=sample"
    )
    return [Finding("empty_sources", "note", 0, text, "decode")]


def direction(name: str, evaluation: Evaluation) -> int:
    """1 where more of a number of an evaluation is better, -1 where less is. Raises UserError where neither is known:
    the worst checkpoint would be taken for the best."""
    if name in evaluation.corpus:
        return -1 if evaluation.corpus[name].lower_is_better else 1
    known = ", ".join(sorted({*evaluation.corpus, *DIRECTIONS}))
    if name not in evaluation.metrics:
        raise UserError(f"trainer.monitor={name}", "no number of an evaluation is called so", f"choose one of {known}")
    if name not in DIRECTIONS:
        problem = "is reported, and neither more nor less of it is better: it cannot choose a checkpoint"
        raise UserError(f"trainer.monitor={name}", problem, f"choose one of {known}")
    return DIRECTIONS[name]


def _batches(task: Task, split: str, examples: int, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    limit = task.decoding.max_length
    batches = evaluation_batches(
        task.dataset, split, examples, batch_size, task.source_tokenizer, task.tokenizer, limit
    )
    for indices, batch in batches:
        yield list(indices), batch.to(task.device)


def episodes(policy: Model, batch: Batch, task: Speaks, decoding: Decoding, draws: torch.Generator) -> Rollout:
    eos_id = task.tokenizer.eos_id
    if decoding.beam_size > 1:
        samples = beam_search(policy, batch.source, batch.source_mask, decoding, eos_id)
    else:
        samples = generate(policy, batch.source, batch.source_mask, decoding, 1, eos_id, draws)
    return rollout_of(batch, samples, SAMPLED)


def _joined(parts: list[Texts], order: list[int]) -> Texts:
    """The texts of several batches, in the order of the split."""
    back = np.argsort(np.array(order, dtype=np.int64), kind="stable")

    def sort(name: str) -> list[Any]:
        together = [item for part in parts for item in getattr(part, name)]
        return [together[i] for i in back]

    keys = parts[0].columns
    together = {key: [item for part in parts for item in part.columns[key]] for key in keys}
    columns = {key: [values[i] for i in back] for key, values in together.items()}
    actions, mask = (_stacked([getattr(part, name) for part in parts])[back] for name in ("actions", "mask"))
    ended = np.concatenate([part.ended for part in parts])[back]
    return Texts(sort("hypotheses"), sort("references"), sort("sources"), columns, actions, mask, ended, parts[0].step)


def reward_scores(
    reward: Reward, texts: Texts, scores: np.ndarray, corpus: dict[str, CorpusScore]
) -> dict[str, CorpusScore]:
    """What the reward in use says of a split, besides the metrics of the config, whose `corpus` scores are given.

    "reward" is the mean of `scores` [n], higher is better: the number that was learned from. Where the reward has a
    corpus score of its own (BLEU 0-100, an error rate that is better lower) it comes under the reward's name, unless a
    metric has that name or the same signature.
    """
    name = name_of(reward)
    found = {"reward": mean_score(scores, f"mean over sentences of {name}|version:tokenrl {__version__}")}
    if hasattr(reward, "corpus") and name not in {*corpus, "reward"}:
        own = corpus_score(reward, texts)
        if own.signature not in [each.signature for each in corpus.values()]:
            found = {name: own} | found
    return found


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Rows of several widths, zeros behind the narrower ones."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
