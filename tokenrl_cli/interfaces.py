"""The records that pass between the parts of tokenrl (batches, rollouts, texts, scores), and the protocols that these
parts implement. Read this file first.

Shape letters: N sources (prompts), K samples of each, B = N * K episodes (and further ones of other roles),
source-major; S source steps, T response tokens, V vocabulary, D hidden. Column t of every [B, T] tensor is one step of
a Markov decision process: state s_t = (source, y_<t), action a_t = y_t, and the reward r_t that comes after a_t. A mask
is True where a token is real, and it covers EOS. Padding has no id of its own: only a mask says what is real, and
padded ids mean nothing.
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
PER_SOURCE = ("source", "source_mask", "targets", "target_mask", "reference_ids", "reference_mask", "example")


class UserError(Exception):
    """An error that the user can mend: printed without a traceback, exit status 2.

    `where` names the file, line or key; `problem` says what was found and what was expected; `remedy` what to do.
    """

    def __init__(self, where: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{where}: {problem}" + (f"\n  {remedy}" if remedy else ""))
        self.where, self.problem, self.remedy = where, problem, remedy


class SettingError(UserError):
    """A wrong setting of a part, found by the part's own constructor, which does not know where its block stands in the
    config. The builder does: it catches the error and raises what `placed` returns, a UserError that names keys as they
    are typed.

    `where` is relative to the block: "tau" or "tau=2" is one of its keys, "/head=logits" the option of one of its
    sub-groups, "" the block itself. In `problem` and `remedy` the text {here} stands for the path of the block, and
    "{here}/head=logits" for the option of one of its sub-groups, as it is typed.
    """

    def placed(self, path: str, group: str) -> UserError:
        """Returns a new UserError with the texts of this error, in which keys are named as they are typed. `path` is
        where the block stands in the config, with dots ("algorithm.head"), `group` the config group that it is an
        option of, with slashes ("algorithm/head"). For these `where` "layer" becomes "algorithm.head.layer", "" becomes
        the path itself, and so does {here} in `problem` and `remedy`.

        An option of a sub-group, `where` "/head=logits" or "{here}/head=logits" in the other two texts, of a block of
        the group "algorithm" becomes "algorithm/head=logits" where the block stands at "algorithm", and
        "algorithm/head@warm_start.head=logits" where it stands at "warm_start".
        """
        joined = self.where if self.where[:1] in ("", "/") else f".{self.where}"
        whole = (f"{HERE}{joined}", self.problem, self.remedy)
        return UserError(*(placed(text, path, group) for text in whole))

    def __str__(self) -> str:
        return re.sub(r"\{here\}[./]?", "", super().__str__())


HERE = "{here}"


def placed(text: str, path: str, group: str = "") -> str:
    """Returns a text with every {here} replaced by `path`, the place of a block in the config, with dots:
    "{here}.tau=1" becomes "warm_start.tau=1". An option of a sub-group, "{here}/head=linear", becomes what is typed to
    choose it: with the group "algorithm" it is "algorithm/head=linear" for the path "algorithm", and
    "algorithm/head@warm_start.head=linear" for the path "warm_start". `group`, with slashes, is the config group of the
    block; without it `path` is taken as the group, which is right only where the two are the same, as for "reward"."""
    group = group or path

    def option(match: re.Match[str]) -> str:
        key = f"{group}/{match[1]}"
        return key if group.replace("/", ".") == path else f"{key}@{path}.{match[1]}"

    return re.sub(r"\{here\}/(\w+)", option, text).replace(HERE, path)


@dataclass(frozen=True)
class Finding:
    """Something about a run that its user should know: shown at once, and stored in checkpoints and results.json.

    A "note" states a fact, a "warning" says that the numbers do not mean what they seem to. A "stop" says that there is
    nothing to learn from: it ends a run that learns from rewards with a UserError, and becomes a warning in any other.
    A healthy run has no warning.
    """

    rule: str  # a short name for the kind of finding, the same in every run
    severity: Literal["note", "warning", "stop"]
    step: int  # of the run, when it was found; 0 before the first
    text: str  # one sentence for the user, with what to do
    key: str | None  # the setting to change, as it is typed; None where no single setting is to blame


@dataclass(frozen=True)
class Waveform:
    """Sound as numbers."""

    samples: np.ndarray  # [n] float32, one channel, full scale is -1 ... 1
    rate: int  # samples a second


@dataclass(frozen=True)
class Recording:
    """Speech as the source of an example: a waveform, or frames [S, F] float32 that were computed from one earlier.

    Two recordings with the same name are taken for the same sound: frames that were computed from one are used for the
    other. `read` reads the file, or makes the sound, anew at each call. It raises UserError where it cannot.
    """

    name: str  # what is shown where a text would be, such as the path; unique in a data set
    read: Callable[[], Waveform | np.ndarray] = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Example:
    """One item of a dataset: a text or a recording, and texts as targets."""

    id: str
    source: str | Recording
    references: list[str]  # equally valid targets, metrics score against all of them; [] for a prompt without any
    demonstrations: list[str]  # what imitation learns from, as many: each is references[i], corrupted or not
    columns: dict[str, Any]  # further values of the example, by name; rewards may read them
    place: str = field(default="", compare=False)  # where it was read, "FILE, line N"; "" if it was generated


@dataclass(frozen=True)
class Batch:
    """The examples of one step as tensors and text: what an algorithm collects episodes for. `references` holds a list
    for each of the N sources, [] where it has none; `columns` maps a name to a list of N values, None where an example
    lacks it. In training a pure function of (seed, step)."""

    step: int  # global, over the warm start and RL
    source: Tensor  # [N, S] int64 ids, or [N, S, F] float32 frames
    source_mask: Tensor  # [N, S] bool
    targets: Tensor  # [N, R] int64, one demonstration each, with EOS unless it was cut at the limit; R is at least 1
    target_mask: Tensor  # [N, R] bool, all False for a source without a reference
    reference_ids: Tensor  # [N, R'] int64, the clean reference behind the demonstration, EOS as in `targets`
    reference_mask: Tensor  # [N, R'] bool
    sources: list[str]  # of recordings their names
    references: list[list[str]]
    columns: dict[str, list[Any]]
    example: Tensor  # [N] int64, the index of each example in its split
    # example [M] -> source [M, S(, F)] and source_mask [M, S] of these examples of the split, on the CPU
    read_sources: Callable[[Tensor], tuple[Tensor, Tensor]]

    def to(self, device: str | torch.device) -> Batch:
        """Returns a copy whose tensors (source [N, S], targets [N, R] and the others) lie on `device`; everything else,
        and tensors that lie there already, are shared."""
        return _moved(self, device)


@dataclass(frozen=True)
class Rollout:
    """B episodes of N sources, with everything that learning from them needs: a replay stores its rows, and
    `rows(index)` gives minibatches.

    Each source, with its demonstration and its clean reference, is stored once, however many episodes it has: models
    read it once, when they sample and when they learn.
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
    chosen: Tensor  # [B, T] bool, the policy generated this token (False: forced, or of a demonstration)
    logprobs: Tensor  # [B, T] of a_t under the distribution sampled from; 0 where forced, padded or not computed
    support: Tensor | None  # [B, T, k] ids that the sampler could choose from; None where no top-k or top-p cut it
    ended: Tensor  # [B] bool, the episode ends with EOS; False: cut at the limit (truncated, not terminated)
    rewards: Tensor | None  # [B, T], 0 where masked; None until scored
    valid: Tensor  # [B] bool, the reward could be computed; other rows have weight 0 and are counted
    example: Tensor  # [N] int64, the index of the source in its split
    read_sources: Callable[[Tensor], tuple[Tensor, Tensor]]  # as in Batch: a replay keeps `example` and no sources

    def __len__(self) -> int:
        return len(self.actions)

    def rows(self, index: Tensor | slice) -> Rollout:
        """Returns the episodes at `index`, in its order, with the sources that belong to them, each once and in the
        order of this rollout. `index` is a slice, a tensor [M] int64 of rows, repeats allowed, or [B] bool. The
        tensors are copies, but for a slice those with one row an episode are views of this rollout's.

        `source_row` [M] points into the selected sources. But `parent` [M] still holds row numbers of this rollout, not
        of the result. The width T stays, even if the episodes left are shorter.
        """
        used, source_row = self.source_row[index].unique(return_inverse=True)
        chosen = {f.name: value[used if f.name in PER_SOURCE else index] for f, value in _tensors(self)}
        return replace(self, **chosen | {"source_row": source_row})

    def to(self, device: str | torch.device) -> Rollout:
        """Returns a copy whose tensors (actions [B, T], source [N, S] and the others) lie on `device`; everything else,
        and tensors that lie there already, are shared."""
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
    """What a reward or metric is called with: B hypotheses with all that is known of their sources. `references` holds
    a list for each hypothesis, [] where it has none, `columns` maps a name to a list of B values. Plain Python and
    numpy."""

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
    """What a reward may return instead of an array of scores: these, and metrics and columns for the log."""

    scores: np.ndarray  # [B], [B, T] or, of prefixes, [B, T + 1] float64, NaN where the reward does not apply
    metrics: dict[str, float]  # logged as rewards/<name>/<key>
    columns: dict[str, list[Any]]  # one value for each text, logged with the samples


