"""Evaluation: a policy decodes a split and the texts are scored. Nothing that is learned depends on it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from tokenrl_cli import __version__, streams
from tokenrl_cli.data.batching import evaluation_batches
from tokenrl_cli.data.splits import all_empty
from tokenrl_cli.episodes.beam import beam_search
from tokenrl_cli.episodes.sampling import Decoding, generate, rollout_of
from tokenrl_cli.episodes.scoring import corpus_score, mean_of, name_of, per_text, scored, texts_of
from tokenrl_cli.functional.chunks import parts_of_rows
from tokenrl_cli.functional.entropy import concentration, ranks
from tokenrl_cli.functional.likelihood import negative_log_likelihood
from tokenrl_cli.functional.masking import masked_sum
from tokenrl_cli.interfaces import (
    SAMPLED,
    Algorithm,
    Batch,
    CorpusScore,
    Evaluation,
    Model,
    Reward,
    Rollout,
    ScoresCorpus,
    Texts,
    UserError,
    ValuedPolicy,
)
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.run.task import GenerationTask, Task

DIRECTIONS = {  # numbers of every evaluation that can choose a checkpoint: 1 if higher is better, -1 if lower is
    "reward": 1,
    "sampled_reward": 1,
    "nll": -1,
    "perplexity": -1,
    "policy/target_rank": -1,
}
REFERENCE_METRICS = ("nll", "perplexity", "policy/target_rank")  # absent if no source has a reference
LARGEST_NLL = 700.0  # nats; exp of more overflows a float


def acting_policy(algorithm: Algorithm) -> Model:
    """Returns the policy of an algorithm, which may be the model that it trains, switched to evaluation mode. Raises
    UserError if it is not a torch.nn.Module.

    All code outside an algorithm gets its policy here: with dropout on, a policy would decode different texts at every
    call. An algorithm switches back to the mode that it learns in before each update.
    """
    policy = algorithm.policy()
    if not isinstance(policy, torch.nn.Module):
        found = f"{type(algorithm).__name__}.policy() gave a {type(policy).__name__}, must be a torch.nn.Module"
        raise UserError("algorithm", found, "otherwise nothing could switch its dropout off")
    policy.eval()
    return policy


@torch.no_grad()
def same_policy(policy: Model, model: Model, task: Task) -> bool:
    """Returns whether two policies give the same probability to every token, with differences below 1e-4, in the states
    of the first 8 demonstrations of val, or of fewer if it has not so many.

    Switches both to evaluation mode, and leaves them there.
    """
    for each in (policy, model):
        each.eval()
    _, batch = next(batches_of(task, "val", 8, 8))
    mask = batch.target_mask.clone()
    mask[:, 0] = True  # the first token depends on the source alone, so there is one to compare even without targets
    for rows in parts_of_rows(batch.targets, task.tokenizer.size):
        inputs = (batch.source[rows], batch.source_mask[rows], batch.targets[rows])
        one, other = (each(*inputs).logits[mask[rows]].double().softmax(-1) for each in (policy, model))
        if not bool((one - other).abs().max() < 1e-4):
            return False
    return True


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
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Evaluation:
    """Decodes the first `examples` of a split (0: all) with a policy and scores the texts. Texts and scores of the
    result are in the order of the split; `stage` and `step` are only recorded.

    `policy` must be in evaluation mode, as `acting_policy` returns it. `progress(done, total)` is called before each
    batch and after the last one with the number of examples decoded so far and in all.

    The metrics of the result are those of the task, each on its own scale (BLEU 0-100), the corpus score of the reward
    (see `reward_scores`), and
    * of the decoded texts `reward`, the mean of those that have one, `completions/mean_length` (tokens, EOS included)
      and `completions/clipped_ratio`, the share (0-1) without EOS;
    * of one more text per source, sampled from the policy at temperature 1, `sampled_reward`, `entropy` (nats per
      token), `policy/mode_prob` and `policy/top10_mass` (0-1);
    * of the first reference of each example `nll` (nats per token, EOS included), `perplexity` = exp(nll) and
      `policy/target_rank` (1 is the likeliest token); absent if no source has a reference;
    * for a policy that has Q-values `q/overestimation`, the mean of max_a Q(s_0, a) - reward.

    Draws come from generators of their own, so that an evaluation changes no draw of the training. Raises NonFinite if
    a probability is not finite, UserError if a reward or metric fails, or if the split is empty, or unlimited while
    `examples` is 0.
    """
    size = task.dataset.size(split)
    total = examples if size is None else min(examples or size, size)
    seen = _Decoded()
    with task.numerics():
        for number, (indices, batch) in enumerate(batches_of(task, split, examples, batch_size)):
            progress(len(seen.order), total)
            seen.order += indices
            seen.add(policy, batch, task, decoding, streams.generator(task.seed, f"evaluate/{split}", number))
        progress(len(seen.order), total)
        whole, sampled = joined(seen.texts, seen.order), joined(seen.sampled, seen.order)
        rewarded = scored(task.reward, whole)
        sampled_scores = per_text(scored(task.reward, sampled).scores, sampled.mask)
    scores = per_text(rewarded.scores, whole.mask)
    corpus = {name: corpus_score(metric, whole) for name, metric in task.metrics.items()}
    corpus |= reward_scores(task.reward, whole, scores, corpus)
    metrics = {name: score.value for name, score in corpus.items()} | seen.metrics()
    metrics |= {"reward": mean_of(scores), "sampled_reward": mean_of(sampled_scores)}
    if seen.expected:
        expected = np.array(seen.expected)[np.argsort(seen.order, kind="stable")]
        metrics["q/overestimation"] = mean_of(expected - scores)
    return Evaluation(
        step, stage, split, decoding.name, metrics, corpus, whole.hypotheses, whole.references, whole.sources,
        scores.tolist(), rewarded.columns,
    )  # fmt: skip


@dataclass
class _Decoded:
    """The texts decoded so far, n examples in the order of the batches, and sums over their tokens."""

    order: list[int] = field(default_factory=list)  # [n], index of each example in the split
    texts: list[Texts] = field(default_factory=list)  # by batch
    sampled: list[Texts] = field(default_factory=list)  # by batch, one text per source at temperature 1
    lengths: list[int] = field(default_factory=list)  # [n], in tokens
    ended: list[bool] = field(default_factory=list)  # [n], whether EOS was chosen
    expected: list[float] = field(default_factory=list)  # [n], max_a Q(s_0, a); empty for a policy without values
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, policy: Model, batch: Batch, task: Task, decoding: Decoding, draws: torch.Generator) -> None:
        """Decodes a batch of N sources, samples one more text for each, and scores the first reference of each."""
        rollout = decode(policy, batch, task, decoding, draws)
        self.texts.append(texts_of(rollout, batch, task.tokenizer))
        self.lengths += rollout.mask.sum(-1).tolist()
        self.ended += rollout.ended.tolist()
        # a sample from the policy itself, whatever the decoding is
        plain = replace(decoding, temperature=1.0, top_k=0, top_p=1.0, epsilon=0.0, beam_size=1)
        sample = decode(policy, batch, task, plain, draws)
        self.sampled.append(texts_of(sample, batch, task.tokenizer))
        if isinstance(policy, ValuedPolicy):
            value = policy.start_value(batch.source, batch.source_mask)
            self.expected += [] if value is None else value.tolist()
        for rows in parts_of_rows(sample.actions, task.tokenizer.size):
            part = sample.rows(rows)
            logits = policy(part.source, part.source_mask, part.actions, part.source_row).logits  # [N, T, V]
            for name, each in concentration(logits).items():
                self.sums[name] += float(masked_sum(each, part.mask))
        self.sums["tokens"] += float(sample.mask.sum())
        for rows in parts_of_rows(batch.reference_ids, task.tokenizer.size):
            ids, mask = batch.reference_ids[rows], batch.reference_mask[rows]
            logits = policy(batch.source[rows], batch.source_mask[rows], ids).logits  # [N, R, V]
            self.sums["ranks"] += float(masked_sum(ranks(logits, ids), mask))
            self.sums["nll"] += float(masked_sum(negative_log_likelihood(logits, ids, 0.0), mask))
        self.sums["references"] += float(batch.reference_mask.sum())

    def metrics(self) -> dict[str, float]:
        """The metrics of the texts added so far: means over tokens, or over texts for `completions/*`."""
        tokens = max(self.sums["tokens"], 1.0)
        return _likelihood(self.sums) | {
            "entropy": self.sums["entropy"] / tokens,
            "policy/mode_prob": self.sums["mode_prob"] / tokens,
            "policy/top10_mass": self.sums["top10_mass"] / tokens,
            "completions/mean_length": float(np.mean(self.lengths)),
            "completions/clipped_ratio": 1 - float(np.mean(self.ended)),
        }


def _likelihood(sums: dict[str, float]) -> dict[str, float]:
    """The REFERENCE_METRICS, as means over the tokens of the references; {} if there are none."""
    tokens = sums["references"]
    if not tokens:
        return {}
    nll = sums["nll"] / tokens
    perplexity = math.exp(nll) if nll < LARGEST_NLL else math.inf
    return dict(zip(REFERENCE_METRICS, (nll, perplexity, sums["ranks"] / tokens), strict=True))


def decoding_for(task: Task, split: str, examples: int) -> Decoding:
    """Returns the decoding for an evaluation of the first `examples` examples of a split (0: all): `task.decoding`, the
    same object, with one exception.

    Where the task decodes greedily or by beam search and the sources of all these examples are empty, every text would
    be the same. Then it is a copy that samples, at temperature 1 with one beam; top_k, top_p and epsilon stay. A
    decoding that samples already is returned as it is, at its own temperature.
    """
    decoding = task.decoding
    if decoding.name == "sample" or not all_empty(task.dataset, split, examples):
        return decoding
    return replace(decoding, temperature=1.0, beam_size=1)


def direction(name: str, evaluation: Evaluation) -> int:
    """Returns 1 if a higher value of the named metric of an evaluation is better, -1 if a lower one is.

    Raises UserError if there is no such metric, or if neither direction is known to be better: the worst checkpoint
    might then be taken for the best.
    """
    if name in evaluation.corpus:
        return -1 if evaluation.corpus[name].lower_is_better else 1
    known = ", ".join(sorted({*evaluation.corpus, *DIRECTIONS}))
    if name not in evaluation.metrics:
        raise UserError(f"trainer.monitor={name}", "an evaluation has no number of this name", f"choose one of {known}")
    if name not in DIRECTIONS:
        problem = "cannot choose a checkpoint: neither a higher nor a lower value of it is better"
        raise UserError(f"trainer.monitor={name}", problem, f"choose one of {known}")
    return DIRECTIONS[name]


def batches_of(task: Task, split: str, examples: int, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Yields the first `examples` of a split (0: all) as batches of at most `batch_size` sources, N, on the device of
    the task, each with the N indices of its examples in the split. Sources of similar length are batched together, not
    in the order of the split. Targets are the first demonstrations. When the first batch is requested, all examples are
    read, and a UserError is raised where the split is empty, or is unlimited and `examples` is 0."""
    tokenizers = task.source_reader, task.tokenizer
    batches = evaluation_batches(task.dataset, split, examples, batch_size, *tokenizers, task.decoding.max_length)
    for indices, batch in batches:
        yield list(indices), batch.to(task.device)


