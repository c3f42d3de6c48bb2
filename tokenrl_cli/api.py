"""tokenrl from Python: `import tokenrl_cli as tokenrl`, then `tokenrl.train`, `tokenrl.load` and `tokenrl.reward`.

These functions do what the commands do, by the same code: configs are composed and checked by `cli`, policies and
evaluations are built and run by `commands/`. torch is imported when a policy or a reward is needed, not before. A
mistake in the arguments raises `UserError`, which says where, what was expected and the remedy.

Shape letters as in interfaces.py: N sources, B texts, T tokens of a text, its end (EOS) included. Log-probabilities are
natural logarithms (nats).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenrl_cli import cli
from tokenrl_cli.commandline.arguments import override
from tokenrl_cli.interfaces import UserError as UserError

if TYPE_CHECKING:
    from torch import Tensor

    from tokenrl_cli.interfaces import Model, Reward, Source, Texts
    from tokenrl_cli.run.checkpoint import Checkpoint
    from tokenrl_cli.run.task import GenerationTask

Config = dict[str, Any]


# ------------------------------------------------------------------------------------------------------ what comes back


@dataclass(frozen=True)
class Hypothesis:
    """A text token by token, as a policy generated it or scores it. T tokens, the last one EOS if `ended`."""

    text: str
    tokens: list[str]  # T: the text of each token alone; "" for EOS
    prefixes: list[str]  # T + 1: the text after each token, the first ""
    logprobs: list[float]  # T, nats: log p(token | source, tokens before it) of the policy itself, however decoded
    values: list[float] | None  # T: Q(s_t, a_t), in units of the reward; None where the policy has no values
    ended: bool  # EOS was chosen; False: cut at decode.max_length

    @property
    def logprob(self) -> float:
        """log p(text | source) in nats, a number of at most 0: the sum of `logprobs`."""
        return sum(self.logprobs)


@dataclass(frozen=True)
class Evaluated:
    """One decoding of one split. The lists have one entry for each of its n examples, in the order of the split.
    `run.evaluation.evaluate` explains the numbers in `metrics`."""

    metrics: dict[str, float]  # every number of the evaluation by name, each metric on its library's scale
    results: dict[str, Any]  # as results.json of `tokenrl eval`: value, 95 % interval and signature of each metric ...
    sources: list[str]
    references: list[list[str]]
    hypotheses: list[str]
    rewards: list[float]  # the reward of each hypothesis, NaN where it does not apply


@dataclass(frozen=True)
class PrefixScores:
    """The scores of every prefix of one text of T tokens."""

    prefixes: list[str]  # T + 1: the text after each token, the first ""
    scores: list[float]  # T + 1, NaN where the reward does not apply

    @property
    def rewards(self) -> list[float]:
        """A list of T numbers: what each token adds to the score, scores[t + 1] - scores[t]; the rewards of
        credit=delta. Their sum is the score of the text minus that of the empty text. NaN for a token with a score of
        NaN before or after it."""
        return [after - before for before, after in pairwise(self.scores)]


# ------------------------------------------------------------------------------------------------------------ functions


def load(
    path: str | PathLike[str],
    imports: Sequence[str] = (),
    device: str | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Opens a run, or a checkpoint of one, and builds its policy, in evaluation mode. Warns of settings of a preset
    without effect. Restores torch's global random state, but sets torch's number of threads where the run sets
    trainer.threads.

    Args:
        path: a run's directory, which means its best checkpoint, else its last; RUN/checkpoints/NAME; or a copy of a
            checkpoint.
        imports: your own modules or files whose classes and functions the run uses, as in `imports=[...]` of the
            command. Nothing of a run is imported that is not named here.
        device: "cpu", "cuda" or "auto", which takes a GPU if there is one; None is "auto", or device=... in
            `overrides`.
        overrides: KEY=VALUE as `tokenrl eval` takes them, for all that is done with the run: "data_root=DIR",
            "dataset.path=DIR", "decode=beam", "precision=bf16", "algorithm.beta=4" ...

    Raises:
        UserError: there is no such run, it is damaged, needs modules that `imports` does not name, or an override is
            wrong or has no effect; or a pretrained model of it is missing, has changed, or lies outside data_root and
            the current directory and is not named in `overrides` ("model.path=DIR").
    """
    words = _words("overrides", overrides) + ([override("device", device)] if device is not None else [])
    words += [override("imports", _words("imports", imports))] if imports else []
    plain = _composed(override("ckpt", str(Path(path).expanduser())), *words)

    from tokenrl_cli.run import checkpoint

    return Run(checkpoint.load(checkpoint.find(Path(plain["ckpt"]))), words)