@dataclass(frozen=True)
class CorpusScore:
    """The score of a metric over a whole test set, with the statistics that a significance test needs."""

    value: float  # on the scale of the metric (BLEU 0-100); NaN where a mean has no score
    signature: str  # how it was computed
    sentences: np.ndarray  # [n] float64, the score of each sentence, on the same scale
    statistics: np.ndarray  # [n, k] float64, sufficient statistics: the score of any subset is aggregate(of its sum)
    aggregate: Callable[[np.ndarray], float]  # [k] sums of statistics -> value; one of metrics/aggregates is saved
    lower_is_better: bool = False  # True for an error rate


@dataclass(frozen=True)
class Evaluation:
    """One decoding of one split: the generated texts (hypotheses) and their scores."""

    step: int
    stage: str  # "warm_start", "train" or "eval"; after training, on test, the policy: "final", "warm_start", "best"
    split: str
    decode: str  # "greedy", "beam", "sample"
    metrics: dict[str, float]  # plain names: corpus metrics, reward, entropy, completions/mean_length ...
    corpus: dict[str, CorpusScore]  # by metric; of the reward in use, too
    hypotheses: list[str]
    references: list[list[str]]
    sources: list[str]
    scores: list[float]  # the reward of each hypothesis, NaN where it has none
    columns: dict[str, list[Any]] = field(default_factory=dict)  # those of Scored, one value for each hypothesis


