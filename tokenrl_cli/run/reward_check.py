"""The check of rewards and metrics before training: do they tell good texts from spoiled ones?

The same rule for every reward and metric: demonstrations are scored beside the same texts spoiled in five ways. If all
six kinds get the same score, up to noise, a policy cannot learn from the reward. It is no problem if all demonstrations
get 1, or if a reward needs no reference, as long as the kinds get different scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from tokenrl_cli import streams
from tokenrl_cli.episodes.sampling import recite
from tokenrl_cli.episodes.scoring import (
    corpus_score,
    judge,
    keyed_parts,
    mean_of,
    name_of,
    parts_of,
    per_text,
    scored,
)
from tokenrl_cli.interfaces import Advised, Batch, Control, Family, Finding, Reward, Texts, Tokenizer, UserError
from tokenrl_cli.run.evaluation import batches_of
from tokenrl_cli.run.task import Task
from tokenrl_cli.usercode.calling import call_user_code
from tokenrl_cli.usercode.copies import own_texts

KINDS = ("demonstrations", "of other sources", "cut in half", "shuffled", "one word repeated", "empty")
SOURCES = 32  # demonstrations scored, in six versions each: as many texts as in 1.5 default batches of RL
MORE = 256  # demonstrations scored before a reward counts as giving no number at all
FEW = 8  # with fewer sources noise cannot be estimated: only equal means count as the same
ERRORS = 4.0  # standard errors within which means count as the same; pure noise exceeds them in 1 of 200 checks

Verdict = Literal["nothing", "alike", "inverted", "alive"]


@dataclass(frozen=True)
class Trial:
    """N demonstrations and five spoiled versions of them: one Texts of N rows for each of KINDS."""

    kinds: list[Texts]
    same: np.ndarray  # [kinds, N] bool, spoiling left the text unchanged: such pairs are not compared

    @property
    def together(self) -> Texts:
        """All kinds in one Texts of kinds * N rows, one kind after the other, for a single call of a reward."""
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
    """Returns the demonstrations of a batch of N sources, and five spoiled versions of each: the demonstration of
    another source, the first half (without EOS), the words shuffled, the first word repeated, and the empty text.

    Words are divided by white space; a text of a single word is spoiled by characters instead. Spoiled texts are cut at
    `max_length` tokens. `seed` determines the shuffling. If all demonstrations are equal, that of another source is the
    source's own.
    """
    ids = [row[real].tolist() for row, real in zip(batch.targets.cpu(), batch.target_mask.cpu(), strict=True)]
    texts = [tokenizer.decode(list(row)) for row in ids]
    draws = streams.generator(seed, "rehearsal")
    rows = [ids, [ids[other] for other in _others(texts)]]
    for spoil in (_halved, _shuffled, _repeated, _emptied):
        spoiled = [spoil(text, draws) for text in texts]
        # half a text is one that was cut at the limit, so it has no EOS
        eos = [] if spoil is _halved else [tokenizer.eos_id]
        rows.append([([*tokenizer.encode(text), *eos])[:max_length] for text in spoiled])
    kinds = [_texts(batch, tokenizer, each) for each in rows]
    same = np.array([[a == b for a, b in zip(each.hypotheses, texts, strict=True)] for each in kinds])
    return Trial(kinds, same)


def verdict(scores: np.ndarray, same: np.ndarray) -> Verdict:
    """Returns what the scores [kinds, N] of a Trial show, its first row those of the demonstrations, NaN for a missing
    score; `same` [kinds, N] bool is True where spoiling left the text unchanged: such pairs are not compared.

    "nothing": all scores are NaN. "alike": no spoiled kind differs from the demonstrations by more than noise, which is
    ERRORS (4) standard errors of the mean difference per source, or rounding if fewer than FEW (8) sources can be
    compared. "inverted": demonstrations score lower than every spoiled kind, of at least two. "alive": anything else;
    also if no pair can be compared.
    """
    if np.isnan(scores).all():
        return "nothing"
    signs = []
    for kind, unchanged in zip(scores[1:], same[1:], strict=True):
        pair = (scores[0] - kind)[~unchanged]
        difference = pair[~np.isnan(pair)]
        if len(difference):
            # rounding: sums in another order differ by this much
            smallest = 1e-9 * max(1.0, float(np.nanmax(np.abs(scores))))
            # paired by source, so that easy and hard sources do not count as noise
            error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) >= FEW else 0.0
            mean = float(difference.mean())
            signs.append(0.0 if abs(mean) <= ERRORS * error + smallest else np.sign(mean))
    if not any(signs):
        return "alike" if signs else "alive"  # without any comparable pair nothing speaks against the reward
    return "inverted" if len(signs) > 1 and all(sign < 0 for sign in signs) else "alive"


def reward_findings(reward: Reward, tried: Trial, rewarded: bool) -> list[Finding]:
    """Returns the findings about a reward before training, for each part of a mixture separately. `tried` is what
    `trial` returned.

    "dead_reward" is a stop if no text gets a number, or if no demonstration has one after the credit (`rewarded` says
    whether any has); a warning if all kinds get the same; a note if they do and the reward is a control, which is
    constant on purpose. "inverted_reward" is a warning: demonstrations get less than each kind of spoiled text.
    "fragile_reward" is a warning: the reward raises an error on spoiled texts, which a policy may well generate. Any
    error of the reward is taken to be on spoiled texts: score the demonstrations before this is called.
    """
    found: list[Finding] = []
    for key, part in keyed_parts(reward):
        each = part.reward
        scores, problem = _attempt(lambda each=each: _scores(each, tried))  # type: ignore[misc]
        if scores is None:
            text = f"the reward {name_of(each)} fails on spoiled texts (cut, shuffled, repeated, empty): {problem}"
            found.append(Finding("fragile_reward", "warning", 0, text, key))
            continue
        finding = _reward_finding(each, verdict(scores, tried.same), scores, tried, key)
        found += [finding] if finding is not None else []
    if not rewarded and "stop" not in [finding.severity for finding in found]:
        text = (
            "the reward gives numbers for some texts, but no demonstration has one after the credit: a credit that "
            "scores prefixes needs a number for every prefix of a text, the empty one included"
        )
        found.append(Finding("dead_reward", "stop", 0, text, "credit"))
    return found


def metric_findings(name: str, metric: Reward, tried: Trial) -> list[Finding]:
    """Returns the findings about a metric of the evaluation, `name` its key in the config, on the texts `tried` that
    `trial` returned: a "dead_metric" warning if demonstrations and all kinds of spoiled texts get the same scores, up
    to noise, or the same corpus score, or none at all; a "fragile_metric" warning if it raises an error on spoiled
    texts.

    A control gets none. Errors on demonstrations are raised as they are.
    """
    if isinstance(metric, Control) and metric.control:
        return []
    first = corpus_score(metric, tried.kinds[0])
    others, problem = _attempt(lambda: [corpus_score(metric, texts) for texts in tried.kinds[1:]])
    if others is None:
        text = f"the metric {name} fails on spoiled texts (cut, shuffled, repeated, empty): {problem}"
        return [Finding("fragile_metric", "warning", 0, text, f"metrics.{name}")]
    every = [first, *others]
    values = np.array([score.value for score in every])
    verdicts = [verdict(np.stack([score.sentences for score in every]), tried.same)]
    verdicts.append(verdict(values[:, None], np.zeros((len(every), 1), dtype=bool)))
    if not {"nothing", "alike"} & set(verdicts):
        return []
    text = f"the metric {name} does not distinguish demonstrations from spoiled texts: {_listed(values)}."
    text += _advice(metric, tried, first.sentences)
    return [Finding("dead_metric", "warning", 0, text, f"metrics.{name}")]


def differing_metrics(block: dict[str, Any], reward: Reward, blocks: dict[str, dict[str, Any]]) -> list[Finding]:
    """Compares the reward, and each part of a mixture, with the metric of the same name. Returns a "metric_differs"
    finding where the two are of the same class with different settings: one name would then stand for two measures.
    `block` is the config of `reward`; `blocks` the config of each metric, by name.

    The finding is a note if only settings differ that choose another measure of a family (ROUGE-1 or ROUGE-L, see
    `Family`), else a warning. There is none for a reward or part whose config equals that of any metric, whatever its
    name.
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
        text = f"{', '.join(pairs)}: {name} in the table is not the measure that is rewarded. {remedy} makes them equal"
        found.append(Finding("metric_differs", severity, 0, text, f"metrics.{name}.{keys[0]}"))
    return found


