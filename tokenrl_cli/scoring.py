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
        start, final = _ends(measured, mask, credit.needs_prefixes)
        _check_sum(rewards, mask, start, final, name)
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


def _ends(scores: Tensor, mask: Tensor, prefixes: bool) -> tuple[Tensor, Tensor]:
    """The score of nothing and of the whole text, [B] each. What is not of prefixes starts from 0; one number a token
    is summed; what prefix scores say past the end of a row is not read."""
    if prefixes:
        return scores[:, 0], scores.gather(1, mask.sum(-1, keepdim=True)).squeeze(1)
    whole = scores if scores.dim() == 1 else scores.masked_fill(~mask, 0.0).sum(-1)
    return torch.zeros_like(whole), whole


def _measure(reward: Reward, credit: Credit, texts: Texts, tokenizer: Tokenizer) -> np.ndarray:
    """[B], [B, T] or, with prefixes, [B, T + 1] float64."""
    rows, width = texts.mask.shape
    wanted = [(rows, width + 1)] if credit.needs_prefixes else [(rows,), (rows, width)]
    if not credit.needs_prefixes:
        scores = reward(texts)
    elif hasattr(reward, "prefix_scores"):
        scores = reward.prefix_scores(texts, _prefixes(texts, tokenizer))
    else:
        scores = _every_prefix(reward, texts, _prefixes(texts, tokenizer))
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape not in wanted:
        expected = " or ".join(map(str, wanted))
        raise UserError("reward", f"{_name(reward)} gave scores of shape {scores.shape}, must be {expected}")
    if np.isinf(scores).any():
        raise ValueError(f"the reward {_name(reward)} gave an infinite score")
    return scores


def _prefixes(texts: Texts, tokenizer: Tokenizer) -> list[list[str]]:
    """T_b + 1 strings a row, the first "": the text after each token, half words included."""
    rows = zip(texts.actions.tolist(), texts.mask.sum(-1).tolist(), strict=True)
    in_one_pass = getattr(tokenizer, "prefixes", None)  # a tokenizer may have it; decoding each prefix is quadratic
    if in_one_pass is not None:
        return [in_one_pass(ids[:length]) for ids, length in rows]
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
    if scores.shape == every.mask.shape:
        raise UserError(
            "credit", f"scores prefixes, but the reward {_name(reward)} gives one number a token", "credit=terminal"
        )
    if scores.shape != (len(rows),):
        raise UserError("reward", f"{_name(reward)} gave scores of shape {scores.shape}, must be {(len(rows),)}")
    filled = [[scores[place[row, string]] for string in strings] for row, strings in enumerate(prefixes)]
    return np.array([values + [values[-1]] * (width - len(values)) for values in filled])


def _check_sum(rewards: Tensor, mask: Tensor, start: Tensor, final: Tensor, name: str) -> None:
    """Credit spreads a score; it neither makes nor loses any. To 1e-9, of the largest reward if that is above 1."""
    real = rewards.masked_fill(~mask, 0.0)
    spread, largest = real.sum(-1), real.abs().amax(-1).clamp(min=1.0)
    wanted = torch.where(mask.any(-1), final - start, 0.0)
    wrong = ((spread - wanted).abs() > 1e-9 * largest) & ~wanted.isnan()
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
        "completions/mean_length": float(mask[sampled].sum()) / max(int(sampled.sum()), 1),
        "completions/clipped_ratio": float((~ended[sampled]).sum()) / max(int(sampled.sum()), 1),
    }