class ModelOutput:
    """Output of a model: hidden states [B, T, D], and logits [B, T, V] = project(hidden), log-probabilities up to a
    constant at each position. The logits are computed at the first access, as many callers need only the hidden
    states."""

    def __init__(self, hidden: Tensor, project: Callable[[Tensor], Tensor]) -> None:
        self.hidden = hidden
        self.project = project

    @cached_property
    def logits(self) -> Tensor:
        """Logits [B, T, V], `project` of `hidden` [B, T, D]. Computed at the first access and stored, so whether
        gradients flow is decided there: if it is under torch.no_grad(), never."""
        return self.project(self.hidden)


class State(Protocol):
    """The memory of a model between two steps of decoding B episodes, such as the hidden states of a recurrent network
    or the cached keys and values of a transformer."""

    def reorder(self, index: Tensor) -> State:
        """Returns the state of M episodes, those at `index` [M] int64, in its order, repeats allowed. Beam search calls
        it to go on with the best beams; the sampler calls it to give each episode the state of its source, and to drop
        rows that have ended. Neither uses the old state afterwards, so the new one may share its memory."""

    def repeat(self, times: int) -> State:
        """Returns the state of B * times episodes, each row `times` times, its copies next to each other: row
        b * times + k is row b. So several samples of a source need one pass of the encoder. The caller must not use the
        old state afterwards."""


