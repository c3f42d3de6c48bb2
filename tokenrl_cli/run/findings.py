"""Checks of the data of a run before RL: memorised sources, and sources that are all empty."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch

from tokenrl_cli import streams
from tokenrl_cli.data.batching import example_batch
from tokenrl_cli.data.splits import drawn_by
from tokenrl_cli.episodes.scoring import mean_of, per_text, scored, texts_of
from tokenrl_cli.interfaces import (
    Divided,
    Evaluation,
    Finding,
    Model,
)
from tokenrl_cli.run.evaluation import decode, decoding_for
from tokenrl_cli.run.reward_check import ERRORS, FEW
from tokenrl_cli.run.task import Task


@torch.no_grad()
def memorisation_findings(policy: Model, task: Task, examples: int, val: Evaluation) -> list[Finding]:
    """Returns one note, in a list, if the warm start has memorised the sources that RL is about to train on; else [].

    The sign is that texts of `policy` for sources of train get a far higher reward (see `far_above`) than its texts for
    val, of which `val` is the evaluation. Decodes one batch of at most `examples` sources spread over train; `policy`
    must be in evaluation mode. Returns [] at once if RL has sources of its own, if train is unlimited, or if decoding
    samples. Raises NonFinite if a probability is not finite, UserError if the reward fails.
    """
    size = task.dataset.size("train")
    if size is None or drawn_by(task.dataset, "train") != ("train", None) or val.decode == "sample":
        return []
    # spread over the split: the first examples of a file are often alike
    indices = np.linspace(0, size - 1, min(examples, size)).astype(int).tolist()
    tokenizers = task.source_reader, task.tokenizer
    batch = example_batch(task.dataset, "train", indices, *tokenizers, task.decoding.max_length).to(task.device)
    with task.numerics():
        rollout = decode(policy, batch, task, task.decoding, streams.generator(task.seed, "memory"))
    texts = texts_of(rollout, batch, task.tokenizer)
    scores, others = per_text(scored(task.reward, texts).scores, texts.mask), np.array(val.scores)
    if not far_above(scores, others):
        return []
    divided = isinstance(task.dataset, Divided)
    text = (
        f"{val.decode} texts get a reward of {mean_of(scores):.3f} for sources of train and {mean_of(others):.3f} for "
        "those of val: RL draws sources that the warm start has memorised, where little is left to learn"
    )
    text += "; dataset.rl_share=0.2 keeps a fifth of train for RL alone" if divided else ""
    return [Finding("memorised_sources", "note", val.step, text, "dataset.rl_share" if divided else None)]


def far_above(scores: np.ndarray, others: np.ndarray) -> bool:
    """Returns whether the mean of `scores` [n] exceeds that of `others` [m] by more than ERRORS (4) standard errors of
    the difference and by more than half a standard deviation of `others`.

    NaN is left out. False if fewer than FEW (8) numbers are left on either side. The second condition keeps a
    difference that is certain but small from counting.
    """
    scores, others = (each[~np.isnan(each)] for each in (scores, others))
    if min(len(scores), len(others)) < FEW:
        return False
    deviation = others.std(ddof=1)
    error = math.sqrt(scores.var(ddof=1) / len(scores) + deviation**2 / len(others))
    return bool(scores.mean() - others.mean() > max(ERRORS * error, deviation / 2, 1e-9))


def sampling_findings(task: Task, splits: Iterable[str], examples: int = 0) -> list[Finding]:
    """Returns one note, in a list, that names the splits whose sources are all empty, if texts are therefore sampled
    instead of decoded greedily or by beam search; [] if there is none, or if `task.decoding` samples anyway.

    `examples` is how many of each split are decoded, 0 for all.
    """
    empty = [split for split in splits if decoding_for(task, split, examples) is not task.decoding]
    if not empty:
        return []
    text = (
        f"all sources of {' and '.join(empty)} are empty, and decode={task.decoding.name} would give one text for all "
        "of them: texts are sampled at temperature 1, as with decode=sample"
    )
    return [Finding("empty_sources", "note", 0, text, "decode")]
