"""What rewards from pretrained checkpoints share: a frozen network with its own tokenizer that reads texts in batches.

The number that a text gets does not depend on the texts beside it, but for rounding: padding is masked, and a network
that reads it all the same is refused when it is built.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from tokenrl_cli import hub
from tokenrl_cli.interfaces import SettingError

Inputs = dict[str, list[int]]  # of one text, by the names of the network's arguments: "input_ids", each S long
Read = Callable[[dict[str, Tensor]], Tensor]  # inputs of b texts, each [b, S], to what is read off the network, [b, k]
Row = TypeVar("Row", bound=Hashable)
UNLIMITED = 10**6  # tokens; a tokenizer without a limit names a number above it
TOLERANCE = 1e-4  # of the largest number that a text alone gives


class Checkpoint:
    """A pretrained network in evaluation mode, in float32, without gradients, on `device`, with its own tokenizer.

    `path` names its directory, a GGUF file or a repository of the Hugging Face hub, `kind` the class of transformers
    that loads it, such as "AutoModel". Texts are read `batch_size` at a time. A text longer than `max_tokens` tokens is
    cut at its end; None: cut where the checkpoint's own limit is. `fits` is called with the config and `path`, and
    raises SettingError for a checkpoint of another kind. `unread` names modules whose weights the checkpoint may lack,
    as nothing is read of them. Raises SettingError, whose `where` is "path" or "max_tokens", where the checkpoint
    cannot be used: see `hub.directory`, `hub.config`, `hub.weights` and `hub.tokenizer`.
    """

    def __init__(
        self,
        path: str,
        kind: str,
        fits: Callable[[Any, str], None],
        max_tokens: int | None,
        batch_size: int,
        device: str | torch.device,
        unread: Sequence[str],
    ) -> None:
        self.path, self.device = path, torch.device(device)
        self.place = place = hub.directory(path, "path")
        self.config = hub.config(place, "path")
        fits(self.config, path)
        self.tokenizer = hub.tokenizer(place, "path")
        self.names = _special_names(self.tokenizer)
        self.longest = _longest(self.tokenizer, self.config, max_tokens)
        import transformers

        def may_lack(name: str) -> bool:
            return not set(unread).isdisjoint(name.split("."))

        cls = getattr(transformers, kind)
        network = hub.weights(place, self.config, cls, "path", may_lack, dtype=torch.float32)
        self.network = network.requires_grad_(False).eval().to(self.device)
        self.filler, self.batch_size = self._filler(batch_size)
        self.arguments = frozenset(inspect.signature(network.forward).parameters)
        size, last = network.get_input_embeddings().num_embeddings, max(self.tokenizer.get_vocab().values())
        if last >= size:
            problem = f"the vocabulary of {path} has {size} tokens, and its tokenizer has the id {last}: they differ"
            raise SettingError("path", problem, "copy both from one checkpoint")

    def _filler(self, batch_size: int) -> tuple[int, int]:
        """The id to pad with, and how many texts are read at a time: one, where the checkpoint has no id to pad with,
        as some networks find the end of a text by it."""
        settings = self.network.config.get_text_config()
        if settings.pad_token_id is None:
            settings.pad_token_id = self.tokenizer.pad_token_id
        return (0, 1) if settings.pad_token_id is None else (settings.pad_token_id, batch_size)

    @cached_property
    def identity(self) -> str:
        """The path of the checkpoint and the first 12 digits of its SHA-256 (`hub.digest`), as "PATH@DIGITS". The first
        access reads all of its weights."""
        return f"{self.path}@{hub.digest(self.place, 'path')[:12]}"

    def encode(self, rows: Sequence[tuple[str, ...]], special: bool = True) -> list[Inputs]:
        """Returns for each row a dictionary from the name of an argument of the network ("input_ids", "token_type_ids")
        to a list of S ints, unpadded and without an attention mask, which `read` adds; [] without rows. Every row is
        one text, or every row is a pair of texts. The special tokens that the checkpoint puts around them are included,
        but not with `special` False. Of a pair that is too long the longer text is cut.

        The name of a special token in a text is no such token: it gets a space after its first character. Else a policy
        could write into the text what the network takes for its end.
        """
        if not rows:
            return []
        found = self.tokenizer(
            *([self.names.sub(_broken, text) for text in texts] for texts in zip(*rows, strict=True)),
            add_special_tokens=special,
            truncation=self.longest is not None,
            max_length=self.longest,
            padding=False,
            return_attention_mask=False,
        )
        inputs = [{name: found[name][i] for name in found if name in self.arguments} for i in range(len(rows))]
        if not special:
            return inputs
        # a tokenizer without special tokens gives nothing for an empty text, and a network needs something to read
        return [each if each["input_ids"] else {name: [self.filler] for name in each} for each in inputs]

    @torch.no_grad()
    def read(self, inputs: Sequence[Inputs], read: Read) -> Tensor:
        """Returns what `read` gives for each of n texts, whose `inputs` are those that `encode` returns, [n, k] float64
        on the CPU, in their order; [0, 1] without texts. `read` is called, without gradients, with the padded inputs
        and the attention mask of b texts, each [b, S], and returns [b, k]. Texts of similar length are read together,
        at most `batch_size` of them."""
        order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]["input_ids"]))
        parts = []
        for start in range(0, len(order), self.batch_size):
            batch = self._padded([inputs[i] for i in order[start : start + self.batch_size]])
            with torch.autocast(self.device.type, enabled=False):
                parts.append(read(batch).double().cpu())
        if not parts:
            return torch.zeros(0, 1, dtype=torch.float64)
        found = torch.cat(parts)
        return torch.empty_like(found).index_copy_(0, torch.tensor(order), found)

    def _padded(self, inputs: Sequence[Inputs]) -> dict[str, Tensor]:
        """Inputs of b texts as tensors [b, S] on the device, padded on the right, and their mask."""
        fillers = {"input_ids": self.filler, "token_type_ids": self.tokenizer.pad_token_type_id}
        width = max(len(each["input_ids"]) for each in inputs)
        rows = {
            name: [each[name] + [fillers.get(name, 0)] * (width - len(each[name])) for each in inputs]
            for name in inputs[0]
        }
        rows["attention_mask"] = [
            [1] * len(each["input_ids"]) + [0] * (width - len(each["input_ids"])) for each in inputs
        ]
        return {name: torch.tensor(values, device=self.device) for name, values in rows.items()}

    def require_alone(self, inputs: Sequence[Inputs], read: Read) -> None:
        """Raises SettingError where what `read` gives for one of the texts of `inputs`, as `encode` returns them (at
        least two, of different lengths), depends on the other texts that are read with it."""
        together = self.read(inputs, read)
        alone = torch.cat([self.read([each], read) for each in inputs])
        difference = float((together - alone).abs().max() / alone.abs().max().clamp(min=1e-9))
        if not difference <= TOLERANCE:
            name = type(self.network).__name__
            problem = f"{name} cannot be used: what it says of a text changes with the texts beside it"
            raise SettingError("path", problem, "{here}.batch_size=1, or a checkpoint of another architecture")


def distinct(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """Returns the distinct rows, in the order in which they first occur, and for each of the given rows its index in
    that list."""
    place = {row: at for at, row in enumerate(dict.fromkeys(rows))}
    return list(place), [place[row] for row in rows]


def kinds(mapping: str) -> frozenset[str]:
    """Returns the model types, such as "bert", for which transformers has a model class for the task `mapping`, such as
    "SEQUENCE_CLASSIFICATION". Raises AttributeError for another task."""
    from transformers.models.auto import modeling_auto

    return frozenset(getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES"))


def _special_names(tokenizer: Any) -> re.Pattern[str]:
    """Matches the name of any special token of a tokenizer, the longest that is there."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = {name for name in (*added, *tokenizer.all_special_tokens) if len(name) > 1}
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")


def _broken(match: re.Match[str]) -> str:
    """A name with a space after its first character."""
    return f"{match[0][0]} {match[0][1:]}"


def _longest(tokenizer: Any, config: Any, wanted: int | None) -> int | None:
    """The number of tokens, special ones included, that texts are cut at; None: never. Raises SettingError where
    `wanted` is more than the checkpoint can read, or leaves no room for a text."""
    plain, name = config.get_text_config().to_dict(), "max_position_embeddings"
    limit: int | None = plain.get(name) or plain.get(config.attribute_map.get(name, name))
    if tokenizer.model_max_length < UNLIMITED:
        limit = min(tokenizer.model_max_length, limit or UNLIMITED)
    elif limit is not None and config.model_type in kinds("MASKED_LM"):
        limit -= (config.pad_token_id or 0) + 1  # RoBERTa and its kin count positions from behind the padding id
    if wanted is None:
        return limit
    if limit is not None and wanted > limit:
        raise SettingError("max_tokens", f"is {wanted}, and the checkpoint reads at most {limit} tokens")
    special = max(tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
    if wanted < special + 2:
        raise SettingError("max_tokens", f"is {wanted}, which must be at least {special + 2}, special tokens included")
    return wanted
