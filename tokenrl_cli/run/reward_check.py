"""Where a reward is tried out before it is learned from: does it tell good texts from spoiled ones?

One rule for every reward and metric. Demonstrations are scored beside the same texts spoiled in five ways. Where all
six kinds earn the same within noise, the reward says nothing that a policy could learn, or a table could show. That
demonstrations all earn 1 is healthy, and so is a reward that needs no reference and tells the kinds apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from tokenrl_cli import streams
from tokenrl_cli.episodes.scoring import corpus_score, keyed_parts, mean_of, name_of, parts_of, per_text, scored
from tokenrl_cli.interfaces import Advised, Batch, Control, Family, Finding, Reward, Texts, Tokenizer
from tokenrl_cli.usercode.calling import ask
from tokenrl_cli.usercode.copies import own_texts

KINDS = ("demonstrations", "of other sources", "cut in half", "shuffled", "one word repeated", "empty")
SOURCES = 32  # demonstrations tried: 6 texts of each, which is one and a half batches of RL by default
MORE = 256  # demonstrations looked at before a reward is said to give no number at all
FEW = 8  # sources below which nothing is known of noise: there only equal numbers are the same
ERRORS = 4.0  # standard errors within which two means are the same; noise differs more in 1 of 200 trials of 5 kinds

Verdict = Literal["nothing", "alike", "inverted", "alive"]


@dataclass(frozen=True)
class Trial:
    """N demonstrations of a batch and the same spoiled: one Texts a kind, in the order of KINDS; all have N rows."""

    kinds: list[Texts]
    same: np.ndarray  # [kinds, N] bool: spoiling changed nothing, so that the pair says nothing

    @property
    def together(self) -> Texts:
        """All kinds in one Texts of kinds * N rows: one call of a reward."""
        width = max(texts.actions.shape[1] for texts in self.kinds)

        def stacked(name: str) -> np.ndarray:
            parts = [getattr(texts, name) for texts in self.kinds]
            return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])

        def joined(name: str) -> list[Any]:
            return [item for texts in self.kinds for item in getattr(texts, name)]

        columns = {key: values * len(self.kinds) for key, values in self.kinds[0].columns.items()}
        ended = np.concatenate([texts.ended for texts in self.kinds])
        lists = (joined("hypotheses"), joined("references"), joined("sources"))
        return Texts(*lists, columns, stacked("actions"), stacked("mask"), ended, self.kinds[0].step)


def trial(batch: Batch, tokenizer: Tokenizer, max_length: int, seed: int) -> Trial:
    """The demonstrations of a batch, and the same: with another source, cut in half (EOS not chosen), shuffled, its
    first word as often as it has words, and empty. Words are what spaces divide; a text of one word is taken by
    characters. Each is spelt by the tokenizer and cut at `max_length` tokens. Draws from a stream of its own."""
    ids = [row[real].tolist() for row, real in zip(batch.targets.cpu(), batch.target_mask.cpu(), strict=True)]
    said = [tokenizer.decode(list(row)) for row in ids]
    draws = streams.generator(seed, "rehearsal")
    rows = [ids, [ids[other] for other in _others(said)]]
    for spoil in (_halved, _shuffled, _repeated, _emptied):
        texts = [spoil(text, draws) for text in said]
        eos = [] if spoil is _halved else [tokenizer.eos_id]
        rows.append([([*tokenizer.encode(text), *eos])[:max_length] for text in texts])
    kinds = [_texts(batch, tokenizer, each) for each in rows]
    same = np.array([[a == b for a, b in zip(each.hypotheses, said, strict=True)] for each in kinds])
    return Trial(kinds, same)


def verdict(scores: np.ndarray, same: np.ndarray) -> Verdict:
    """scores [kinds, N], demonstrations first, NaN where there is none; `same` as in Trial.

    "nothing": all are NaN. "alike": no kind differs from the demonstrations by more than noise, ERRORS standard errors
    of the mean of the differences by source. "inverted": demonstrations earn less than every other kind. Else "alive".
    """
    if np.isnan(scores).all():
        return "nothing"
    signs = []
    for kind, unchanged in zip(scores[1:], same[1:], strict=True):
        pair = (scores[0] - kind)[~unchanged]
        difference = pair[~np.isnan(pair)]
        if len(difference):
            smallest = 1e-9 * max(1.0, float(np.nanmax(np.abs(scores))))
            error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) >= FEW else 0.0
            mean = float(difference.mean())
            signs.append(0.0 if abs(mean) <= ERRORS * error + smallest else np.sign(mean))
    if not any(signs):
        return "alike" if signs else "alive"  # nothing to compare with is no verdict
    return "inverted" if len(signs) > 1 and all(sign < 0 for sign in signs) else "alive"


def reward_findings(reward: Reward, tried: Trial, rewarded: bool) -> list[Finding]:
    """What a user should know of a reward, each part of a mixture by itself, before learning from it.

    "dead_reward": a stop where no text has a number, or none did after the credit (`rewarded`: whether any
    demonstration did); a warning where all kinds earn the same, but a note for a control, which is dead by purpose.
    "inverted_reward", a warning: demonstrations earn less than each kind of spoiled text. "fragile_reward", a warning:
    it fails on spoiled texts, which a policy may well say.
    """
    found: list[Finding] = []
    for key, part in keyed_parts(reward):
        each = part.reward
        scores, problem = _tried(lambda each=each: _scores(each, tried))  # type: ignore[misc]
        if scores is None:
            text = f"the reward {name_of(each)} fails on spoiled texts (cut, shuffled, repeated, empty): {problem}"
            found.append(Finding("fragile_reward", "warning", 0, text, key))
            continue
        finding = _judged(each, verdict(scores, tried.same), scores, tried, key)
        found += [finding] if finding is not None else []
    if not rewarded and "stop" not in [finding.severity for finding in found]:
        text = (
            "the reward gives numbers for some texts, but no demonstration has one after the credit: where credit "
            "scores prefixes, a text counts only if every prefix of it has a number, the empty one included"
        )
        found.append(Finding("dead_reward", "stop", 0, text, "credit"))
    return found


def metric_findings(name: str, metric: Reward, tried: Trial) -> list[Finding]:
    """The same rule for a metric of evaluation: "dead_metric", where each text or each whole test set of a kind scores
    the same, or nothing scores at all. A control is left out. Raises what the metric raises of demonstrations."""
    if isinstance(metric, Control) and metric.control:
        return []
    first = corpus_score(metric, tried.kinds[0])
    others, problem = _tried(lambda: [corpus_score(metric, texts) for texts in tried.kinds[1:]])
    if others is None:
        text = f"the metric {name} fails on spoiled texts (cut, shuffled, repeated, empty): {problem}"
        return [Finding("fragile_metric", "warning", 0, text, f"metrics.{name}")]
    every = [first, *others]
    values = np.array([score.value for score in every])
    verdicts = [verdict(np.stack([score.sentences for score in every]), tried.same)]
    verdicts.append(verdict(values[:, None], np.zeros((len(every), 1), dtype=bool)))
    if not {"nothing", "alike"} & set(verdicts):
        return []
    text = f"the metric {name} does not tell demonstrations from spoiled texts: {_listed(values)}."
    text += _advice(metric, tried, first.sentences)
    return [Finding("dead_metric", "warning", 0, text, f"metrics.{name}")]


def differing_metrics(
    block: dict[str, Any], reward: Reward, blocks: dict[str, dict[str, Any]], metrics: dict[str, Reward]
) -> list[Finding]:
    """Where a metric has the name and the class of the reward, or of a part of it, and other settings: two measures
    behind one name, "metric_differs". `block` and `blocks` are the configs of `reward` and `metrics`.

    A note where only settings differ that choose another measure of a family (ROUGE-1, ROUGE-L), else a warning.
    Nothing is said where some metric has the settings of the reward, whatever its name.
    """
    inner = block.get("parts", {})
    rewards = [("reward", name_of(reward), block, reward)]
    rewards += [
        (f"reward.parts.{part.name}", part.name, inner[part.name], part.reward)
        for part in parts_of(reward)
        if part.name in inner
    ]
    found = []
    for key, name, own, each in rewards:
        other = blocks.get(name)
        if other is None or other["_target_"] != own["_target_"] or own in blocks.values():
            continue
        keys = [setting for setting in own | other if own.get(setting) != other.get(setting)]
        family = each.measures if isinstance(each, Family) else ()
        severity: Literal["note", "warning"] = "note" if set(keys) <= set(family) else "warning"
        pairs = [f"{key}.{k}={own.get(k)} but metrics.{name}.{k}={other.get(k)}" for k in keys]
        remedy = " ".join(f"metrics.{name}.{k}={own.get(k)}" for k in keys)
        text = f"{', '.join(pairs)}: the table's {name} is not what is rewarded. {remedy} makes them one"
        found.append(Finding("metric_differs", severity, 0, text, f"metrics.{name}.{keys[0]}"))
    return found


# --------------------------------------------------------------------------------------------------------- the verdict


def _judged(reward: Reward, said: Verdict, scores: np.ndarray, tried: Trial, key: str) -> Finding | None:
    name, earned = name_of(reward), _listed([mean_of(row) for row in scores])
    if said == "alive":
        return None
    if said == "nothing":
        text = f"the reward {name} gives no number for any of {scores.size} texts, demonstrations and spoiled ones"
        return Finding("dead_reward", "stop", 0, f"{text}.{_advice(reward, tried, scores[0])}", key)
    if said == "inverted":
        text = f"demonstrations earn less of the reward {name} than each kind of spoiled text: {earned}"
        return Finding("inverted_reward", "warning", 0, f"{text}. Is its sign right?", key)
    text = f"the reward {name} gives demonstrations and spoiled texts the same: {earned}"
    if isinstance(reward, Control) and reward.control:
        return Finding("dead_reward", "note", 0, f"{text}: a control, which teaches nothing by purpose", key)
    text += f". RL cannot learn from it.{_advice(reward, tried, scores[0])}"
    return Finding("dead_reward", "warning", 0, text, key)


def _listed(means: Any) -> str:
    return ", ".join(f"{kind} {mean:.3g}" for kind, mean in zip(KINDS, means, strict=True))


def _advice(reward: Reward, tried: Trial, scores: np.ndarray) -> str:
    if not isinstance(reward, Advised):
        return ""
    said = ask(reward, "reward", reward.advice, own_texts(tried.kinds[0]), scores.copy())
    return f" {said}" if said else ""


def _scores(reward: Reward, tried: Trial) -> np.ndarray:
    together = tried.together
    scores: np.ndarray = per_text(scored(reward, together).scores, together.mask).reshape(len(KINDS), -1)
    return scores


def _tried(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call gives, or None and what went wrong: demonstrations were scored before, so it was a spoiled text."""
    try:
        return call(), ""
    except Exception as error:  # the user's code may do anything
        return None, f"{type(error).__name__}: {error}"


