"""Log-likelihood of the text under a frozen model: the "negative loss" reward."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Positive, Text
from tokenrl_cli.data.encoding import Ragged, ragged_sources
from tokenrl_cli.functional.precision import precise
from tokenrl_cli.interfaces import CorpusScore, Frozen, Texts, Tokenizer, UserError
from tokenrl_cli.metrics.mean import mean_score

ROWS = 256  # scored at once; logits [ROWS, T, V] are the largest tensor


class Likelihood:
    """log p(text | source) under a saved run, in nats a token, at most 0: the mean over the tokens of the text, or with
    `per_token` the value of each token.

    The text is encoded by the saved run's own tokenizer, with EOS where the text ended; a text without any token has 0.
    With `per_token` the sampled ids are scored as they are, which needs the same target tokenizer. Sources are cut at
    the saved run's limit. `temperature` divides the logits of the saved run. `checkpoint` names that run; it is loaded
    when `judge` is first read, or the first text is scored. `frozen` loads the run of such a name, `tokenizer` is the
    target tokenizer of the present run, `here` the path of the block in the config, for error messages.

    Gamed by what is likely anywhere: short, general and repeated text (arXiv:1904.09751), so mix it with a reward that
    sees the reference.
    """

    needs_references = False

    def __init__(
        self,
        checkpoint: Text,
        temperature: Positive,
        per_token: bool,
        frozen: Callable[[str], Frozen],
        tokenizer: Tokenizer,
        here: str,
    ) -> None:
        self.here = here
        self.checkpoint, self.temperature, self.per_token = checkpoint, temperature, per_token
        self.frozen, self.tokenizer = frozen, tokenizer

    @cached_property
    def judge(self) -> Frozen:
        """The saved run that scores the texts: its policy in evaluation mode, with its tokenizers. Loaded at the first
        access and kept. Raises UserError where it cannot be loaded, or, with `per_token`, has another target
        tokenizer."""
        where = f"{self.here}.checkpoint={self.checkpoint}"
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
        parts = [self._score(texts, slice(start, start + ROWS)) for start in range(0, len(texts.hypotheses), ROWS)]
        return np.concatenate(parts)

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the mean over the texts, in nats a token, with the score of each, [B]: the mean log-probability of
        its tokens, also with `per_token`. Every text has the same weight, whatever its length. Raises UserError where
        the saved run cannot be used."""
        scores = self(texts)
        if self.per_token:
            scores = np.where(texts.mask, scores, 0.0).sum(-1) / np.maximum(texts.mask.sum(-1), 1)
        return mean_score(scores, f"mean log-probability a token under {self.checkpoint}|nats|t:{self.temperature:g}")

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


def _content(tokenizer: Tokenizer) -> dict[str, bytes]:
    """All it knows, as it is saved."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
