"""From text to tensors: `judge` turns the texts of a rollout into rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli.interfaces import (
    DEMONSTRATION,
    SAMPLED,
    Batch,
    CorpusScore,
    Credit,
    Dataset,
    DecodesPrefixes,
    HasParts,
    HasPotential,
    Named,
    Part,
    ReadsColumns,
    Reward,
    Rollout,
    Scored,
    ScoresCompletions,
    ScoresCorpus,
    ScoresPrefixes,
    Texts,
    Tokenizer,
    UserError,
)
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.usercode.calling import call_user_code, corpus_of, scored_of, scores_of
from tokenrl_cli.usercode.copies import copied, own_texts

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Scores:
    """The metrics of a scored rollout, by name, for the log."""

    metrics: dict[str, float]


def texts_of(rollout: Rollout, batch: Batch, tokenizer: Tokenizer) -> Texts:
    """Returns the text of each of B rows, decoded from its own sampled ids up to its length, with the references,
    source and columns of its source in `batch`, which must be the batch that the rollout was sampled for. Lists of
    references and, on the CPU, the arrays of ids are shared, not copied.

    The source is found by the row's `group`, never by its position: rows may have been shuffled, cut or repeated.
    """
    origin = (rollout.group & 0xFFFFFFFF).tolist()
    actions, mask = rollout.actions.cpu().numpy(), rollout.mask.cpu().numpy()
    rows = zip(actions.tolist(), mask.sum(-1).tolist(), strict=True)
    return Texts(
        [tokenizer.decode(ids[:length]) for ids, length in rows],
        [batch.references[i] for i in origin],
        [batch.sources[i] for i in origin],
        {name: [values[i] for i in origin] for name, values in batch.columns.items()},
        actions,
        mask,
        rollout.ended.cpu().numpy(),
        rollout.step,
    )


def judge(
    rollout: Rollout, batch: Batch, tokenizer: Tokenizer, reward: Reward, credit: Credit
) -> tuple[Rollout, Scores]:
    """Scores the texts of a rollout. Returns a copy of the rollout with `rewards` [B, T], 0 past the end, in the type
    of `logprobs`, and with `valid`; and metrics for the log. Each part of a mixture is credited separately, then they
    are summed with their weights.

    A row whose reward is NaN becomes invalid: its rewards are 0, a loss must leave it out by `valid`, and it is counted
    in `rewards/invalid`. `rewards/<name>/mean|std` are of the part's own score, before a mixture scales it;
    `rewards/<name>/<key>` are the metrics that the part returns itself; `reward` and `reward_std` are of what is
    optimised. Means and deviations are over sampled rows, NaN where none of them has a reward, and absent where nothing
    was sampled. `demonstrations/reward` is the mean reward of demonstrations, absent where none has one.

    Raises UserError where the reward returns no array of numbers of a right shape, or a number that is infinite or
    beyond +-1e18, where the credit returns no [B, T] tensor, infinite rewards, or rewards that do not sum to the score,
    and where the user's own code for one of them raises an exception.
    """
    texts = texts_of(rollout, batch, tokenizer)
    mask, ended = rollout.mask.cpu(), rollout.ended.cpu()
    total, score = torch.zeros(mask.shape, dtype=torch.float64), torch.zeros(len(mask), dtype=torch.float64)
    sampled = ((rollout.role == SAMPLED) & rollout.valid).cpu()  # others are left out of all means
    metrics: dict[str, float] = {}
    for part in parts_of(reward):
        said = _measure(part.reward, credit, texts, tokenizer)
        measured = torch.from_numpy(said.scores)
        _, own = _ends(measured, mask, credit.needs_prefixes)
        measured = _weighted(part, measured, own[sampled & ~own.isnan()], mask.shape)
        start, final = _ends(measured, mask, credit.needs_prefixes)
        rewards = _spread(credit, measured, mask, ended, start, final, part.name)
        spoiled = (rewards.isnan() & mask).any(-1)  # by a prefix without a score, whatever the whole text has
        final = final.masked_fill(spoiled, torch.nan)
        total, score = total + rewards, score + final
        if bool(sampled.any()):
            known = own[sampled & ~final.isnan()]
            metrics[f"rewards/{part.name}/mean"] = float(known.mean()) if len(known) else math.nan
            metrics[f"rewards/{part.name}/std"] = float(known.std(correction=0)) if len(known) else math.nan
        metrics |= {f"rewards/{part.name}/{key}": value for key, value in said.metrics.items()}
    valid = ~score.isnan()
    rewards = total.masked_fill(~(mask & valid.unsqueeze(-1)), 0.0)
    metrics["rewards/invalid"] = float((~valid).sum())
    if bool(sampled.any()):
        metrics |= _summary(score, valid & sampled, sampled, rollout.group.cpu(), mask, ended)
    shown = score[valid & (rollout.role == DEMONSTRATION).cpu()]
    if len(shown):
        metrics["demonstrations/reward"] = float(shown.mean())
    device = rollout.actions.device
    judged = replace(
        rollout, rewards=rewards.to(device, rollout.logprobs.dtype), valid=rollout.valid & valid.to(device)
    )
    return judged, Scores(metrics)


def scored(reward: Reward, texts: Texts) -> Scored:
    """Calls a reward on B texts and returns its result as a checked `Scored`: `scores` float64, one for each text [B]
    or for each token [B, T], as the reward chooses, finite or NaN (no score); `metrics` as floats; `columns` as lists
    of B plain values. Raises UserError where the reward returns anything else, such as an infinite score or one beyond
    +-1e18, and where the user's own reward raises an exception.

    The reward is given copies, and what it returns is copied: neither side sees what the other writes later.
    """
    said = call_user_code(reward, "reward", reward, own_texts(texts))
    return scored_of(said, name_of(reward), len(texts.hypotheses), [texts.mask.shape[:1], texts.mask.shape])


def check_columns(rewards: Iterable[Reward], dataset: Dataset) -> None:
    """Raises UserError where a reward, or a part of a mixture, needs a column that the first example of train, val or
    test does not have. Reads nothing where no reward is a `ReadsColumns`; skips a split that is empty or cannot be
    read."""
    every = [part.reward for each in rewards for part in parts_of(each)]
    readers = [each for each in every if isinstance(each, ReadsColumns)]
    for split in SPLITS if readers else ():
        example = None
        with suppress(UserError):  # a split that cannot be read is reported by the function that reads it
            example = dataset.example(split, 0) if dataset.size(split) != 0 else None
        if example is not None:
            for reader in readers:
                reader.check_columns(example.columns)


def per_text(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns one score for each text, [B], from scores [B], which come back as they are, or [B, T], one number a
    token, of which each row is summed over the real tokens of mask [B, T] bool: NaN where one of these is, 0 where
    there is none."""
    whole: np.ndarray = scores if scores.ndim == 1 else np.where(mask, scores, 0.0).sum(-1)
    return whole


