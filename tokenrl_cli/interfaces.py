"""Every noun that flows through tokenrl, and every protocol its parts keep. Read this file first.

Shape letters: N sources, K samples a source, B = N * K (and companions) episodes, source-major; S source steps,
T response tokens, V vocabulary, D hidden. Column t of every [B, T] tensor is one step of a Markov decision process:
state s_t = (source, y_<t), action a_t = y_t, and the reward r_t that comes after a_t. A mask is True where a token is
real, and it covers EOS. Padding has no id of its own: only a mask says what is real, and padded ids mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:  # commands that only read YAML import this file, and must start without torch and numpy
    import numpy as np
    import torch
    from torch import Tensor

SAMPLED, GREEDY, DEMONSTRATION, CONTINUATION = 0, 1, 2, 3  # Rollout.role

# The fields of a Rollout with one row a source, not one an episode: `value[rollout.source_row]` gives one an episode.
PER_SOURCE = ("source", "source_mask", "targets", "target_mask", "reference_ids", "reference_mask")


class UserError(Exception):
    """A mistake of the user's: printed without a traceback, exit status 2.

    `where` names the file, line or key; `problem` says what was found and what was expected; `remedy` what to do.
    """

    def __init__(self, where: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{where}: {problem}" + (f"\n  {remedy}" if remedy else ""))
        self.where, self.problem, self.remedy = where, problem, remedy


class SettingError(UserError):
    """A mistake in the settings of a part, found by its own constructor, which does not know where its block stands in
    the config: the builder does, and raises it anew as a UserError that names keys as they are typed (`placed`).

    `where` is relative to the block: "tau" or "tau=2" is one of its keys, "/head=logits" the option of one of its
    sub-groups, "" the block itself. In `problem` and `remedy` the text {here} stands for the place of the block.
    """

    def placed(self, path: str, group: str) -> UserError:
        """The same of a block of `group` at `path`: "layer" becomes "algorithm.head.layer", and "/head=logits" becomes
        "algorithm/head=logits", or "algorithm/head@warm_start.head=logits"."""
        joined = self.where if self.where[:1] in ("", "/") else f".{self.where}"
        whole = (f"{HERE}{joined}", self.problem, self.remedy)
        return UserError(*(placed(text, path, group) for text in whole))

    def __str__(self) -> str:
        return re.sub(r"\{here\}[./]?", "", super().__str__())


HERE = "{here}"


def placed(text: str, path: str, group: str = "") -> str:
    """A text in which {here} stands for the place of a block of `group`, with its `path`: "{here}.tau=1" becomes
    "warm_start.tau=1"; "{here}/head=linear", an option of a sub-group, as it is typed for that place."""
    group = group or path

    def option(match: re.Match[str]) -> str:
        key = f"{group}/{match[1]}"
        return key if group.replace("/", ".") == path else f"{key}@{path}.{match[1]}"

    return re.sub(r"\{here\}/(\w+)", option, text).replace(HERE, path)


@dataclass(frozen=True)
class Finding:
    """Something about a run that its user should know: shown at once, and kept in checkpoints and results.json.

    A "note" states a fact, a "warning" says that the numbers do not mean what they seem to, a "stop" ends the run. A
    healthy run has no warning.
    """

    rule: str  # a short name for the kind of finding, the same in every run
    severity: Literal["note", "warning", "stop"]
    step: int  # of the run, when it was found
    text: str  # one sentence for the user, with what to do
    key: str | None  # the setting to change, as it is typed; None where no single setting is to blame


@dataclass(frozen=True)
class Example:
    """One item of a dataset, as text."""

    id: str
    source: str
    references: list[str]  # equally valid targets, metrics score against all of them; [] for a prompt without any
    demonstrations: list[str]  # what imitation learns from; demonstrations[i] is references[i], corrupted or not
    columns: dict[str, Any]  # whatever else the dataset knows; rewards may read it
    place: str = field(default="", compare=False)  # where it was read, "FILE, line N", for messages


@dataclass(frozen=True)
class Batch:
    """What the environment says first: a pure function of (seed, step)."""

    step: int  # global, over the warm start and RL
    source: Tensor  # [N, S] int64 ids, or [N, S, F] float32 frames
    source_mask: Tensor  # [N, S] bool
    targets: Tensor  # [N, R] int64, one demonstration each, EOS included; R is at least 1
    target_mask: Tensor  # [N, R] bool, all False for a source without a reference
    reference_ids: Tensor  # [N, R'] int64, the clean reference behind the demonstration, EOS included
    reference_mask: Tensor  # [N, R'] bool
    sources: list[str]
    references: list[list[str]]
    columns: dict[str, list[Any]]

    def to(self, device: str | torch.device) -> Batch:
        """Returns a copy whose tensors, of the shapes above ([N, S], [N, R] ...), lie on `device`; the rest is
        shared."""
        return _moved(self, device)


@dataclass(frozen=True)
class Rollout:
    """B episodes of N sources, self-contained: a replay stores rows of it, and `rows(index)` gives minibatches.

    Each source, with its demonstration and its clean reference, is held once, however many episodes it has: models read
    it once, when they sample and when they learn.
    """

    step: int
    group: Tensor  # [B] int64, step << 32 | row of the source in its batch: unique in a run
    role: Tensor  # [B] int8: SAMPLED, GREEDY (companion), DEMONSTRATION or CONTINUATION (of row `parent`)
    parent: Tensor  # [B] int64, the row a CONTINUATION goes on from; its own row elsewhere
    source: Tensor  # [N, S] int64 ids, or [N, S, F] float32 frames
    source_mask: Tensor  # [N, S]
    targets: Tensor  # [N, R]
    target_mask: Tensor  # [N, R]
    reference_ids: Tensor  # [N, R']
    reference_mask: Tensor  # [N, R']
    source_row: Tensor  # [B] int64, the row of the six fields above that belongs to the episode
    actions: Tensor  # [B, T] int64, the sampled ids themselves; text is never tokenised again to recover them
    mask: Tensor  # [B, T] bool, from the sampler's lengths
    chosen: Tensor  # [B, T] bool, the policy chose this token (False: forced, or of a demonstration)
    logprobs: Tensor  # [B, T] of a_t under the distribution really sampled from; 0 where not chosen
    support: Tensor | None  # [B, T, k] ids the sampler could choose from, where top-k, top-p or a ban cut it
    ended: Tensor  # [B] bool, EOS was chosen; False: cut at the limit (truncated, not terminated)
    rewards: Tensor | None  # [B, T], None until scored
    valid: Tensor  # [B] bool, the reward could be computed; other rows have weight 0 and are counted

    def __len__(self) -> int:
        return len(self.actions)

    def rows(self, index: Tensor | slice) -> Rollout:
        """Returns the episodes at `index` (a slice, or a tensor [M] of int64 or bool), in its order, with the sources
        that they read, each once and in the order of this rollout. `source_row` [M] is numbered anew; `parent` [M]
        keeps the row numbers of this rollout."""
        used, source_row = self.source_row[index].unique(return_inverse=True)
        chosen = {f.name: value[used if f.name in PER_SOURCE else index] for f, value in _tensors(self)}
        return replace(self, **chosen | {"source_row": source_row})

    def to(self, device: str | torch.device) -> Rollout:
        """Returns a copy whose tensors, of the shapes above ([B, T], [N, S] ...), lie on `device`; the rest is
        shared."""
        return _moved(self, device)


def _tensors(record: Any) -> list[tuple[Any, Any]]:
    import torch

    pairs = [(f, getattr(record, f.name)) for f in fields(record)]
    return [(f, value) for f, value in pairs if isinstance(value, torch.Tensor)]


Moved = TypeVar("Moved", Batch, Rollout)


def _moved(record: Moved, device: Any) -> Moved:
    return replace(record, **{f.name: value.to(device) for f, value in _tensors(record)})


@dataclass(frozen=True)
class Texts:
    """What a reward sees: B hypotheses with everything known of their sources. Plain Python and numpy."""

    hypotheses: list[str]
    references: list[list[str]]
    sources: list[str]
    columns: dict[str, list[Any]]
    actions: np.ndarray  # [B, T] int64
    mask: np.ndarray  # [B, T] bool
    ended: np.ndarray  # [B] bool, EOS was chosen
    step: int


@dataclass(frozen=True)
class Scored:
    """What a reward may give instead of bare scores, where it has more to say."""

    scores: np.ndarray  # [B] or [B, T] float64, NaN where the reward does not apply
    metrics: dict[str, float]  # logged as rewards/<name>/<key>
    columns: dict[str, list[Any]]  # one value a text, kept with the samples


@dataclass(frozen=True)
class CorpusScore:
    """A metric over a test set, with all that a significance test needs."""

    value: float  # on the library's own scale (BLEU 0-100)
    signature: str  # how it was computed
    sentences: np.ndarray  # [n] float64, the score of each sentence, on the same scale
    statistics: np.ndarray  # [n, k] float64, sufficient statistics: the score of any subset is aggregate(of its sum)
    aggregate: Callable[[np.ndarray], float]  # [k] sums of statistics -> value; kept with them if of metrics/aggregates
    lower_is_better: bool = False  # an error rate


@dataclass(frozen=True)
class Evaluation:
    """One decoding of one split: the generated texts (hypotheses) and their scores."""

    step: int
    stage: str  # "warm_start", "train" or "eval"
    split: str
    decode: str  # "greedy", "beam", "sample"
    metrics: dict[str, float]  # plain names: corpus metrics, reward, entropy, completions/mean_length ...
    corpus: dict[str, CorpusScore]  # by metric; of the reward in use, too
    hypotheses: list[str]
    references: list[list[str]]
    sources: list[str]
    scores: list[float]  # the reward of each hypothesis
    columns: dict[str, list[Any]] = field(default_factory=dict)  # what else the reward says of each


class ModelOutput:
    """Outputs of a model: hidden states [B, T, D], and logits [B, T, V] = project(hidden), which are computed at the
    first access: log-probabilities up to a constant."""

    def __init__(self, hidden: Tensor, project: Callable[[Tensor], Tensor]) -> None:
        self.hidden = hidden
        self.project = project

    @cached_property
    def logits(self) -> Tensor:
        """Logits [B, T, V], the projection of `hidden` [B, T, D]. Computed at the first access and kept."""
        return self.project(self.hidden)


class State(Protocol):
    """What a model remembers between two steps of B episodes."""

    def reorder(self, index: Tensor) -> State:
        """Returns a state of M episodes, those at `index` [M] int64, repeats allowed. Beam search calls it, and the
        sampler, to drop the rows that have ended."""

    def repeat(self, times: int) -> State:
        """Returns a state of B * times episodes, each row `times` times, its copies next to each other. So K samples of
        a source need one pass of the encoder."""


@runtime_checkable
class Model(Protocol):
    """A policy over V tokens; a torch.nn.Module. Begin-of-sequence is the model's own affair, not a token."""

    width: int  # D

    def __call__(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Teacher-forced: output t is made from (source, actions[:, :t]), so it scores actions[:, t]. Shifts inside.

        source [N, S(, F)], source_mask [N, S], actions [B, T]. Row b of `actions` goes with the source at
        `source_row[b]`, source_row [B] int64; None: with the source at b, and N = B. Several rows may share a source.
        A model with an encoder reads the N sources, then picks a row's own by index; `start(source,
        source_mask).reorder(source_row)` does that. A model that gains nothing from it begins with
        `if source_row is not None: source, source_mask = source[source_row], source_mask[source_row]`.
        """

    def start(self, source: Tensor, source_mask: Tensor) -> State:
        """Returns the state before the first token, one row for each source, after one pass over source [N, S] int64
        (or [N, S, F] frames) with source_mask [N, S] bool."""

    def step(self, state: State, previous: Tensor | None) -> tuple[ModelOutput, State]:
        """Returns the output for the next token, hidden [B, 1, D] and logits [B, 1, V], and the state after `previous`,
        [B] int64, the token just generated; None before the first token. `state` stays usable unless the model
        documents that it reuses the memory."""

    def eval(self) -> Any:
        """Switches dropout off, as torch.nn.Module does, and returns the module. Code that samples or scores obtains
        the policy from `run.evaluation.acting_policy`, which calls this."""


@runtime_checkable
class ValuedPolicy(Protocol):
    """A Model that acts by values and can give the return that it expects; evaluation compares that with the return
    that its episodes then have."""

    def start_value(self, source: Tensor, source_mask: Tensor) -> Tensor | None:
        """Returns max_a Q(s_0, a) [N] of the sources [N, S] with source_mask [N, S] bool; None where this policy has no
        values."""

    def action_values(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> Tensor | None:
        """Returns Q(s_t, a_t) [B, T] of the actions [B, T], for sources [B, S] with source_mask [B, S]: the sum of
        rewards expected from step t on, in units of the reward. None where this policy has no values."""


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. Every id in [0, size) can be chosen; there is no id for padding or for begin."""

    size: int  # V
    eos_id: int
    unknown_id: int | None  # None: nothing is unknown

    def train(self, texts: Iterable[str]) -> None:
        """Learns the vocabulary from `texts` and replaces the one there was. The same texts give the same bytes in
        `save`."""

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without EOS."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of any ids, a prefix that ends inside a word or a character included; EOS has no text."""

    def save(self, directory: Path) -> None:
        """Writes the vocabulary to a file in `directory`, which is made where it is missing."""

    def load(self, directory: Path) -> None:
        """Replaces the vocabulary by the one that `save` wrote to `directory`. Raises UserError where the file is
        missing, damaged or of another kind of tokenizer."""


@runtime_checkable
class DecodesPrefixes(Protocol):
    """A Tokenizer that decodes all prefixes of a row in one pass. Without it each prefix is decoded by itself, which
    takes time quadratic in the length."""

    def prefixes(self, ids: Sequence[int]) -> Iterable[str]:
        """Returns T + 1 strings for T ids: decode(ids[:t]) for t = 0 ... T, the first of them empty."""


@dataclass(frozen=True)
class Frozen:
    """A saved run, to score texts with: its policy, in evaluation mode and without gradients."""

    policy: Model
    source_tokenizer: Tokenizer
    tokenizer: Tokenizer
    max_source_length: int  # tokens; longer sources are cut
    device: str | torch.device


@runtime_checkable
class Dataset(Protocol):
    """Examples by split ("train", "val", "test") and index; `example` is pure. See also NamedSplits and Divided."""

    max_source_length: int  # tokens; longer sources are cut or dropped, and counted
    overlong: str  # "truncate" or "drop": what happens to a training example over a limit

    def size(self, split: str) -> int | None:
        """Returns the number of examples of a split; None: unlimited. Raises UserError where the data cannot be
        read."""

    def example(self, split: str, index: int) -> Example:
        """Returns the example at `index` of a split: the same for the same arguments, whatever was read before. `index`
        is at least 0, and below `size(split)` where that is a number. Raises UserError where the data cannot be
        read."""


@runtime_checkable
class NamedSplits(Protocol):
    """A Dataset that may have other splits beside train, val and test."""

    def splits(self) -> list[str]:
        """The names of all its splits. Reads no data."""


@runtime_checkable
class Divided(Protocol):
    """A Dataset of which RL can draw its sources from a part that the warm start never sees."""

    rl_share: float  # of train, kept for RL; 0: the warm start and RL both draw from all of train
    rl_split: str | None  # the split that RL draws from instead of train; None: from train


@runtime_checkable
class ReadsReferences(Protocol):
    """A reward, a metric or an algorithm that says whether it reads references, or demonstrations, which stand behind
    them. Where it does, a split with a source that has none is refused before the first step. What does not say so is
    taken to need none."""

    needs_references: bool


@runtime_checkable
class Reward(Protocol):
    """A score of text. What it is given is its own: a copy, into which it may write.

    It may keep any of the protocols below, too: Named, ScoresPrefixes, ScoresCompletions, ScoresCorpus, HasParts,
    Control, Advised, ReadsColumns, Family and ReadsReferences.
    """

    def __call__(self, texts: Texts) -> np.ndarray | Scored:
        """Returns a score for each text, [B] float64, or for each token, [B, T]; NaN where the reward does not apply. A
        Scored holds such an array as `scores`."""


@runtime_checkable
class Named(Protocol):
    """A reward that chooses what its numbers are logged under; without it, that is the name of its module."""

    name: str


@runtime_checkable
class ScoresPrefixes(Protocol):
    """A reward that scores all prefixes of a text in one pass. Without it each prefix is scored as a text by itself."""

    def prefix_scores(self, texts: Texts, prefixes: list[list[str]]) -> np.ndarray:
        """[B, T + 1] float64, column t the score after t tokens: `prefixes` holds T_b + 1 strings a row, the first "".
        What stands past the end of a row is not read."""


@runtime_checkable
class ScoresCompletions(Protocol):
    """A reward that knows what can still be reached from a prefix; credit=delta_optimal is made of that."""

    def completion_scores(self, texts: Texts, prefixes: list[list[str]]) -> np.ndarray:
        """[B, T + 1] float64, column t the best score that a text which begins with the first t tokens can have, and
        the score itself at the end of the row; `prefixes` as in ScoresPrefixes."""


@runtime_checkable
class ScoresCorpus(Protocol):
    """A reward that scores a whole test set. Without it evaluation takes the mean over the sentences."""

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the score of all B texts together, with the score of each sentence [B] and the sufficient statistics
        [B, k] that a significance test resamples."""


@runtime_checkable
class HasParts(Protocol):
    """A reward made of several: credit is applied to each part by itself, and the rewards are summed with weights."""

    parts: list[Part]


@runtime_checkable
class Control(Protocol):
    """A reward that says nothing of a text by purpose (a constant, noise): that it is dead is no mistake."""

    control: bool


@runtime_checkable
class Advised(Protocol):
    """A reward that knows why it may give texts nothing, or all of them the same."""

    def advice(self, texts: Texts, scores: np.ndarray) -> str:
        """Returns one sentence with the setting that helps with `texts`, N demonstrations, and their `scores` [N], NaN
        where there is none; the empty string where it knows no such setting."""


@runtime_checkable
class ReadsColumns(Protocol):
    """A reward that reads columns of the data by name."""

    def check_columns(self, columns: Collection[str]) -> None:
        """Raises UserError where one that it needs is not among them. Called before anything is learned."""


@runtime_checkable
class Family(Protocol):
    """A reward of which some settings choose another measure (ROUGE-1 or ROUGE-L), not another way to compute it."""

    measures: tuple[str, ...]  # the names of those settings


@dataclass(frozen=True)
class Part:
    """One reward of a mixture: it counts as weight * (scale * score + shift), or normalised over the batch."""

    name: str
    reward: Reward
    weight: float
    scale: float
    shift: float
    normalize: bool  # mean 0 and standard deviation 1 over the sampled texts of the batch


@runtime_checkable
class Credit(Protocol):
    """Spreads the score of a text over its tokens, and neither adds to it nor loses any of it.

    The rewards of a row sum to its score, or, with `needs_prefixes`, to the score of the whole text less that of the
    empty one: checked of every batch, to 1e-9. See also HasPotential.
    """

    needs_prefixes: bool

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        """scores [B], [B, T] or, with needs_prefixes, [B, T + 1] float64; mask [B, T]; ended [B] -> rewards [B, T]."""


@runtime_checkable
class HasPotential(Protocol):
    """A Credit with `needs_prefixes` that names the method of the reward that scores the prefixes. Without it, that is
    `prefix_scores`, or the reward itself where it has none; a reward without `completion_scores` is refused where that
    is named."""

    potential: Literal["prefix_scores", "completion_scores"]


@runtime_checkable
class Stateful(Protocol):
    """A part of an algorithm that remembers something: it is saved with the algorithm, and loaded on resume."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what must be saved, as a flat dictionary of tensors (of any shape), numbers and strings."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restores what `state_dict` returned. Raises KeyError, ValueError or the like where the state is not one of
        such a part."""


@runtime_checkable
class LearnsFromReturns(Protocol):
    """A baseline that learns from the returns of each rollout, after it was evaluated for that rollout: so the baseline
    of an episode does not depend on the episode's own return."""

    def observe(self, returns: Tensor, valid: Tensor) -> None:
        """Learns from returns-to-go [N, K, T] of N sources and K samples; valid [N, K] bool marks the samples that
        count."""


@runtime_checkable
class Critic(Stateful, Protocol):
    """Estimates V(s_t), the return that is expected from state s_t on, for a policy gradient.

    `measure` is called once for each rollout, for a baseline or for bootstrapped returns. The critic learns with the
    policy, in the same optimiser steps (`attach`, `loss`).
    """

    estimates: bool  # False: it tells nothing, and a baseline or returns that need values are refused
    continuations: int  # how many episodes are sampled anew from each state that `states` names; 0 none
    coef: float  # weight of `loss`, a mean over tokens, beside the loss of the policy

    def attach(self, model: Any) -> list[Any]:
        """Makes what it needs for this Model; gives the parameters to be optimised with the policy's, or groups of
        them with a learning rate of their own (`optim.ParameterGroup`); [] without."""

    def states(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """With `continuations`: rows and lengths, [M] each, of the prefixes to go on from; mask [B, T]."""

    def measure(self, rollout: Rollout, model: Any) -> tuple[Tensor, Tensor]:
        """V [B, T] of every state of the rewarded rollout, and where [B, T] bool it was estimated anew: lambda returns
        bootstrap only there. No gradient flows."""

    def loss(self, hidden: Tensor, before: Tensor, targets: Tensor) -> Tensor | None:
        """The error of each state [B, T], from the policy's hidden states [B, T, D], V as `measure` gave it [B, T], and
        the returns [B, T] that the advantages are made of; None where nothing is learned."""


@runtime_checkable
class Algorithm(Protocol):
    """Owns its memory (heads, optimiser, replay, targets, baselines); the loop only tells it what happened."""

    needs_rewards: bool

    def collect(self, batch: Batch) -> Rollout:
        """Returns the episodes of one step, B for the N sources of `batch`; `rewards` [B, T] are None, for the loop
        scores the texts. Changes no weights. Random numbers come from `streams.generator` at `batch.step`, so that a
        resumed run samples the same episodes."""

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a rollout ([B, T], with rewards where `needs_rewards`) and returns a flat dictionary of metrics;
        it logs, evaluates and saves nothing. The model may be in evaluation mode when this is called, as sampling and
        evaluation leave it: an algorithm that learns with dropout calls `model.train()` first."""

    def policy(self) -> Model:
        """Returns the policy to act by: its logits are log-probabilities up to a constant. It is a torch.nn.Module that
        has every network it acts with as a submodule, so that evaluation mode reaches them; see
        `run.evaluation.acting_policy`."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what must be saved besides the weights of the model, as a flat dictionary of tensors (of any shape),
        numbers and strings. The optimiser's entries begin with "optimizer."; what `policy()` needs besides the model's
        weights begins with "policy.", and then the algorithm must be a `PolicyLoader`."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned: training goes on as if it had not been interrupted. Raises KeyError,
        ValueError or the like where the state is not one of this algorithm."""


@runtime_checkable
class PolicyLoader(Protocol):
    """An Algorithm whose policy is more than its model: it has heads or networks of its own."""

    def load_policy(self, state: dict[str, Any]) -> None:
        """Restores the entries of `state_dict()` whose names start with "policy.", and needs no others: afterwards
        `policy()` acts as it did when they were saved. Evaluation needs no more of an algorithm than that."""