# -------------------------------------------------------------------------------------------------------- the findings


def _reward_finding(reward: Reward, result: Verdict, scores: np.ndarray, tried: Trial, key: str) -> Finding | None:
    """The finding that states a verdict about a reward, None if it is alive. scores [kinds, N]; `key` is the
    setting."""
    name, means = name_of(reward), _listed([mean_of(row) for row in scores])
    if result == "alive":
        return None
    if result == "nothing":
        text = f"the reward {name} gives no number for any of {scores.size} texts, demonstrations and spoiled ones"
        return Finding("dead_reward", "stop", 0, f"{text}.{_advice(reward, tried, scores[0])}", key)
    if result == "inverted":
        text = f"the reward {name} is lower for demonstrations than for each kind of spoiled text: {means}"
        return Finding("inverted_reward", "warning", 0, f"{text}. Is its sign right?", key)
    text = f"the reward {name} gives demonstrations and spoiled texts the same: {means}"
    if isinstance(reward, Control) and reward.control:
        return Finding("dead_reward", "note", 0, f"{text}: it is a control, which is meant to teach nothing", key)
    text += f". RL cannot learn from it.{_advice(reward, tried, scores[0])}"
    return Finding("dead_reward", "warning", 0, text, key)


def _listed(means: Any) -> str:
    """The mean score of each kind as text."""
    return ", ".join(f"{kind} {mean:.3g}" for kind, mean in zip(KINDS, means, strict=True))