def mean_of(scores: np.ndarray) -> float:
    """Returns the mean, a number, of the scores [B] that are not NaN; NaN, without a warning, where there is none."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else math.nan


def corpus_score(metric: Reward, texts: Texts) -> CorpusScore:
    """Returns the score of a metric over all B texts, on its own scale: what its `corpus` gives, or else the mean of
    its scores of the texts, where scores per token are summed first and NaN ones are left out. The value may be NaN, as
    where no text has a score. The metric is given copies. Raises UserError where a metric of the user's raises an
    exception, or returns something of another type or shape, or an infinite number."""
    if isinstance(metric, ScoresCorpus):
        said = call_user_code(metric, "metrics", metric.corpus, own_texts(texts))
        return corpus_of(said, name_of(metric), len(texts.hypotheses))
    return mean_score(per_text(scored(metric, texts).scores, texts.mask), f"mean of {type(metric).__name__}")


def name_of(reward: Reward) -> str:
    """Returns the name that a reward's numbers are logged under: its own `name`, or the last part of the name of its
    class's module, such as "bleu"."""
    return str(reward.name) if isinstance(reward, Named) else type(reward).__module__.rpartition(".")[2]


def parts_of(reward: Reward) -> list[Part]:
    """Returns the parts of a mixture, its own list and not a copy; for any other reward a new list with itself as the
    only part, with weight and scale 1, shift 0, and without normalisation."""
    return reward.parts if isinstance(reward, HasParts) else [Part(name_of(reward), reward, 1.0, 1.0, 0.0, False)]


