"""How near the meaning of a text is to that of a reference, by a sentence encoder."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Size, Text
from tokenrl_cli.interfaces import CorpusScore, SettingError, Texts
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.reward.pretrained import Checkpoint, distinct, kinds

POOLER = ("pooler",)  # is not read: sentence encoders are often saved without it


class EmbeddingSimilarity:
    """The cosine between the embedding of a text and that of a reference, from -1 to 1; of several references the
    highest. NaN for a source without references. With `scale` "unit" it is (1 + cosine) / 2, from 0 to 1.

    The embedding is the mean of the last hidden states over the tokens of the text, special tokens included, or with
    `pooling` "first" the hidden state of the first token. `path` names the frozen encoder, see `Checkpoint`; what a
    sentence encoder does after pooling, such as a further layer, is not applied. Texts are encoded by its own
    tokenizer, and cut at `max_tokens` tokens. Raises SettingError as `Checkpoint` does.

    Gamed by texts with the right words that say the opposite: encoders hardly see a negation, a name or a number.
    """

    needs_references = True
    measures = ("path", "pooling", "scale", "max_tokens")

    def __init__(
        self,
        path: Text,
        pooling: Literal["mean", "first"],
        scale: Literal["cosine", "unit"],
        max_tokens: Size | None,
        batch_size: Size,
        device: str | torch.device,
    ) -> None:
        self.pooling, self.scale = pooling, scale
        self.checkpoint = Checkpoint(path, "AutoModel", _require_encoder, max_tokens, batch_size, device, POOLER)
        self.checkpoint.require_alone(self.checkpoint.encode([("a",), ("a b, a b: b a. " * 3,)]), self._pooled)

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the similarity of each text to its nearest reference, [B] float64, from -1 to 1, or from 0 to 1 with
        `scale` "unit"; NaN without references."""
        rows, place = distinct([(text,) for text in texts.hypotheses])
        others, at = distinct([(text,) for references in texts.references for text in references])
        embedded = self._embeddings(rows)[place]
        references = iter(self._embeddings(others)[at])
        scores = np.full(len(texts.hypotheses), math.nan)
        for row, count in enumerate(map(len, texts.references)):
            if count:
                nearest = torch.stack([next(references) for _ in range(count)])  # [count, D]
                scores[row] = float((nearest @ embedded[row]).max().clamp(-1.0, 1.0))
        return (1 + scores) / 2 if self.scale == "unit" else scores

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the mean over the texts that have references, with the score of each, [B], on the scale of a call;
        NaN where no text has one."""
        how = f"{self.scale} similarity under {self.checkpoint.identity}|pooling:{self.pooling}|best reference"
        return mean_score(self(texts), how)

    def _embeddings(self, rows: list[tuple[str]]) -> Tensor:
        """[n, D], each of length 1."""
        pooled = self.checkpoint.read(self.checkpoint.encode(rows), self._pooled)
        return torch.nn.functional.normalize(pooled, dim=-1)

    def _pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        """[b, D]."""
        hidden: Tensor = self.checkpoint.network(**inputs).last_hidden_state  # [b, S, D]
        if self.pooling == "first":
            return hidden[:, 0]
        mask = inputs["attention_mask"].unsqueeze(-1)
        return hidden.masked_fill(mask == 0, 0.0).sum(1) / mask.sum(1)


def _require_encoder(config: Any, path: str) -> None:
    """Raises SettingError for a config of an encoder and a decoder, or of a model that reads no text."""
    if config.is_encoder_decoder or config.model_type not in kinds("MASKED_LM") | kinds("CAUSAL_LM"):
        problem = f"{path} is a {config.model_type!r} checkpoint, which is no encoder of sentences"
        raise SettingError("path", problem, "choose a sentence encoder, such as a MiniLM or an MPNet")