def _advice(reward: Reward, tried: Trial, scores: np.ndarray) -> str:
    """The advice of a reward that can give any, after a space; scores [N] are those of the demonstrations."""
    if not isinstance(reward, Advised):
        return ""
    advice = call_user_code(reward, "reward", reward.advice, own_texts(tried.kinds[0]), scores.copy())
    return f" {advice}" if advice else ""


def _scores(reward: Reward, tried: Trial) -> np.ndarray:
    """The score of every text of a trial: [kinds, N]."""
    together = tried.together
    scores: np.ndarray = per_text(scored(reward, together).scores, together.mask).reshape(len(KINDS), -1)
    return scores


def _attempt(call: Callable[[], Any]) -> tuple[Any, str]:
    """The result of a call and "", or None and the error. Demonstrations have been scored before, so that an error
    comes from a spoiled text."""
    try:
        return call(), ""
    except Exception as error:  # the user's code may do anything
        return None, f"{type(error).__name__}: {error}"


# ---------------------------------------------------------------------------------------------------------- the texts


def _others(texts: list[str]) -> list[int]:
    """For each text the index of the next one that differs from it; its own index if all are equal."""
    count = len(texts)
    places = [[(i + step) % count for step in range(1, count)] for i in range(count)]
    return [next((j for j in after if texts[j] != texts[i]), i) for i, after in enumerate(places)]


def _pieces(text: str) -> tuple[list[str], str]:
    """The words of a text and a space, or the characters of a single word and ""."""
    words = text.split()
    return (words, " ") if len(words) > 1 else (list(text), "")


def _halved(text: str, _draws: torch.Generator) -> str:
    pieces, between = _pieces(text)
    return between.join(pieces[: len(pieces) // 2])


def _shuffled(text: str, draws: torch.Generator) -> str:
    pieces, between = _pieces(text)
    return between.join(pieces[i] for i in torch.randperm(len(pieces), generator=draws).tolist())


def _repeated(text: str, _draws: torch.Generator) -> str:
    pieces, between = _pieces(text)
    return between.join(pieces[:1] * len(pieces))


def _emptied(_text: str, _draws: torch.Generator) -> str:
    return ""


def _texts(batch: Batch, tokenizer: Tokenizer, ids: list[list[int]]) -> Texts:
    """The Texts of N token sequences, one for each source of a batch."""
    width = max(1, *map(len, ids))
    lengths = np.array([len(row) for row in ids])
    actions = np.array([row + [tokenizer.eos_id] * (width - len(row)) for row in ids], dtype=np.int64)
    mask = np.arange(width)[None, :] < lengths[:, None]
    hypotheses = [tokenizer.decode(list(row)) for row in ids]
    ended = np.array([tokenizer.eos_id in row for row in ids])
    return Texts(hypotheses, batch.references, batch.sources, batch.columns, actions, mask, ended, batch.step)


def check_rewards(task: Task, learns: bool) -> list[Finding]:
    """Scores demonstrations of val with reward, credit (which the task must have) and metrics, and spoiled versions
    with reward and metrics.

    Returns the findings; none is a "stop". Raises UserError if reward, credit or a metric fails on demonstrations, if
    reward and credit do not fit each other, or if no demonstration has a reward in a run that `learns` from rewards; in
    another run that is a warning. If one of these demonstrations has no reference, only a note says that nothing was
    checked.

    Scores the first SOURCES (32) demonstrations with the credit, and six times as many texts with the reward; only if
    none has a reward the first MORE (256) demonstrations with the credit.
    """
    _, batch = next(batches_of(task, "val", SOURCES, SOURCES))  # enough that a few samples without a reward stop no run
    if not all(batch.references):
        text = "val has sources without references: reward and metrics were not checked on demonstrations"
        return [Finding("not_tried", "note", 0, text, None)]
    rewarded = _rewarded(task, batch) or (
        len(batch.sources) == SOURCES and _rewarded(task, next(batches_of(task, "val", MORE, MORE))[1])
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
    """Whether any demonstration of a batch has a reward after the credit."""
    rollout = recite(batch, task.tokenizer.eos_id)
    assert task.credit is not None
    return bool(judge(rollout, batch, task.tokenizer, task.reward, task.credit)[0].valid.any())