def keyed_parts(reward: Reward) -> list[tuple[str, Part]]:
    """Returns pairs (key, part) of the parts of `parts_of`: the key is that of the part in the config,
    "reward.parts.NAME" in a mixture, else "reward"."""
    keyed = [(f"reward.parts.{part.name}", part) for part in parts_of(reward)]
    return keyed if isinstance(reward, HasParts) else [("reward", keyed[0][1])]


def reported(reward: Reward, metrics: Iterable[str], is_metric: bool) -> list[str]:
    """Returns the names of the corpus scores that an evaluation reports, each once: `metrics`, the names of those of
    the config, "reward", and the name of the reward itself where it has a corpus score. With `is_metric`, True where
    the reward is one of the metrics of the config, its own name is not added."""
    own = [name_of(reward)] if isinstance(reward, ScoresCorpus) and not is_metric else []
    return list(dict.fromkeys([*metrics, "reward", *own]))


def _ends(scores: Tensor, mask: Tensor, prefixes: bool) -> tuple[Tensor, Tensor]:
    """The score of nothing and of the whole text, [B] each. What is not of prefixes starts from 0; one number a token
    is summed; what prefix scores say past the end of a row is not read."""
    if prefixes:
        return scores[:, 0], scores.gather(1, mask.sum(-1, keepdim=True)).squeeze(1)
    whole = scores if scores.dim() == 1 else scores.masked_fill(~mask, 0.0).sum(-1)
    return torch.zeros_like(whole), whole


def _weighted(part: Part, measured: Tensor, sampled: Tensor, shape: torch.Size) -> Tensor:
    """The part's share of the sum; `sampled` are its scores of the sampled texts, `shape` that of the tokens."""
    scale, shift = part.scale, part.shift
    if measured.dim() > 1 and measured.shape == shape and (shift or part.normalize):
        remedy = "leave its shift at 0, and reward.normalize=false"
        raise UserError(f"reward.parts.{part.name}", "gives one number a token, which cannot be shifted", remedy)
    if part.normalize and len(sampled):
        deviation = float(sampled.std(correction=0))
        scale = 1.0 / deviation if deviation > 0 else 1.0
        shift = -float(sampled.mean()) * scale
    return part.weight * (scale * measured + shift)


def _measure(reward: Reward, credit: Credit, texts: Texts, tokenizer: Tokenizer) -> Scored:
    """[B], [B, T] or, with prefixes, [B, T + 1] float64."""
    if not credit.needs_prefixes:
        return scored(reward, texts)
    prefixes = _prefixes(texts, tokenizer)
    wanted = credit.potential if isinstance(credit, HasPotential) else "prefix_scores"
    return scored_prefixes(reward, texts, prefixes, wanted)