# ---------------------------------------------------------------------------------------------------------- the texts


def _others(said: list[str]) -> list[int]:
    """For each text the next one after it that reads differently; itself where all are the same."""
    count = len(said)
    places = [[(i + step) % count for step in range(1, count)] for i in range(count)]
    return [next((j for j in after if said[j] != said[i]), i) for i, after in enumerate(places)]


def _pieces(text: str) -> tuple[list[str], str]:
    words = text.split()
    return (words, " ") if len(words) > 1 else (list(text), "")


def _halved(text: str, draws: torch.Generator) -> str:
    pieces, between = _pieces(text)
    return between.join(pieces[: len(pieces) // 2])


def _shuffled(text: str, draws: torch.Generator) -> str:
    pieces, between = _pieces(text)
    return between.join(pieces[i] for i in torch.randperm(len(pieces), generator=draws).tolist())


def _repeated(text: str, draws: torch.Generator) -> str:
    pieces, between = _pieces(text)
    return between.join(pieces[:1] * len(pieces))


def _emptied(text: str, draws: torch.Generator) -> str:
    return ""


def _texts(batch: Batch, tokenizer: Tokenizer, ids: list[list[int]]) -> Texts:
    width = max(1, *map(len, ids))
    lengths = np.array([len(row) for row in ids])
    actions = np.array([row + [tokenizer.eos_id] * (width - len(row)) for row in ids], dtype=np.int64)
    mask = np.arange(width)[None, :] < lengths[:, None]
    said = [tokenizer.decode(list(row)) for row in ids]
    ended = np.array([tokenizer.eos_id in row for row in ids])
    return Texts(said, batch.references, batch.sources, batch.columns, actions, mask, ended, batch.step)