@runtime_checkable
class Model(Protocol):
    """A policy over V tokens; a torch.nn.Module. The symbol for the begin of a sequence is internal to the model, and
    not one of the tokens.

    Two ways to the same logits: the call scores given actions in one pass; `start` and `step` generate token by token.
    """

    width: int  # D

    def __call__(
        self, source: Tensor, source_mask: Tensor, actions: Tensor, source_row: Tensor | None = None
    ) -> ModelOutput:
        """Teacher-forced pass over given actions: output t is computed from (source, actions[:, :t]), so it scores
        actions[:, t]; the model itself shifts the actions. Returns a ModelOutput with hidden [B, T, D] and logits
        [B, T, V]. Gradients flow; dropout is on unless the model is in evaluation mode.

        source [N, S] int64 (or [N, S, F] frames), source_mask [N, S] bool, True at real steps, which come first in
        their row, actions [B, T] int64. Padded actions need no mask, but must be ids below V: only outputs after them
        depend on them. Row b of `actions` goes with the source at `source_row[b]`, source_row [B] int64; None: with the
        source at b, and N = B. Several rows may share a source. A model with an encoder reads the N sources, then picks
        a row's own by index; `start(source, source_mask).reorder(source_row)` does that. A model that gains nothing
        from it begins with
        `if source_row is not None: source, source_mask = source[source_row], source_mask[source_row]`.
        """

    def start(self, source: Tensor, source_mask: Tensor) -> State:
        """Returns the state before the first token, one row for each source, after one pass over source [N, S] int64
        (or [N, S, F] frames) with source_mask [N, S] bool, True at real steps, which come first in their row. Gradients
        flow, as through `step`: call both under torch.no_grad() to generate only."""

    def step(self, state: State, previous: Tensor | None) -> tuple[ModelOutput, State]:
        """Returns the output for the next token, hidden [B, 1, D] and logits [B, 1, V], and the state after `previous`
        [B] int64, the token just generated. The first call of a decoding gets the state of `start` and None. `state`
        stays usable unless the docstring of the model says that it reuses the memory."""

    def eval(self) -> Any:
        """Switches dropout off, as torch.nn.Module does, and returns the module. Code outside an algorithm does not
        call it: it takes the policy from `run.evaluation.acting_policy`, which does."""


ModelModule = Any  # a Model that is a torch.nn.Module, with parameters() and so on; Python has no type for both


@dataclass(frozen=True)
class Base:
    """A pretrained checkpoint that a model was built from."""

    path: str
    sha256: str  # of its files


@runtime_checkable
class HasBase(Protocol):
    """A Model that is built from pretrained checkpoints, and needs the same ones when a saved run is read. Its
    `state_dict` may leave out parameters that stay as they are there."""

    bases: dict[str, Base]  # by the setting that names each, relative to the model's block, such as "path"


@runtime_checkable
class ValuedPolicy(Protocol):
    """A Model that acts by Q-values and can return them, the sum of rewards that it expects. Evaluation compares them
    with the rewards that its episodes then get."""

    def start_value(self, source: Tensor, source_mask: Tensor) -> Tensor | None:
        """Returns the value of the state before the first token, max_a Q(s_0, a) [N], in units of the reward, for
        source [N, S] int64 (or [N, S, F] frames) with source_mask [N, S] bool, True at real steps. Gradients may flow:
        call it under torch.no_grad() to read only. None if this policy has no Q-values."""

    def action_values(self, source: Tensor, source_mask: Tensor, actions: Tensor) -> Tensor | None:
        """Returns Q(s_t, a_t) [B, T] of the actions [B, T] int64: the sum of rewards expected from step t on, in units
        of the reward. Row b belongs to row b of source [B, S] int64 (or [B, S, F] frames) and of source_mask [B, S]
        bool, True at real steps. Padding of `actions` gets values without meaning: the caller masks them. Gradients may
        flow: call it under torch.no_grad() to read only. None if this policy has no Q-values."""