def scored_prefixes(reward: Reward, texts: Texts, prefixes: list[list[str]], potential: str) -> Scored:
    """Returns a `Scored` with the score of every prefix: `scores` [B, T + 1] float64, finite or NaN (no score), T the
    width of texts.mask; what lies past the end of a row has no meaning. `potential` names the method of the reward that
    scores them, "prefix_scores" or "completion_scores". A reward without `prefix_scores` is called instead with each
    distinct prefix as a text; only then may `metrics` and `columns` hold something.

    `prefixes` holds the T_b + 1 prefixes of each row as texts, the first "". Raises UserError for another `potential`,
    where the reward lacks `completion_scores`, where the scores are not numbers of that shape (as of a reward that
    gives one number for each token), are infinite or beyond +-1e18, and where a reward of the user's raises an
    exception.
    """
    score = _potential(reward, potential)
    if score is None:
        return _every_prefix(reward, texts, prefixes)
    rows, width = texts.mask.shape
    returned = call_user_code(reward, "reward", score, own_texts(texts), copied(prefixes))
    return Scored(scores_of(returned, name_of(reward), [(rows, width + 1)]), {}, {})


def _potential(reward: Reward, wanted: str) -> Callable[..., Any] | None:
    """The method of the reward that scores prefixes; None where the reward has none, and scores them as texts."""
    if wanted == "completion_scores":
        if isinstance(reward, ScoresCompletions):
            return reward.completion_scores
        problem = f"needs completion_scores of the reward, which {name_of(reward)} does not have"
        raise UserError("credit", problem, "credit=delta")
    if wanted != "prefix_scores":
        raise UserError("credit", f"its potential must be prefix_scores or completion_scores, got {wanted!r}")
    return reward.prefix_scores if isinstance(reward, ScoresPrefixes) else None


def prefix_scores(reward: Reward, texts: Texts, prefixes: list[list[str]]) -> np.ndarray:
    """Returns the score of every prefix, [B, T + 1] float64, NaN where the reward does not apply; past the end of a row
    the values have no meaning.

    `prefixes` holds the T_b + 1 prefixes of each row as texts, the first ""; the longest row must have T tokens, as
    many as texts.mask has columns. The score of a mixture is the sum over its parts, weight * (scale * score + shift),
    never normalised. The differences along a row are the rewards that credit=delta gives its tokens. Raises UserError
    as `scored_prefixes` does.
    """
    total = np.zeros((len(prefixes), max(map(len, prefixes), default=1)))
    for part in parts_of(reward):
        scores = scored_prefixes(part.reward, texts, prefixes, "prefix_scores").scores
        total += part.weight * (part.scale * scores + part.shift)
    return total


def prefixes_of(ids: list[int], tokenizer: Tokenizer) -> list[str]:
    """Returns the text after each of T tokens, half words included: T + 1 strings, decode(ids[:t]) for t = 0 ... T, the
    first of them empty; [""] for no ids. A string need not begin with the one before it: one that ends inside a
    character may end in U+FFFD."""
    if isinstance(tokenizer, DecodesPrefixes):  # in one pass: decoding each prefix by itself takes quadratic time
        return list(tokenizer.prefixes(ids))
    return ["", *(tokenizer.decode(ids[:t]) for t in range(1, len(ids) + 1))]


def _prefixes(texts: Texts, tokenizer: Tokenizer) -> list[list[str]]:
    """The prefixes of each row's real tokens, as `prefixes_of` returns them."""
    rows = zip(texts.actions.tolist(), texts.mask.sum(-1).tolist(), strict=True)
    return [prefixes_of(ids[:length], tokenizer) for ids, length in rows]


