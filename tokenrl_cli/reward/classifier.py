"""The score of a text by a trained classifier, or by a reward model with one output."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokenrl_cli.config.ranges import Positive, Size, Text
from tokenrl_cli.interfaces import CorpusScore, SettingError, Texts
from tokenrl_cli.metrics.mean import mean_score
from tokenrl_cli.reward.pretrained import Checkpoint, Inputs, distinct, kinds

HEAD = "ForSequenceClassification"  # how the names of architectures end that classify texts
SHOWN = 20  # classes that an error lists


class Classifier:
    """The probability of `label` for a text under a frozen sequence classifier, 0 to 1, or with `output` "logit" its
    logit. A checkpoint with one output, as reward models and regressions have, gives that number, whatever `output` is.

    `path` names the checkpoint, see `Checkpoint`. `label` is the name of a class in its config, or the index of one;
    null where there is one output. `temperature` divides the logits, or that number. Probabilities are a softmax over
    the classes, or a sigmoid of each where the config says that a text may have several ("multi_label_classification").
    With `reads` "pair" the checkpoint reads the source and the text as a pair, in this order. Both are encoded by its
    own tokenizer, and cut at `max_tokens` tokens. Raises SettingError for a `label` that is no class, and as
    `Checkpoint` does.

    Gamed by texts unlike those that the classifier was trained on: mix it with a reward that reads the references.
    """

    needs_references = False
    measures = ("path", "label", "output", "temperature", "reads", "max_tokens")

    def __init__(
        self,
        path: Text,
        label: str | int | None,
        output: Literal["probability", "logit"],
        temperature: Positive,
        reads: Literal["text", "pair"],
        max_tokens: Size | None,
        batch_size: Size,
        device: str | torch.device,
    ) -> None:
        self.checkpoint = Checkpoint(path, f"AutoModel{HEAD}", _require_head, max_tokens, batch_size, device, ())
        config = self.checkpoint.config
        self.label = _index(label, config)
        self.several = config.problem_type == "multi_label_classification"
        self.output = "number" if config.num_labels == 1 else output
        self.temperature, self.reads = temperature, reads
        self.checkpoint.require_alone(self._inputs([("a", "a"), ("b", "a b, a b: b a. " * 3)]), self._logits)

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns the probability, the logit or the number of each text, [B] float64."""
        rows, place = distinct(list(zip(texts.sources, texts.hypotheses, strict=True)))
        logits = self.checkpoint.read(self._inputs(rows), self._logits) / self.temperature
        if self.output == "probability":
            logits = logits.sigmoid() if self.several else logits.softmax(-1)
        scores: np.ndarray = logits[:, self.label].numpy()[place]
        return scores

    def corpus(self, texts: Texts) -> CorpusScore:
        """Returns the mean over the texts of the probability (0-1), the logit or the number, with the score of each,
        [B]."""
        name = self.checkpoint.config.id2label[self.label]
        how = f"{self.output} of {name} under {self.checkpoint.identity}|t:{self.temperature:g}|reads:{self.reads}"
        return mean_score(self(texts), how)

    def _inputs(self, rows: list[tuple[str, str]]) -> list[Inputs]:
        return self.checkpoint.encode([row if self.reads == "pair" else row[1:] for row in rows])

    def _logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """[b, classes]."""
        logits: Tensor = self.checkpoint.network(**inputs).logits
        return logits


def _require_head(config: Any, path: str) -> None:
    """Raises SettingError unless a config describes a trained sequence classifier."""
    remedy = f"choose a checkpoint that was trained and saved as AutoModel{HEAD}"
    if config.model_type not in kinds("SEQUENCE_CLASSIFICATION"):
        problem = f"{path} is a {config.model_type!r} checkpoint, of which there are no classifiers"
        raise SettingError("path", problem, remedy)
    named = config.architectures or []
    if named and not any(name.endswith(HEAD) for name in named):
        raise SettingError("path", f"{path} is a {named[0]}, which has no trained head that classifies", remedy)


def _index(label: str | int | None, config: Any) -> int:
    """The index of a class. Raises SettingError, with the classes, where there is no such class, or none is named."""
    names = {int(index): str(name) for index, name in config.id2label.items()}
    if config.num_labels == 1 and label is None:
        return 0
    for index, name in names.items():
        if label in (index, name) and not isinstance(label, bool):
            return index
    listed = ", ".join(f"{name} ({index})" for index, name in list(names.items())[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    problem = "names no class" if label is None else f"is {label!r}, which is none of its classes"
    raise SettingError("label", f"{problem}; there are {listed}{more}", "name one of them, or give its index")