@runtime_checkable
class Tokenizer(Protocol):
    """Converts text to ids and back. Every id in [0, size) can be generated; there is no id for padding or for the
    begin of a sequence."""

    size: int  # V
    eos_id: int
    unknown_id: int | None  # None: every text can be encoded

    def train(self, texts: Iterable[str]) -> None:
        """Learns a vocabulary from `texts`, which replaces the present one; `size` may change. The same texts give the
        same bytes in `save`. May raise UserError where the texts hold nothing to learn from."""

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without EOS, [] for the empty text; `unknown_id`, if there is one, for what the
        vocabulary does not have."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of any ids below `size`, also of a prefix that ends inside a word or a character. EOS adds
        no text, wherever it stands; an unknown token adds some sign."""

    def save(self, directory: Path) -> None:
        """Writes the vocabulary to a file in `directory`, which is created if it does not exist; replaces the file that
        an earlier call wrote there."""

    def load(self, directory: Path) -> None:
        """Replaces the vocabulary by the one that `save` wrote to `directory`; `size` may change. Raises UserError
        where the file is missing, damaged or of another kind of tokenizer."""


@runtime_checkable
class DecodesPrefixes(Protocol):
    """A Tokenizer that decodes all prefixes of a row in one pass. For others each prefix is decoded by itself, which
    takes time quadratic in the length."""

    def prefixes(self, ids: Sequence[int]) -> Iterable[str]:
        """Returns T + 1 strings for T ids: decode(ids[:t]) for t = 0 ... T, the first of them empty."""


@runtime_checkable
class EncodesSources(Protocol):
    """A Tokenizer that encodes a source otherwise than a target, or that puts something around a source: a limit then
    shortens the source, not what stands around it. With any other Tokenizer a source that is too long loses its last
    ids."""

    def encode_source(self, text: str, limit: int) -> tuple[list[int], bool]:
        """Returns the ids of a source, at most `limit` of them, and whether the source was shortened for that. Raises
        UserError where what stands around a source is longer than `limit` by itself."""


@runtime_checkable
class TranslatesIds(Protocol):
    """A Tokenizer whose ids are some of those of a pretrained vocabulary: for targets those that can be generated, for
    sources perhaps all of them."""

    theirs: list[int]  # [size], distinct; the id in the pretrained vocabulary of each id of the tokenizer


@runtime_checkable
class Features(Protocol):
    """Turns recordings into frames, vectors of F numbers at equal intervals of time, which a model for speech reads in
    place of token ids."""

    width: int  # F
    speeds: Sequence[float]  # stages without rewards play each recording at one of these, drawn anew in every epoch

    def train(self, recordings: Iterable[Recording]) -> None:
        """Learns from the recordings of train what `frames` needs to know of them, such as their mean; reads none where
        it needs nothing. The same recordings give the same bytes in `save`."""

    def frames(self, recording: Recording, speed: float = 1.0) -> np.ndarray:
        """Returns the frames [S, F] float32 of a recording, S at least 1, played `speed` times as fast: the same for
        the same arguments. They are computed once and kept, as far as there is room; the caller must not change them.
        Raises UserError where the recording cannot be read, or is of a kind that these features do not read."""

    def save(self, directory: Path) -> None:
        """Writes what `train` learned to a file in `directory`, which is created if it does not exist; replaces the
        file that an earlier call wrote there."""

    def load(self, directory: Path) -> None:
        """Replaces what `train` learned by what `save` wrote to `directory`. Raises UserError where the file is
        missing, damaged or of other features."""


@runtime_checkable
class OfExtractor(Protocol):
    """Features that the feature extractor of a pretrained checkpoint computes: what networks of such checkpoints
    read."""

    extractor: str  # the name of its class in transformers, such as "WhisperFeatureExtractor"


Source = str | Recording  # of an example
SourceReader = Tokenizer | Features  # turns sources into numbers: texts into token ids, or recordings into frames


@dataclass(frozen=True)
class Frozen:
    """The policy of an earlier run, in evaluation mode and without gradients, with its tokenizers: for rewards that
    score by it."""

    policy: Model
    source_tokenizer: Tokenizer
    tokenizer: Tokenizer
    max_source_length: int  # tokens; cut longer sources before they are given to `policy`
    device: str | torch.device  # where `policy` is, and its inputs must be


@runtime_checkable
class Dataset(Protocol):
    """Examples by split ("train", "val", "test") and index. May implement NamedSplits for other splits, and Divided to
    reserve a part of train for RL."""

    max_source_length: int  # tokens; longer sources are cut or dropped, and counted
    overlong: str  # "truncate" or "drop": what happens to a training example over a limit

    def size(self, split: str) -> int | None:
        """Returns the number of examples of a split; None: unlimited, made as they are read. Callers name only the
        splits that `data.splits.splits_of` lists; for another name any exception may come. Raises UserError where the
        data cannot be read."""

    def example(self, split: str, index: int) -> Example:
        """Returns the example at `index` of a split: the same for the same arguments, whatever was read before. It may
        be the stored object, which callers must not change. `index` is at least 0, and below `size(split)` where that
        is a number. Raises UserError where the data cannot be read."""


@runtime_checkable
class NamedSplits(Protocol):
    """A Dataset with further splits beside train, val and test."""

    def splits(self) -> list[str]:
        """Returns the names of the splits of the data set; train, val and test exist whether they are among them or
        not. Reads no data."""


@runtime_checkable
class Divided(Protocol):
    """A Dataset of which RL can draw its sources from a part that the warm start never sees. `rl_share` is not read
    where `rl_split` names a split."""

    rl_share: float  # share of train that only RL draws from; 0: the warm start and RL both draw from all of train
    rl_split: str | None  # the split that RL draws from instead of train; None: from train


@runtime_checkable
class LeavesOutFaults(Protocol):
    """A Dataset that leaves out examples whose files have a fault, where it is set to do so."""

    faults: dict[str, list[UserError]]  # by split, once it was read; one error for each example that is left out


@runtime_checkable
class ReadsReferences(Protocol):
    """A reward, a metric or an algorithm that states whether it needs references or demonstrations, which are made of
    references. If it does, a split with an example that has none is refused with a UserError before the first step of
    training, or before an evaluation of it; of a split that is generated only the first examples are checked. Without
    this attribute none are needed."""

    needs_references: bool


@runtime_checkable
class Reward(Protocol):
    """A score of text. The Texts that it is called with are a copy, into which it may write.

    It may implement any of the protocols below, too: Named, ScoresPrefixes, ScoresCompletions, ScoresCorpus, HasParts,
    Control, Advised, ReadsColumns, Family and ReadsReferences. An exception of a user's own reward becomes a UserError.
    """

    def __call__(self, texts: Texts) -> np.ndarray | Scored:
        """Returns a score for each of B texts, [B], or for each of their tokens, [B, T], as float64 or what converts to
        it; or a Scored that holds such an array as `scores`. Higher is better. NaN where the reward does not apply:
        such a text, or one with a NaN at any of its tokens, is left out of learning and of the means. Past the end of a
        row scores are not used. Another shape, an infinite score anywhere, or one beyond +-1e18 ends the run with a
        UserError."""


@runtime_checkable
class Named(Protocol):
    """A reward with a name of its own, under which its numbers are logged; for others that is the last part of the name
    of their module, such as "bleu". The parts of a mixture are logged under the names that the mixture gives them."""

    name: str


@runtime_checkable
class ScoresPrefixes(Protocol):
    """A reward that scores all prefixes of a text in one pass. For others each distinct prefix is scored as a text by
    itself."""

    def prefix_scores(self, texts: Texts, prefixes: list[list[str]]) -> np.ndarray:
        """Returns the scores of all prefixes, [B, T + 1] float64, column t the score after t tokens, NaN where the
        reward does not apply: a row with one up to its end is left out of learning. T is the width of `texts.mask`;
        `prefixes` holds T_b + 1 strings for row b, which has T_b tokens: the first "", the last the whole text. `texts`
        and `prefixes` are copies, into which it may write. The values past the end of a row (columns above T_b) are not
        used, but there, too, an infinite one, or one beyond +-1e18, is refused with a UserError."""


@runtime_checkable
class ScoresCompletions(Protocol):
    """A reward that can compute the best score within reach after a prefix; credit=delta_optimal needs it."""

    def completion_scores(self, texts: Texts, prefixes: list[list[str]]) -> np.ndarray:
        """Returns [B, T + 1] float64, column t the best score of all texts that begin with the first t tokens, and the
        score itself at the end of the row; NaN where the reward does not apply. T is the width of `texts.mask`;
        `prefixes` holds T_b + 1 strings for row b, which has T_b tokens: the first "", the last the whole text. `texts`
        and `prefixes` are copies, into which it may write. The values past the end of a row are not used, but there,
        too, an infinite one, or one beyond +-1e18, is refused with a UserError."""


@runtime_checkable
class ScoresCorpus(Protocol):
    """A reward or metric that scores a whole test set. For others evaluation takes the mean over the texts, NaN left
    out."""

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the score of all B texts together, on the metric's own scale, with the score of each sentence [B],
        NaN where there is none, and the sufficient statistics [B, k] that a significance test resamples. Its value may
        be NaN, but an infinite one, or a score of a sentence that is infinite or beyond +-1e18, is refused with a
        UserError. May raise UserError where no text can be scored. `texts` is a copy."""


