"""Log-likelihood of the text under a frozen model: the "negative loss" reward, or fluency by a language model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Positive, Size, Text
from tokenrl_cli.data.encoding import Ragged, ragged_sources
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import CorpusScore, Frozen, SettingError, Texts, Tokenizer, UserError
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.reward.pretrained import Checkpoint, Inputs, distinct, kinds

ROWS = 256  # scored at once; logits [ROWS, T, V] are the largest tensor


class Likelihood:
    """log p(text | source) under a saved run, in nats a token, at most 0: the mean over the tokens of the text, or with
    `per_token` the value of each token. With `path`, in place of `checkpoint`, it is log p(text) under a pretrained
    causal language model, which does not read the source: how fluent the text is.

    The text is encoded by the saved run's own tokenizer, with EOS where the text ended; a text without any token has 0.
    With `per_token` the sampled ids are scored as they are, which needs the same target tokenizer. Sources are cut at
    the saved run's limit. `temperature` divides the logits, whichever model scores. `checkpoint` names the run; it is
    loaded when `judge` is first read, or the first text is scored.

    Under a pretrained model the text is encoded by that model's own tokenizer, after its begin token (its end token
    where it has none), and cut at the positions that it has; it is read when the reward is built, and scores
    `batch_size` texts at a time. Raises SettingError unless there is one of `checkpoint` and `path`, for `per_token`
    with `path`, and where `path` cannot be used: see `Checkpoint`.

    `frozen` loads the run of such a name, `tokenizer` is the
    target tokenizer of the present run, `here` the path of the block in the config, for error messages.

    Gamed by what is likely anywhere: short, general and repeated text (arXiv:1904.09751), so mix it with a reward that
    sees the reference.
    """

    needs_references = False

    def __init__(
        self,
        checkpoint: Text | None,
        path: Text | None,
        temperature: Positive,
        per_token: bool,
        batch_size: Size,
        frozen: Callable[[str], Frozen],
        tokenizer: Tokenizer,
        device: str | torch.device,
        here: str,
    ) -> None:
        if (checkpoint is None) == (path is None):
            problem = "needs a model: checkpoint and path are " + ("both empty" if path is None else "both given")
            raise SettingError("", problem, "{here}.checkpoint=RUN, or {here}.path=DIR of a pretrained causal model")
        if path is not None and per_token:
            problem = "needs the tokens of a saved run, and path is a pretrained model"
            raise SettingError("per_token", problem, "{here}.per_token=false")
        self.here = here
        self.checkpoint, self.temperature, self.per_token = checkpoint, temperature, per_token
        self.frozen, self.tokenizer = frozen, tokenizer
        self.language_model = None if path is None else LanguageModel(path, temperature, batch_size, device)

    @cached_property
    def judge(self) -> Frozen:
        """The saved run that scores the texts: its policy in evaluation mode, with its tokenizers. Loaded at the first
        access and kept. Raises UserError where it cannot be loaded, or, with `per_token`, has another target tokenizer;
        AssertionError with `path`, where there is no saved run."""
        where = f"{self.here}.checkpoint={self.checkpoint}"
        assert self.checkpoint is not None, "a pretrained model is no saved run"
        try:
            judge = self.frozen(self.checkpoint)
        except UserError as error:
            raise UserError(where, f"{error.where}: {error.problem}", error.remedy) from None
        if self.per_token and _content(judge.tokenizer) != _content(self.tokenizer):
            remedy = f"{self.here}.per_token=false, or init_from that run, which takes over its tokenizer"
            raise UserError(where, "has another target tokenizer, so it cannot score the sampled tokens", remedy)
        return judge

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the mean log-probability of each text, [B] float64, at most 0, or with `per_token` that of each
        token, [B, T], 0 past the end. Raises UserError where the saved run cannot be used."""
        if self.language_model is not None:
            return self.language_model(texts.hypotheses, texts.ended.tolist())
        parts = [self._score(texts, slice(start, start + ROWS)) for start in range(0, len(texts.hypotheses), ROWS)]
        return np.concatenate(parts)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the mean over the texts, in nats a token, with the score of each, [B]: the mean log-probability of
        its tokens, also with `per_token`. Every text has the same weight, whatever its length. Raises UserError where
        the saved run cannot be used."""
        scores = self(texts)
        if self.per_token:
            scores = np.where(texts.mask, scores, 0.0).sum(-1) / np.maximum(texts.mask.sum(-1), 1)
        name = self.checkpoint if self.language_model is None else self.language_model.checkpoint.identity
        return mean_score(scores, f"mean log-probability a token under {name}|nats|t:{self.temperature:g}")

    @torch.no_grad()
    def _score(self, texts: Texts, rows: slice) -> np.ndarray:
        judge = self.judge
        sources = ragged_sources(judge.source_tokenizer, texts.sources[rows], judge.max_source_length)
        source, source_mask = sources.padded(np.arange(len(sources.lengths)))
        if self.per_token:
            actions, mask = torch.from_numpy(texts.actions[rows]), torch.from_numpy(texts.mask[rows])
        else:
            actions, mask = self._spelt(texts.hypotheses[rows], texts.ended[rows])
        if not actions.shape[1]:
            return np.zeros(mask.shape if self.per_token else len(actions))
        moved = (each.to(judge.device) for each in (source, source_mask, actions))
        logits = precise(judge.policy(*moved).logits) / self.temperature
        logprobs = logits.log_softmax(-1).gather(-1, actions.to(judge.device).unsqueeze(-1)).squeeze(-1).cpu().double()
        logprobs = logprobs.masked_fill(~mask, 0.0)
        scores: np.ndarray = (logprobs if self.per_token else logprobs.sum(-1) / mask.sum(-1).clamp(min=1)).numpy()
        return scores

    def _spelt(self, hypotheses: list[str], ended: np.ndarray) -> tuple[Tensor, Tensor]:
        tokenizer = self.judge.tokenizer
        pairs = zip(map(tokenizer.encode, hypotheses), ended.tolist(), strict=True)
        ids = [[*text, tokenizer.eos_id] if end else text for text, end in pairs]
        return Ragged(ids, max(map(len, ids))).padded(np.arange(len(ids)))


class LanguageModel:
    """The mean log-probability a token of a text under a pretrained causal language model, in nats, at most 0; see
    `Likelihood`. `path` names the checkpoint (see `Checkpoint`), `temperature` divides the logits, and `batch_size`
    texts are read at a time, on `device`. Raises SettingError where the checkpoint cannot be used."""

    def __init__(self, path: str, temperature: float, batch_size: int, device: str | torch.device) -> None:
        self.temperature = temperature
        self.checkpoint = Checkpoint(path, "AutoModelForCausalLM", _require_causal, None, batch_size, device, ())
        tokenizer = self.checkpoint.tokenizer
        begin, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        begin = self.end if begin is None else begin
        if begin is None:
            problem = (
                f"the tokenizer of {path} has neither a bos_token nor an eos_token: a text has nothing to begin with"
            )
            raise SettingError("path", problem, "set one in transformers, and save it again: tokenizer.bos_token = ...")
        self.begin: int = begin
        self.checkpoint.require_alone(self._inputs([("a", True), ("a b, a b: b a. " * 3, False)]), self._mean)

    def __call__(self, hypotheses: list[str], ended: list[bool]) -> np.ndarray:
        """Returns the mean log-probability a token of each text, [B] float64; EOS counts where a text ended, and a text
        without any token has 0."""
        rows, place = distinct(list(zip(hypotheses, ended, strict=True)))
        scores: np.ndarray = self.checkpoint.read(self._inputs(rows), self._mean)[:, 0].numpy()[place]
        return scores

    def _inputs(self, rows: list[tuple[str, bool]]) -> list[Inputs]:
        inputs = self.checkpoint.encode([(text,) for text, _ in rows], special=False)
        longest = self.checkpoint.longest
        every = []
        for each, (text, end) in zip(inputs, rows, strict=True):
            ids = [self.begin, *(each["input_ids"] if text else [])]
            ids += [self.end] if end and self.end is not None else []
            every.append({"input_ids": ids[:longest]})
        return every

    def _mean(self, inputs: dict[str, Tensor]) -> Tensor:
        """[b, 1]; a row at a time, as log-probabilities are as large as the logits."""
        logits = self.checkpoint.network(**inputs, use_cache=False).logits  # [b, S, V]
        lengths = inputs["attention_mask"].sum(-1).tolist()
        means = [
            _logprobs(each[: n - 1], ids[1:n], self.temperature).sum() / max(1, n - 1)
            for each, ids, n in zip(logits, inputs["input_ids"], lengths, strict=True)
        ]
        return torch.stack(means).unsqueeze(-1)


def _logprobs(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """[T, V], [T] -> [T]."""
    return (precise(logits) / temperature).log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def _require_causal(config: Any, path: str) -> None:
    """Raises SettingError unless a config describes a decoder-only language model."""
    causal = config.model_type in kinds("CAUSAL_LM") - kinds("MASKED_LM") - kinds("SEQ_TO_SEQ_CAUSAL_LM")
    if config.is_encoder_decoder or not causal:
        problem = f"{path} is a {config.model_type!r} checkpoint, which is no causal language model"
        raise SettingError("path", problem, "choose a decoder-only checkpoint, such as GPT-2, Llama or Qwen")


def _content(tokenizer: Tokenizer) -> dict[str, bytes]:
    """All it knows, as it is saved."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
