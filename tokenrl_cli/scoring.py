"""Where text meets tensors: `judge` turns what was said into rewards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli.interfaces import SAMPLED, Batch, Credit, Reward, Rollout, Texts, Tokenizer, UserError


@dataclass(frozen=True)
class Scores:
    """What was measured: `metrics` for the log, `columns` for tables of samples."""

    metrics: dict[str, float]
    columns: dict[str, list[Any]]


def texts_of(rollout: Rollout, batch: Batch, tokenizer: Tokenizer) -> Texts:
    """The text of each row, from its own sampled ids, with what is known of its source.

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
        rollout.step,
    )


def judge(
    rollout: Rollout, batch: Batch, tokenizer: Tokenizer, reward: Reward, credit: Credit
) -> tuple[Rollout, Scores]:
    """Gives every token its reward. A mixture is credited part by part, then summed with its weights.

    A row whose reward is NaN is invalid: it gets no reward, weighs nothing, and is counted.
    """
    texts = texts_of(rollout, batch, tokenizer)
    mask, ended = rollout.mask.cpu(), rollout.ended.cpu()
    total, score = torch.zeros(mask.shape, dtype=torch.float64), torch.zeros(len(mask), dtype=torch.float64)
    sampled = (rollout.role == SAMPLED).cpu()
    metrics: dict[str, float] = {}
    for name, weight, part in getattr(reward, "parts", [(_name(reward), 1.0, reward)]):
        measured = torch.from_numpy(_measure(part, credit, texts, tokenizer))
        rewards = credit(measured, mask, ended)
        final = measured[:, -1] if credit.needs_prefixes else _whole(measured, mask)
        _check_sum(rewards, mask, final, measured[:, 0] if credit.needs_prefixes else torch.zeros_like(final), name)
        spoiled = (rewards.isnan() & mask).any(-1)  # by a prefix without a score, whatever the whole text has
        final = final.masked_fill(spoiled, torch.nan)
        total, score = total + weight * rewards, score + weight * final
        known = final[sampled & ~final.isnan()]
        metrics[f"rewards/{name}/mean"] = float(known.mean()) if len(known) else 0.0
        metrics[f"rewards/{name}/std"] = float(known.std(correction=0)) if len(known) else 0.0
    valid = ~score.isnan()
    rewards = total.masked_fill(~(mask & valid.unsqueeze(-1)), 0.0)
    metrics |= _summary(score, valid & sampled, sampled, rollout.group.cpu(), mask, ended)
    device = rollout.actions.device
    judged = replace(
        rollout, rewards=rewards.to(device, rollout.logprobs.dtype), valid=rollout.valid & valid.to(device)
    )
    columns = {
        "sources": texts.sources,
        "hypotheses": texts.hypotheses,
        "references": [references[0] if references else "" for references in texts.references],
        "scores": score.tolist(),
    }
    return judged, Scores(metrics, columns)


def _name(reward: Reward) -> str:
    """A reward is named like the module it lives in."""
    return type(reward).__module__.rpartition(".")[2]


def _whole(scores: Tensor, mask: Tensor) -> Tensor:
    """[B] as it is; [B, T], one number a token, summed."""
    return scores if scores.dim() == 1 else scores.masked_fill(~mask, 0.0).sum(-1)


def _measure(reward: Reward, credit: Credit, texts: Texts, tokenizer: Tokenizer) -> np.ndarray:
    if not credit.needs_prefixes:
        scores = reward(texts)
    elif hasattr(reward, "prefix_scores"):
        scores = reward.prefix_scores(texts, _prefixes(texts, tokenizer))
    else:
        scores = _every_prefix(reward, texts, _prefixes(texts, tokenizer))
    scores = np.asarray(scores, dtype=np.float64)
    if np.isinf(scores).any():
        raise ValueError(f"the reward {_name(reward)} gave an infinite score")
    return scores


def _prefixes(texts: Texts, tokenizer: Tokenizer) -> list[list[str]]:
    """T_b + 1 strings a row, the first "": the text after each token, half words included."""
    lengths = texts.mask.sum(-1).tolist()
    rows = zip(texts.actions.tolist(), lengths, strict=True)
    return [["", *(tokenizer.decode(ids[:t]) for t in range(1, length + 1))] for ids, length in rows]


def _every_prefix(reward: Reward, texts: Texts, prefixes: list[list[str]]) -> np.ndarray:
    """The generic way: each distinct text of a row is scored by the reward itself. -> [B, T + 1]."""
    width = texts.mask.shape[1] + 1
    place: dict[tuple[int, str], int] = {}
    rows: list[int] = []
    lengths: list[int] = []
    for row, strings in enumerate(prefixes):
        for t, string in enumerate(strings):
            if (row, string) not in place:
                place[row, string] = len(rows)
                rows.append(row)
                lengths.append(t)
    mask = np.arange(width - 1)[None, :] < np.array(lengths)[:, None]
    every = Texts(
        [string for _, string in place],
        [texts.references[row] for row in rows],
        [texts.sources[row] for row in rows],
        {name: [values[row] for row in rows] for name, values in texts.columns.items()},
        texts.actions[rows],
        mask,
        texts.step,
    )
    scores = np.asarray(reward(every), dtype=np.float64)
    if scores.ndim != 1:
        raise UserError(
            "credit", f"scores prefixes, but the reward {_name(reward)} gives one number a token", "credit=terminal"
        )
    filled = [[scores[place[row, string]] for string in strings] for row, strings in enumerate(prefixes)]
    return np.array([values + [values[-1]] * (width - len(values)) for values in filled])


def _check_sum(rewards: Tensor, mask: Tensor, final: Tensor, start: Tensor, name: str) -> None:
    """Credit spreads a score; it neither makes nor loses any."""
    spread = rewards.masked_fill(~mask, 0.0).sum(-1)
    wanted = torch.where(mask.any(-1), final - start, 0.0)
    wrong = ((spread - wanted).abs() > 1e-9) & ~wanted.isnan()
    if bool(wrong.any()):
        raise AssertionError(f"the credit of {name} sums to {spread[wrong][0]}, not to {wanted[wrong][0]}")


def _summary(
    score: Tensor, good: Tensor, sampled: Tensor, group: Tensor, mask: Tensor, ended: Tensor
) -> dict[str, float]:
    """Over the sampled rows; `reward_std` is over all of them, `frac_reward_zero_std` over sources with several."""
    known = score[good]
    _, place, count = group[good].unique(return_inverse=True, return_counts=True)
    highest = torch.full((len(count),), -torch.inf, dtype=score.dtype).scatter_reduce(0, place, known, "amax")
    lowest = torch.full((len(count),), torch.inf, dtype=score.dtype).scatter_reduce(0, place, known, "amin")
    several = count > 1
    return {
        "reward": float(known.mean()) if len(known) else 0.0,
        "reward_std": float(known.std(correction=0)) if len(known) else 0.0,
        "frac_reward_zero_std": float((highest == lowest)[several].double().mean()) if bool(several.any()) else 0.0,
        "rewards/invalid": float((sampled & ~good).sum()),
        "completions/mean_length": float(mask[sampled].sum(-1).double().mean()),
        "completions/clipped_ratio": float((~ended[sampled]).double().mean()),
    }