@runtime_checkable
class HasParts(Protocol):
    """A reward made of several: credit is applied to each part separately, and the resulting rewards are summed with
    the weights."""

    parts: list[Part]


@runtime_checkable
class Control(Protocol):
    """A reward with `control` True gives no information about a text on purpose (a constant, noise): that the check
    before training finds no difference between good and spoiled texts is then reported as a note, and not as a warning.
    Used as a metric it is not checked at all."""

    control: bool


@runtime_checkable
class Advised(Protocol):
    """A reward or metric that can explain why it gives no score, or the same to all texts: its advice is added to the
    finding that reports this."""

    def advice(self, texts: Texts, scores: np.ndarray) -> str:
        """Returns one sentence with the setting that helps for `texts`, N demonstrations, and their `scores` [N], NaN
        where there is none; the empty string where it knows no such setting. Both are copies, which it may change."""


@runtime_checkable
class ReadsColumns(Protocol):
    """A reward or metric that reads columns of the data by name."""

    def check_columns(self, columns: Collection[str]) -> None:
        """Raises UserError where a column that the reward or metric needs is not among `columns`, those of the first
        example of a split. `train`, `validate` and `eval` call it before any text is scored, for each of train, val and
        test that is not empty and can be read."""


@runtime_checkable
class Family(Protocol):
    """A reward of which some settings choose another measure (ROUGE-1 or ROUGE-L), not another way to compute the same
    one: `measures` names these settings. A metric of the same name that differs from the reward in these alone is
    reported as a note, and not as a warning."""

    measures: tuple[str, ...]  # the names of those settings