def _every_prefix(reward: Reward, texts: Texts, prefixes: list[list[str]]) -> Scored:
    """The generic way: each distinct text of a row is scored by the reward itself. -> [B, T + 1].

    The finished text of a row is another thing than the same words before EOS was chosen.
    """
    width = texts.mask.shape[1] + 1
    place: dict[tuple[int, str, bool], int] = {}
    keys: list[list[tuple[int, str, bool]]] = []
    lengths: list[int] = []
    for row, strings in enumerate(prefixes):
        last = len(strings) - 1
        keys.append([(row, string, bool(texts.ended[row]) and t == last) for t, string in enumerate(strings)])
        for t, key in enumerate(keys[-1]):
            if place.setdefault(key, len(lengths)) == len(lengths):
                lengths.append(t)
    rows = [row for row, _, _ in place]
    every = Texts(
        [string for _, string, _ in place],
        [texts.references[row] for row in rows],
        [texts.sources[row] for row in rows],
        {name: [values[row] for row in rows] for name, values in texts.columns.items()},
        texts.actions[rows],
        np.arange(width - 1)[None, :] < np.array(lengths)[:, None],
        np.array([ended for _, _, ended in place]),
        texts.step,
    )
    said = scored(reward, every)
    if said.scores.ndim > 1:
        raise UserError(
            "credit", f"scores prefixes, but the reward {name_of(reward)} gives one number a token", "credit=terminal"
        )
    index = np.array([[place[key] for key in row] + [place[row[-1]]] * (width - len(row)) for row in keys])
    columns = {name: [values[place[row[-1]]] for row in keys] for name, values in said.columns.items()}
    return Scored(said.scores[index], said.metrics, columns)


def _spread(
    credit: Credit, measured: Tensor, mask: Tensor, ended: Tensor, start: Tensor, final: Tensor, name: str
) -> Tensor:
    """The rewards [B, T] that `credit` makes of what was measured, held to its contract: one number a token, and their
    sum is final - start [B], to 1e-9 of the largest reward if that is above 1 (1e-5 in float32). Raises UserError."""
    # a user's credit may write into what it gets
    rewards = call_user_code(credit, "credit", credit, measured.clone(), mask.clone(), ended.clone())
    kind = type(credit).__name__
    if not isinstance(rewards, Tensor) or rewards.shape != mask.shape:
        shape = list(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
        raise UserError("credit", f"{kind} gave {shape}, must be a tensor of rewards of shape {list(mask.shape)}")
    if rewards.is_complex() or not bool(rewards.detach().isfinite().logical_or(rewards.isnan()).all()):
        raise UserError("credit", f"{kind} gave rewards that are no finite numbers, for the scores of {name}")
    rewards = rewards.detach().to("cpu", torch.promote_types(rewards.dtype, torch.float32))
    real = rewards.masked_fill(~mask, 0.0)
    spread, largest = real.sum(-1), real.abs().amax(-1).clamp(min=1.0)
    wanted = torch.where(mask.any(-1), final - start, 0.0)
    tolerance = 1e-9 if rewards.dtype == torch.float64 else 1e-5
    wrong = ((spread - wanted).abs() > tolerance * largest) & ~wanted.isnan()
    if bool(wrong.any()):
        sums = f"the rewards of a text sum to {spread[wrong][0]:.6g}, its score by {name} is {wanted[wrong][0]:.6g}"
        raise UserError("credit", f"{kind} does not conserve the score: {sums}", "what it pays must sum to the score")
    return rewards


def _summary(
    score: Tensor, good: Tensor, sampled: Tensor, group: Tensor, mask: Tensor, ended: Tensor
) -> dict[str, float]:
    """Over the sampled rows; `reward_std` is over all of them, `frac_reward_zero_std` over sources with several. The
    three are NaN where no sampled row has a reward."""
    known = score[good]
    _, place, count = group[good].unique(return_inverse=True, return_counts=True)
    highest = torch.full((len(count),), -torch.inf, dtype=score.dtype).scatter_reduce(0, place, known, "amax")
    lowest = torch.full((len(count),), torch.inf, dtype=score.dtype).scatter_reduce(0, place, known, "amin")
    several = count > 1
    zero = float((highest == lowest)[several].double().mean()) if bool(several.any()) else 0.0
    return {
        "reward": float(known.mean()) if len(known) else math.nan,
        "reward_std": float(known.std(correction=0)) if len(known) else math.nan,
        "frac_reward_zero_std": zero if len(known) else math.nan,
        "completions/mean_length": float(mask[sampled].sum()) / max(int(sampled.sum()), 1),
        "completions/clipped_ratio": float((~ended[sampled]).sum()) / max(int(sampled.sum()), 1),
    }