def train(overrides: Sequence[str] = ()) -> Run:
    """Trains as `tokenrl train OVERRIDES` does, and opens the run with its best checkpoint, else its last, on the same
    device. Shows progress on standard error. Restores torch's global random state, but sets torch's number of threads
    where trainer.threads is set.

    Args:
        overrides: KEY=VALUE as the command takes them: "model=gru", "trainer.steps=400", "out=DIR", "resume=RUN",
            "imports=[my_rewards.py]" ... Without "out" the run is in a new directory below outputs/; see
            `Run.directory`.

    Raises:
        UserError: an override is wrong, "out" holds a run already, components do not fit each other, a reward fails or
            gives no text a score, a loss or probability is not finite, or the disk is full.
        KeyboardInterrupt: the first Ctrl-C of the training lets the step finish and saves the run, which
            train(["resume=RUN"]) continues. After that a second signal, Ctrl-C or SIGTERM, stops at once, without
            saving.
        SystemExit: the first SIGTERM or SIGHUP, which saves the run in the same way. A SIGHUP after another signal is
            ignored.

    Signals are handled so in the main thread only, and only from the first step on: before it nothing is saved. While
    the finished run is evaluated on test, the first signal is ignored.
    """
    from tokenrl_cli.commandline.outside_data import required_overrides
    from tokenrl_cli.commands.train import trained

    with _global_draws():
        place, plain = cli.call("train", _words("overrides", overrides), trained)
    again = [word for word in required_overrides(plain) if not word.startswith("imports=")]
    return load(place, plain["imports"], plain["trainer"]["device"], again)


def reward(name: str, *, imports: Sequence[str] = (), overrides: Sequence[str] = (), **values: Any) -> RewardFunction:
    """Builds a reward of `tokenrl list reward` by its name, to score texts without a run: the `RewardFunction` that it
    returns is called with a list of texts and a list of their references.

    Args:
        name: "bleu", "rouge", "chrf", "wer", "mixture", "callable" ...
        imports: your own modules or files, for reward("callable", function="module.name", imports=["module"]).
        overrides: KEY=VALUE for what `values` cannot express, such as another part of a mixture:
            "+reward@reward.parts.rouge=rouge".
        values: the keys of the reward's block in place of their defaults: smoothing="exp", lowercase=True ... Of a
            dictionary only the keys that it holds are replaced.

    Raises:
        UserError: there is no such reward or key, a value is of a wrong type or out of its range, or the reward refuses
            its settings.
    """
    words = [override("reward", name), *_words("overrides", overrides)]
    words += [override("imports", _words("imports", imports))] if imports else []
    config = cli.composed("validate", words)
    block = _merged(config["reward"], values)

    from tokenrl_cli.commandline.earlier_run import typed_values
    from tokenrl_cli.commandline.outside_data import refuse_outside_judges
    from tokenrl_cli.config.build import check
    from tokenrl_cli.run.assembly import device_of, reward_of

    check({"reward": block}, config["imports"])
    refuse_outside_judges({"reward": block}, typed_values(words))
    device = device_of(config["trainer"]["device"])
    return RewardFunction(name, reward_of(config | {"reward": block}, config["imports"], device, config["seed"]))


# ------------------------------------------------------------------------------------------------------------ a reward