@dataclass(frozen=True)
class Part:
    """One reward of a mixture. Its scores enter the sum as weight * (scale * score + shift). With `normalize` training
    uses, in place of scale and shift, those that give the scores of the sampled texts of the batch mean 0 and standard
    deviation 1; evaluation still uses `scale` and `shift`."""

    name: str
    reward: Reward
    weight: float
    scale: float
    shift: float
    normalize: bool  # mean 0 and standard deviation 1 over the sampled texts of the batch


@runtime_checkable
class Credit(Protocol):
    """Distributes the score of a text over its tokens, without a change of the sum.

    The rewards of a row must sum to its score, or, with `needs_prefixes`, to the score of the whole text less that of
    the empty one. This is checked of every batch, to 1e-9 in float64 and 1e-5 in float32, times the largest reward if
    that is above 1; UserError otherwise. See also HasPotential.
    """

    needs_prefixes: bool  # True: called with the scores of all prefixes, [B, T + 1]

    def __call__(self, scores: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
        """Returns the rewards [B, T] of the tokens. scores, on the CPU, are [B], [B, T] or, with needs_prefixes,
        [B, T + 1] float64, NaN where there is none; mask [B, T] bool; ended [B] bool, True where EOS was generated. All
        are copies. A row with a NaN among the rewards of its tokens is treated as without a reward. Rewards past the
        end of a row are not used, but must not be infinite. For a mixture it is called once for each part, with scores
        that are scaled and weighted already."""


@runtime_checkable
class HasPotential(Protocol):
    """A Credit with `needs_prefixes` that names the method of the reward that scores the prefixes. A Credit without
    `potential` gets `prefix_scores`, or for a reward that has none, the scores of the prefixes as texts. If it names
    `completion_scores`, a reward without that method is refused with a UserError."""

    potential: Literal["prefix_scores", "completion_scores"]


@runtime_checkable
class Stateful(Protocol):
    """A part of an algorithm with a state: it is saved with the algorithm, and restored on resume."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what must be saved, as a flat dictionary of tensors (of any shape), numbers and strings. The tensors
        may be the live ones; they are written at once."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restores what `state_dict` returned. Where the state is of another part, raises an AttributeError,
        IndexError, KeyError, RuntimeError, TypeError or ValueError, which the training loop turns into a UserError."""


@runtime_checkable
class LearnsFromReturns(Protocol):
    """A baseline that learns from the returns of each rollout, after it was evaluated for that rollout: so the baseline
    of an episode does not depend on the episode's own return."""

    def observe(self, returns: Tensor, valid: Tensor) -> None:
        """Updates the estimate with a rollout. returns [N, K, T]: the return of each token of K episodes of N sources,
        the demonstration among them with add_reference. valid [N, K] bool: False for episodes to leave out (without a
        reward, or dropped as duplicates or as groups of equal scores). There is no mask of tokens: past the end of an
        episode `returns` holds what the function puts there that computes returns."""


@runtime_checkable
class Critic(Stateful, Protocol):
    """Estimates V(s_t), the return that is expected from state s_t on, for a policy gradient.

    `measure` is called once for each rollout, for a baseline or for bootstrapped returns. The critic learns with the
    policy, in the same optimiser steps (`attach`, `loss`).
    """

    estimates: bool  # False: it has no values, and a baseline or returns that need them are refused
    continuations: int  # how many new episodes are sampled from each state that `states` returns; 0: none
    coef: float  # weight of `loss`, a mean over tokens, beside the loss of the policy

    def attach(self, model: ModelModule) -> list[Any]:
        """Creates what the critic needs for this Model: of its hidden size `model.width`, its dtype and device. Returns
        the parameters that the policy's optimiser learns in addition to the policy's, as parameters or as groups with a
        learning rate of their own (`optim.ParameterGroup`); [] for none. Called once, before all other methods."""

    def states(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the M prefixes from which new episodes are sampled, as rows and lengths in tokens, [M] int64 each;
        mask [B, T] bool is True at the tokens that the policy generated in B episodes. Called only where
        `continuations` is above 0."""

    def measure(self, rollout: Rollout, model: ModelModule) -> tuple[Tensor, Tensor]:
        """Returns V [B, T], in units of the reward, of every state of a rollout that has its rewards, and a mask [B, T]
        bool that is True where V was estimated for that very state, False where it repeats the estimate of an earlier
        one: lambda returns bootstrap only where it is True. `model` is the policy. The episodes sampled from `states`,
        if any, are among the B rows; values of theirs and of padding are not read. Called under torch.no_grad(), so an
        implementation need not stop gradients."""

    def loss(self, hidden: Tensor, before: Tensor, targets: Tensor) -> Tensor | None:
        """Returns the error of each state [B, T], before the factor `coef`, from the policy's hidden states [B, T, D],
        `before`, V as `measure` returned it [B, T], and `targets`, the returns [B, T] that the advantages are computed
        from; None where nothing is learned. An implementation that must not train the policy detaches `hidden`. Padding
        may hold any finite number: the caller takes the mean over the tokens that are learned from."""


@runtime_checkable
class Algorithm(Protocol):
    """Collects episodes and learns from them. It owns all its memory (heads, optimiser, replay, target networks,
    baselines); the training loop calls `collect`, lets the reward score the texts, and calls `update`."""

    needs_rewards: bool  # False: the loop does not call the reward, and `update` gets a rollout without rewards

    def collect(self, batch: Batch) -> Rollout:
        """Returns the episodes of one step, B for the N sources of `batch`; their `rewards` are None, for the loop
        scores the texts afterwards. Changes no weights, but may switch the model to evaluation mode and count the step:
        call it once a step, before `update`. Random numbers come from `streams.generator` at `batch.step`, so that a
        resumed run samples the same episodes. Raises `optim.NonFinite` where a probability is not finite."""

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learns from the rollout that `collect` returned ([B, T]; with `rewards` if `needs_rewards`) and returns a
        flat dictionary of metrics; it logs, evaluates and saves nothing. The model may be in evaluation mode when this
        is called, as sampling and evaluation leave it: an algorithm that learns with dropout calls `model.train()`
        first. Raises `optim.NonFinite` where a loss, gradient or parameter is infinite or NaN."""

    def policy(self) -> Model:
        """Returns the policy that samples and is evaluated: its logits are log-probabilities up to a constant at each
        position. It is a torch.nn.Module that has every network it acts with as a submodule, so that evaluation mode
        reaches them; it may be in training mode: use `run.evaluation.acting_policy` to decode. It may share these
        networks with the algorithm: then later updates change it."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what must be saved besides the weights of the model, as a flat dictionary of tensors (of any shape),
        numbers and strings. The optimiser's entries begin with "optimizer."; what `policy()` needs besides the model's
        weights begins with "policy.", and then the algorithm must be a `PolicyLoader`."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned. The training loop restores the weights of the model itself; with both,
        training goes on as if it had not been interrupted. Where the state is of another algorithm, raises an
        AttributeError, IndexError, KeyError, RuntimeError, TypeError or ValueError, which the training loop turns into
        a UserError; the algorithm may be half changed by then."""


@runtime_checkable
class PolicyLoader(Protocol):
    """An Algorithm whose policy has heads or networks besides its model."""

    def load_policy(self, state: dict[str, Any]) -> None:
        """Restores the entries of `state_dict()` whose names start with "policy."; `state` may hold only these. The
        caller restores the weights of the model; with both, `policy()` acts as it did when they were saved. Nothing
        else of an algorithm is restored for an evaluation."""
