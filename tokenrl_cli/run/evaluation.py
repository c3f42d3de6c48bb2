"""Evaluation: one policy decodes one split, and what it said is scored. It changes nothing that is learned."""

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
    Texts,
    UserError,
    ValuedPolicy,
)
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.run.task import GenerationTask, Task

DIRECTIONS = {  # of what every evaluation reports besides its metrics: 1 where more is better, -1 where less is
    "reward": 1,
    "sampled_reward": 1,
    "nll": -1,
    "perplexity": -1,
    "policy/target_rank": -1,
}


OF_REFERENCES = ("nll", "perplexity", "policy/target_rank")  # left out where no source has a reference


LARGEST_NLL = 700.0  # nats; exp of more is no float any more


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


@torch.no_grad()
def agree(policy: Model, model: Model, task: Task) -> bool:
    """Whether two say the same of some demonstrations, token by token, without dropout."""
    for each in (policy, model):
        each.eval()
    _, batch = next(batches_of(task, "val", 8, 8))
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
    """Decodes the first `examples` of a split (0: all) and scores the texts.

    `progress` is told before each batch, and after the last, how many examples are decoded and how many there are.

    Besides the metrics the evaluation has `reward` and `completions/*` of this decoding; `sampled_reward`, `entropy`
    (nats a token) and the concentration of one episode a source that is sampled from the policy itself; of the first
    reference of each example `nll` (nats a token, EOS included), `perplexity` = exp(nll), and the rank that the policy
    gives its tokens; these are left out where no source has a reference.
    All randomness comes from generators of its own. `policy` is in evaluation mode, as `acting_policy` gives it.
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
        whole, again = _joined(seen.texts, seen.order), _joined(seen.sampled, seen.order)
        judged = scored(task.reward, whole)
        sampled_scores = per_text(scored(task.reward, again).scores, again.mask)
    scores = per_text(judged.scores, whole.mask)
    corpus = {name: corpus_score(metric, whole) for name, metric in task.metrics.items()}
    corpus |= reward_scores(task.reward, whole, scores, corpus)
    metrics = {name: score.value for name, score in corpus.items()} | seen.metrics()
    metrics |= {"reward": mean_of(scores), "sampled_reward": mean_of(sampled_scores)}
    if seen.expected:
        expected = np.array(seen.expected)[np.argsort(seen.order, kind="stable")]
        metrics["q/overestimation"] = mean_of(expected - scores)
    return Evaluation(
        step, stage, split, decoding.name, metrics, corpus, whole.hypotheses, whole.references, whole.sources,
        scores.tolist(), judged.columns,
    )  # fmt: skip


@dataclass
class _Decoded:
    """What was decoded of a split so far, and sums over its tokens; n examples in the order of the batches."""

    order: list[int] = field(default_factory=list)  # [n], index of each example in the split
    texts: list[Texts] = field(default_factory=list)  # by batch
    sampled: list[Texts] = field(default_factory=list)  # by batch, one text a source from the policy itself
    lengths: list[int] = field(default_factory=list)  # [n], tokens
    ended: list[bool] = field(default_factory=list)  # [n], whether EOS was chosen
    expected: list[float] = field(default_factory=list)  # [n], max_a Q(s_0, a); empty for a policy without values
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, policy: Model, batch: Batch, task: Task, decoding: Decoding, draws: torch.Generator) -> None:
        """Decodes a batch, samples one more text for each of its sources, and reads its references."""
        rollout = decode(policy, batch, task, decoding, draws)
        self.texts.append(texts_of(rollout, batch, task.tokenizer))
        self.lengths += rollout.mask.sum(-1).tolist()
        self.ended += rollout.ended.tolist()
        plain = replace(decoding, temperature=1.0, top_k=0, top_p=1.0, epsilon=0.0, beam_size=1)
        other = decode(policy, batch, task, plain, draws)
        self.sampled.append(texts_of(other, batch, task.tokenizer))
        if isinstance(policy, ValuedPolicy):
            value = policy.start_value(batch.source, batch.source_mask)
            self.expected += [] if value is None else value.tolist()
        logits = policy(other.source, other.source_mask, other.actions).logits
        for name, each in concentration(logits).items():
            self.sums[name] += float(masked_sum(each, other.mask))
        self.sums["tokens"] += float(other.mask.sum())
        logits = policy(batch.source, batch.source_mask, batch.reference_ids).logits
        self.sums["ranks"] += float(masked_sum(ranks(logits, batch.reference_ids), batch.reference_mask))
        nll = negative_log_likelihood(logits, batch.reference_ids, 0.0)
        self.sums["nll"] += float(masked_sum(nll, batch.reference_mask))
        self.sums["references"] += float(batch.reference_mask.sum())

    def metrics(self) -> dict[str, float]:
        """Means over tokens, and over texts for `completions/*`."""
        tokens = max(self.sums["tokens"], 1.0)
        return _likelihood(self.sums) | {
            "entropy": self.sums["entropy"] / tokens,
            "policy/mode_prob": self.sums["mode_prob"] / tokens,
            "policy/top10_mass": self.sums["top10_mass"] / tokens,
            "completions/mean_length": float(np.mean(self.lengths)),
            "completions/clipped_ratio": 1 - float(np.mean(self.ended)),
        }


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


def batches_of(task: Task, split: str, examples: int, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """The first `examples` of a split (0: all) in batches on the task's device, each with its indices in the split."""
    tokenizers = task.source_tokenizer, task.tokenizer
    batches = evaluation_batches(task.dataset, split, examples, batch_size, *tokenizers, task.decoding.max_length)
    for indices, batch in batches:
        yield list(indices), batch.to(task.device)


def decode(
    policy: Model, batch: Batch, task: Task | GenerationTask, decoding: Decoding, draws: torch.Generator
) -> Rollout:
    """One text for each of the N sources of a batch, by beam search or by `generate`: a Rollout of N rows."""
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