class RewardFunction:
    """A reward that can be called with texts. Made by `reward`.

    In both methods a hypothesis is a text, or a `Hypothesis` of a run; a text is taken as ended by EOS, and its words,
    divided by white space, as its tokens. `references` holds for each hypothesis a text, or a list of texts that are
    equally right; without it no text has a reference, and a reward that reads them gives NaN. `sources` holds a text
    for each; without it all are "". `columns` is a dictionary of lists with one entry for each; without a column that
    the reward reads a call raises UserError.
    """

    def __init__(self, name: str, function: Reward) -> None:
        self.name = name
        self.function = function  # the object that training uses: tokenrl_cli.interfaces.Reward

    def __repr__(self) -> str:
        return f"<tokenrl reward {self.name}>"

    def __call__(
        self,
        hypotheses: Sequence[str | Hypothesis],
        references: Sequence[str | Sequence[str]] | None = None,
        *,
        sources: Sequence[str] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> list[float]:
        """The reward of each of B hypotheses, a list of B floats in their order; NaN where the reward does not apply.

        Metrics are in [0, 1], error rates are 1 - rate and may be negative. If a reward gives one number for each
        token, their sum is returned. Raises UserError if a list does not have B entries, or if the reward fails or
        refuses the texts.
        """
        from tokenrl_cli.episodes.scoring import per_text, scored

        _require_list("hypotheses", hypotheses)
        texts = [each.text if isinstance(each, Hypothesis) else each for each in hypotheses]
        prefixes = [_prefixes(each, f"hypotheses[{row}]") for row, each in enumerate(hypotheses)]
        seen = _texts(texts, prefixes, _ended(hypotheses), references, sources, columns)
        if not texts:
            return []
        found: list[float] = per_text(scored(self.function, seen).scores, seen.mask).tolist()
        return found

    def prefixes(
        self,
        hypotheses: Sequence[str | Sequence[str] | Hypothesis],
        references: Sequence[str | Sequence[str]] | None = None,
        *,
        sources: Sequence[str] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> list[PrefixScores]:
        """Returns the score of every prefix of each of B hypotheses, and with it the reward that credit=delta gives
        each token: a list of B `PrefixScores`. A mixture scores with its weights, and is never normalised.

        The tokens of a text are its words, divided by white space; those of a `Hypothesis` are the policy's own. A list
        of T + 1 texts, the first of them "", is taken as the prefixes themselves, of a text that is ended.
        `references`, `sources` and the lists in `columns` have B entries, as in a call; without references a reward
        that reads them gives NaN.

        Raises UserError for a list that has not B entries or does not begin with "", if the reward fails, lacks a
        column or refuses the texts, and for a reward that gives one number for each token and has no `prefix_scores`.
        """
        from tokenrl_cli.episodes.scoring import prefix_scores

        _require_list("hypotheses", hypotheses)
        prefixes = [_prefixes(each, f"hypotheses[{row}]") for row, each in enumerate(hypotheses)]
        texts = [each[-1] for each in prefixes]
        seen = _texts(texts, prefixes, _ended(hypotheses), references, sources, columns)
        if not texts:
            return []
        scores = prefix_scores(self.function, seen, prefixes).tolist()
        return [PrefixScores(each, row[: len(each)]) for each, row in zip(prefixes, scores, strict=True)]


# --------------------------------------------------------------------------------------------------------------- a run


class Run:
    """A saved policy, and the run that it comes from. Made by `load` and `train`.

    Attributes:
        path: the checkpoint's directory, absolute.
        directory: the run's directory; None if the checkpoint lies outside a run.
        step: the number of steps of the run after which the checkpoint was saved.
        stage: "warm_start" or "train" (RL), the stage that the checkpoint is of.
    """

    def __init__(self, saved: Checkpoint, words: list[str]) -> None:
        self._saved, self._words = saved, [override("ckpt", str(saved.path)), *words]
        inside = saved.path.parent.name == "checkpoints"
        self.path: Path = saved.path
        self.directory: Path | None = saved.path.parent.parent if inside else None
        self.step: int = saved.step
        self.stage: str = saved.state["stage"]
        self._plain: dict[tuple[str, ...], Config] = {}  # overrides -> the config that they compose to
        self._policy: tuple[Config, Model] | None = None  # what it was built from, and the policy
        self._voice([])

    def __repr__(self) -> str:
        return f"<tokenrl run {self.directory or self.path}, step {self.step} ({self.stage})>"

    @property
    def config(self) -> Config:
        """The config that the run was trained with, resolved: a new dictionary of plain values, yours to change. The
        overrides given to `load` are not in it."""
        return deepcopy(self._saved.config)

    def metrics(self, split: str | None = None) -> dict[str, list[Any]]:
        """Reads metrics.jsonl of the run as a table: column -> one value for each of its lines, in their order.

        The columns are step, stage ("warm_start", "train" ...), split, decode, time (seconds since the start of the
        run), then every metric under its name. A line of the split "train" holds means over the training steps since
        the line before it (extremes for names that end in /min or /max), any other line is an evaluation. None means
        that a line does not have the metric, NaN that it was no finite number. With `split` ("train", "val", "test")
        only its lines and the metrics that they have.

        Raises UserError if there is no run around the checkpoint, if the file has no line of `split`, or if it is
        missing or damaged.
        """
        if self.directory is None:
            raise UserError(str(self.path), "is a checkpoint without a run: it has no metrics.jsonl", "load the run")
        return _table(self.directory / "metrics.jsonl", split)

    def generate(
        self,
        sources: Sequence[str],
        decode: str | None = None,
        *,
        batch_size: int = 64,
        seed: int | None = None,
        **options: Any,
    ) -> list[Hypothesis]:
        """Decodes N sources. `tokenrl generate` gives the same texts for the same sources, settings, `batch_size` and
        seed; so does a second call, which draws the same random numbers.

        Args:
            sources: texts, or the paths of audio files for a model of speech; "" is the empty source, of policies of
                unconditional text. For K samples of each source give it K times.
            decode: "greedy", "beam" or "sample"; None is greedy, or the `decode` given to `load`.
            batch_size: sources decoded at once.
            seed: of sampling; None is the `seed` given to `load`, or the run's.
            options: keys of the block decode: temperature=0.7, top_k=50, beam_size=4, max_length=30 ...

        Returns: one `Hypothesis` for each source, in their order. Its log-probabilities are those of the policy itself,
        at temperature 1 and with nothing cut off, whatever the decoding.

        Raises UserError for an option that is wrong or has no effect, and for probabilities that are not finite. Warns
        of sources that are cut, of tokens that the model does not know, and of settings of a preset without effect.
        """
        from tokenrl_cli.commands.generate import rollout_from
        from tokenrl_cli.data.counts import Unread

        given = _words("sources", sources)
        task, policy = self._voice(_decoding(decode, seed, options))
        unread = Unread(task.source_reader, task.max_source_length)
        found: list[Hypothesis] = []
        for part, chunk in enumerate(_chunks(_readable(given, task), batch_size)):
            rollout = rollout_from(policy, task, chunk, part, unread)
            read = (rollout.source, rollout.source_mask, rollout.actions)
            found += _hypotheses(policy, task, *read, rollout.mask.sum(-1).tolist(), rollout.ended.tolist())
        _warn(unread.sentence())
        return found

    def score(self, sources: Sequence[str], hypotheses: Sequence[str], *, batch_size: int = 64) -> list[Hypothesis]:
        """Computes the log-probability of each hypothesis given its source, token by token, EOS included; and the
        Q-values of the tokens, if the policy has them.

        The texts are split anew by the run's tokenizer, so that a text which the policy made of other tokens has other
        log-probabilities here. Token t is scored given the hypothesis's own tokens before it.

        Args:
            sources: N texts, or paths of audio files for a model of speech.
            hypotheses: N texts, one for each source; of any length.
            batch_size: pairs scored at once.

        Returns: N `Hypothesis`, in their order, each with `ended` True; its text is what the tokenizer makes of the
        tokens.

        Raises UserError if the lists differ in length, and if a pair has more tokens than a pretrained model has
        positions for. Warns of sources that are cut, and of tokens that the model does not know.
        """
        from tokenrl_cli.data.batching import source_batch
        from tokenrl_cli.data.counts import Unread, unknown_share
        from tokenrl_cli.data.encoding import Ragged

        given, texts = _words("sources", sources), _words("hypotheses", hypotheses)
        if len(given) != len(texts):
            raise UserError("hypotheses", f"has {len(texts)} texts, expected one for each of the {len(given)} sources")
        task, policy = self._voice([])
        unread = Unread(task.source_reader, task.max_source_length)
        ids = [[*task.tokenizer.encode(text), task.tokenizer.eos_id] for text in texts]
        readable = _readable(given, task)
        found: list[Hypothesis] = []
        for rows in _chunks(list(range(len(ids))), batch_size):
            batch = source_batch([readable[i] for i in rows], task.source_reader, task.max_source_length, unread)
            chunk = [ids[i] for i in rows]
            actions, _ = Ragged(chunk, max(map(len, chunk))).padded(_all(chunk))
            moved = batch.to(task.device)
            read = (moved.source, moved.source_mask, actions.to(task.device))
            found += _hypotheses(policy, task, *read, list(map(len, chunk)), [True] * len(chunk))
        unknown = sum(each.count(task.tokenizer.unknown_id) for each in ids if task.tokenizer.unknown_id is not None)
        share = f"{unknown_share(unknown, sum(map(len, ids)), 'target')} unknown" if unknown else ""
        _warn("; ".join(filter(None, [unread.sentence(), share])))
        return found

    def evaluate(
        self,
        split: str = "test",
        decode: str | None = None,
        *,
        examples: int = 0,
        batch_size: int = 128,
        seed: int | None = None,
        **options: Any,
    ) -> Evaluated:
        """Decodes a split and measures the texts: the numbers of `tokenrl eval`. Writes no file. Restores torch's
        global random state.

        Args:
            split: "train", "val", "test", or one that dataset.splits names.
            decode: "greedy", "beam" or "sample"; None is greedy, or the `decode` given to `load`. Where all sources are
                empty, texts are sampled in any case.
            seed: of sampling, and of data that are generated; None is the `seed` given to `load`, or the run's.
            options: keys of the block decode: temperature=0.7, beam_size=4, max_length=30 ...
            examples: how many examples of the split, from its first on; 0 is all.
            batch_size: sources decoded at once; sampled texts depend on it.

        Raises UserError if an option is wrong, if the split or references that a metric needs are missing, if a reward
        or metric fails, or if the data are missing, or lie outside data_root and the current directory and were not
        named to `load`. Warns of tokens that were cut off or are unknown.
        """
        from tokenrl_cli.commandline.earlier_run import typed_values
        from tokenrl_cli.commands.eval import prepare, results_of, settings_of, unread_tokens
        from tokenrl_cli.commands.eval_errors import error_reports

        words = [override("split", split), override("examples", examples), override("batch_size", batch_size)]
        words += _decoding(decode, seed, options)
        plain = self._composed(words)
        with _global_draws():
            examination = prepare(plain, self._saved, typed_values([*self._words, *words]))
            evaluation = examination.evaluate()
        settings = settings_of(self._saved, examination.config, plain, evaluation)
        errors = error_reports(examination.task, evaluation)
        results = results_of(evaluation, str(self.path), settings, examination.findings, errors)
        _warn(unread_tokens(evaluation, examination.task))
        texts = (evaluation.sources, evaluation.references, evaluation.hypotheses)
        return Evaluated(dict(evaluation.metrics), results, *texts, evaluation.scores)

    def export(self, to: str | PathLike[str], adapter: bool = False) -> Path:
        """Writes the model to a directory, as `tokenrl export` does, and returns that directory: of a pretrained model
        one that transformers reads, of any other its tensors as safetensors. Warns where the policy is more than its
        model. Restores torch's global random state.

        Args:
            to: a directory that is new or empty; it is written whole or not at all.
            adapter: True writes what LoRA has learned alone, in the format of peft.

        Raises UserError if `to` is neither, if the model cannot be built, as where its pretrained model is missing or
        was not allowed (see `load`), or if it has no adapter to write; OSError if the directory cannot be written.
        """
        from tokenrl_cli.commandline.earlier_run import typed_values
        from tokenrl_cli.commands.export import export

        with _global_draws():
            plain = self._composed([]) | {"adapter": adapter}
            place, notes = export(self._saved, Path(to).expanduser(), plain, typed_values(self._words))
        for note in notes:
            _warn(note)
        return place

    def _composed(self, words: list[str]) -> Config:
        """The resolved config of `tokenrl eval` with these overrides after the run's own; composed once."""
        key = (*self._words, *words)
        if key not in self._plain:
            self._plain[key] = _composed(*key)
        return deepcopy(self._plain[key])

    def _voice(self, words: list[str]) -> tuple[GenerationTask, Model]:
        """What the policy generates with, and the policy; that is built anew only where its config differs."""
        from tokenrl_cli.commands.generate import prepare
        from tokenrl_cli.run.assembly import STAGES, policy_of

        plain = self._composed(words)
        whole, task, idle = prepare(plain, self._saved, [*self._words, *words])
        for finding in idle:
            _warn(finding.text)
        built_from = {key: whole[key] for key in ("model", STAGES[self.stage])} | {"limit": task.decoding.max_length}
        if self._policy is None or self._policy[0] != built_from:
            self._policy = None  # two at once may not fit
            with _global_draws():
                self._policy = built_from, policy_of(self._saved, whole, plain["imports"], task)
        return task, self._policy[1]


# -------------------------------------------------------------------------------------------------------------- helpers


def _composed(*words: str) -> Config:
    """The resolved and checked config of `tokenrl eval` with these overrides."""
    quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none")
    plain = cli.composed("eval", [*words, *quiet])

    from tokenrl_cli.commands.keys import Eval, require_keys

    require_keys(plain, Eval)
    return plain


def _hypotheses(
    policy: Model, task: GenerationTask, source: Tensor, source_mask: Tensor, actions: Tensor, lengths: list[int],
    ended: list[bool],
) -> list[Hypothesis]:  # fmt: skip
    """Texts with the log-probabilities and values of their tokens, by one teacher-forced pass. source [N, S], actions
    [N, T], of which the first `lengths` [N] of each row are real."""
    import torch

    from tokenrl_cli.episodes.scoring import prefixes_of
    from tokenrl_cli.functional.chunks import parts_of_rows
    from tokenrl_cli.functional.likelihood import negative_log_likelihood
    from tokenrl_cli.interfaces import ValuedPolicy

    logprobs: list[list[float]] = []
    values: list[list[float]] | None = []
    for rows in parts_of_rows(actions, task.tokenizer.size):
        inputs = source[rows], source_mask[rows], actions[rows]
        with torch.no_grad(), task.numerics():
            nll = negative_log_likelihood(policy(*inputs).logits, actions[rows], 0.0)
            q = policy.action_values(*inputs) if isinstance(policy, ValuedPolicy) else None
        logprobs += (0.0 - nll).tolist()  # 0 - 0 has no sign
        values = None if values is None or q is None else values + q.tolist()
    found = []
    for row, (ids, length, end) in enumerate(zip(actions.tolist(), lengths, ended, strict=True)):
        ids = ids[:length]
        found.append(
            Hypothesis(
                task.tokenizer.decode(ids),
                [task.tokenizer.decode([each]) for each in ids],
                prefixes_of(ids, task.tokenizer),
                logprobs[row][:length],
                None if values is None else values[row][:length],
                end,
            )
        )
    return found


def _decoding(decode: str | None, seed: int | None, options: Mapping[str, Any]) -> list[str]:
    """Overrides of the way to decode."""
    words = [override("decode", decode)] if decode is not None else []
    words += [override("seed", seed)] if seed is not None else []
    return words + [override(f"decode.{key}", _plain(value)) for key, value in options.items()]


def _plain(value: Any) -> Any:
    """As a config holds it: numbers of other libraries as Python's own, paths as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PathLike):
        return str(value)
    return float(value) if isinstance(value, float) else value


def _merged(block: Config, values: Mapping[str, Any]) -> Config:
    """A block of a config with other values in it, dictionaries key by key."""
    merged = dict(block)
    for key, value in _plain(values).items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else value
    return merged


def _readable(sources: list[str], task: GenerationTask) -> list[Source]:
    """The sources as the policy reads them: texts, or for a model of speech the recordings in the files they name."""
    from tokenrl_cli.data.audio import recording_of
    from tokenrl_cli.interfaces import Features

    return [recording_of(Path(each)) for each in sources] if isinstance(task.source_reader, Features) else [*sources]


def _words(name: str, given: Sequence[str]) -> list[str]:
    """A list of texts, checked. Raises UserError."""
    _require_list(name, given)
    if wrong := [each for each in given if not isinstance(each, str)]:
        raise UserError(name, f"holds {wrong[0]!r}, expected texts")
    return list(given)


def _require_list(name: str, given: Any) -> None:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise UserError(name, f"must be a list of texts, got {given!r}"[:200], f"{name}=[...]")


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    if not isinstance(size, int) or size < 1:
        raise UserError(f"batch_size={size}", "must be a whole number, at least 1")
    return (items[start : start + size] for start in range(0, len(items), size))


def _all(items: Sequence[Any]) -> Any:
    """The indices of all items, as numpy has them."""
    import numpy as np

    return np.arange(len(items))


def _prefixes(given: Any, where: str) -> list[str]:
    """The T + 1 prefixes of a hypothesis: those of a `Hypothesis`, a list as it is, a text after each word."""
    if isinstance(given, Hypothesis):
        return given.prefixes
    if isinstance(given, str):
        ends = [word.end() for word in re.finditer(r"\S+", given)]
        return ["", *(given[:end] for end in ends[:-1]), given] if given else [""]
    found = _words(where, given)
    if not found or found[0] != "":
        raise UserError(where, 'must begin with "", the prefix of no token', 'prefixes are ["", "the", "the cat"]')
    return found


def _ended(hypotheses: Sequence[Any]) -> list[bool]:
    return [each.ended if isinstance(each, Hypothesis) else True for each in hypotheses]


def _texts(
    hypotheses: list[Any], prefixes: list[list[str]], ended: list[bool], references: Any, sources: Any, columns: Any
) -> Texts:
    """What a reward sees of B hypotheses. Without a tokenizer the ids of tokens number distinct pieces of text."""
    import numpy as np

    from tokenrl_cli.interfaces import Texts

    count = len(hypotheses)
    given = {"references": [[]] * count if references is None else references}
    given["sources"] = [""] * count if sources is None else sources
    given |= {f"columns[{key!r}]": values for key, values in (columns or {}).items()}
    for name, values in given.items():
        _require_list(name, values)
        if len(values) != count:
            raise UserError(name, f"has {len(values)} entries, expected one for each of the {count} hypotheses")
    _words("hypotheses", hypotheses)
    several = [[each] if isinstance(each, str) else each for each in given["references"]]
    numbers: dict[str, int] = {}
    added = [[after.removeprefix(before) for before, after in pairwise(each)] for each in prefixes]
    pieces = [[piece.strip() or piece for piece in each] for each in added]  # a word is one token wherever it stands
    width = max(map(len, pieces), default=0)
    actions, mask = np.zeros((count, width), dtype=np.int64), np.zeros((count, width), dtype=np.bool_)
    for row, each in enumerate(pieces):
        actions[row, : len(each)] = [numbers.setdefault(piece, len(numbers)) for piece in each]
        mask[row, : len(each)] = True
    return Texts(
        hypotheses,
        [_words(f"references[{row}]", each) for row, each in enumerate(several)],
        _words("sources", given["sources"]),
        {key: list(values) for key, values in (columns or {}).items()},
        actions,
        mask,
        np.array(ended, dtype=np.bool_),
        0,
    )


def _table(file: Path, split: str | None) -> dict[str, list[Any]]:
    """The lines of metrics.jsonl as columns."""
    from tokenrl_cli.data.lines import json_object, read_lines

    lines = [json_object(line, f"{file}, line {number}") for number, line in enumerate(read_lines(file), 1)]
    if wrong := [number for number, line in enumerate(lines, 1) if not isinstance(line.get("metrics"), dict)]:
        raise UserError(f"{file}, line {wrong[0]}", "has no metrics", "this is no line of a run's metrics.jsonl")
    known = dict.fromkeys(line.get("split") for line in lines)
    if split is not None and split not in known:
        raise UserError(f"split={split}", f"{file} has no such lines", f"there are {', '.join(map(str, known))}")
    lines = [line for line in lines if split in (None, line.get("split"))]
    table = {key: [line.get(key) for line in lines] for key in ("step", "stage", "split", "decode", "time")}
    for name in dict.fromkeys(name for line in lines for name in line["metrics"]):
        column = [line["metrics"].get(name, "") for line in lines]
        table[name] = [float("nan") if value is None else None if value == "" else value for value in column]
    return table


def _warn(sentence: str) -> None:
    if sentence:
        warnings.warn(sentence, UserWarning, stacklevel=3)


@contextmanager
def _global_draws() -> Iterator[None]:
    """Puts torch's global generators back afterwards: first weights and dropout are drawn from them by the run's own
    seed, and the caller's draws must not depend on it."""
    import torch

    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)):
        yield