def decode(
    policy: Model, batch: Batch, task: Task | GenerationTask, decoding: Decoding, draws: torch.Generator
) -> Rollout:
    """Decodes one text for each of the N sources of a batch, without gradients: by beam search if `beam_size` is above
    1, else token by token, sampled or greedily. Returns a Rollout of N rows in the order of the batch, without rewards;
    after beam search its `logprobs` are 0. `draws` is the generator, one of the CPU, that sampling draws from. `policy`
    must be in evaluation mode. Raises NonFinite if the probability of a chosen token is not finite, or, in beam search,
    that of every hypothesis of a source."""
    eos_id = task.tokenizer.eos_id
    if decoding.beam_size > 1:
        samples = beam_search(policy, batch.source, batch.source_mask, decoding, eos_id)
    else:
        samples = generate(policy, batch.source, batch.source_mask, decoding, 1, eos_id, draws)
    return rollout_of(batch, samples, SAMPLED)


def joined(parts: list[Texts], order: list[int]) -> Texts:
    """The texts of several batches in one Texts of n rows, in the order of the split. `order` [n] holds the index in
    the split of each row."""
    positions = np.argsort(np.array(order, dtype=np.int64), kind="stable")

    def sort(name: str) -> list[Any]:
        together = [item for part in parts for item in getattr(part, name)]
        return [together[i] for i in positions]

    keys = parts[0].columns
    together = {key: [item for part in parts for item in part.columns[key]] for key in keys}
    columns = {key: [values[i] for i in positions] for key, values in together.items()}
    actions, mask = (_stacked([getattr(part, name) for part in parts])[positions] for name in ("actions", "mask"))
    ended = np.concatenate([part.ended for part in parts])[positions]
    return Texts(sort("hypotheses"), sort("references"), sort("sources"), columns, actions, mask, ended, parts[0].step)


def reward_scores(
    reward: Reward, texts: Texts, scores: np.ndarray, corpus: dict[str, CorpusScore]
) -> dict[str, CorpusScore]:
    """Returns the corpus scores of the reward in use, by name, to be added to `corpus`, those of the metrics of the
    config.

    "reward" is the mean of `scores` [n], the rewards of the n texts, NaN left out: the number that is learned from,
    higher is better. If the reward has a corpus score of its own (BLEU on 0-100, an error rate for which lower is
    better), that comes under the name of the reward, unless a metric has that name or the same signature already.
    Raises UserError if a reward of the user's fails.
    """
    name = name_of(reward)
    found = {"reward": mean_score(scores, f"mean over sentences of {name}|version:tokenrl {__version__}")}
    if isinstance(reward, ScoresCorpus) and name not in {*corpus, "reward"}:
        own = corpus_score(reward, texts)
        if own.signature not in [each.signature for each in corpus.values()]:
            found = {name: own} | found
    return found


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Arrays [n_i, T_i] one below the other, the narrower ones filled up with zeros: [sum of n_i, max of T_i]."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
