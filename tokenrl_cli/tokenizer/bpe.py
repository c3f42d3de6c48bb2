"""Byte-level byte-pair encoding, on the `tokenizers` library."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

from tokenrl_cli.config.ranges import WIDE, Count, Ge, Le
from tokenrl_cli.data.lines import well_formed
from tokenrl_cli.interfaces import UserError
from tokenrl_cli.tokenizer.vocabulary import EOS, read_json

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads and a fork of this process do not get along

from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, trainers

FILE = "bpe.json"
SMALLEST = 257  # tokens: EOS and the bytes
END = "<end>"  # the name of EOS in the file; no text is ever matched against it


def _letters() -> dict[str, int]:
    """Returns the byte that each letter stands for, 256 of them. The library writes a byte as one letter: itself if it
    is a visible Latin-1 letter, else one above U+00FF."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + i): byte for i, byte in enumerate(hidden)}


LETTERS = _letters()


class Bpe:
    """Tokens are sequences of bytes, made by joining the most frequent neighbours within a word (arXiv:1508.07909, on
    bytes: arXiv:1909.03341). Nothing is unknown, and decode(encode(x)) == x for every text; half of a surrogate pair,
    which no text has, comes back as U+FFFD. Before `train` or `load` the tokens are EOS and the 256 bytes.

    The start of a text counts as a space, as for `word`. A prefix that ends inside a character ends with U+FFFD.
    """

    def __init__(self, vocabulary_size: Annotated[int, Ge(SMALLEST), Le(WIDE)], min_count: Count) -> None:
        self.vocabulary_size, self.min_count = vocabulary_size, min_count
        self.eos_id, self.unknown_id = EOS, None
        self._assign([END, *sorted(LETTERS)], [])

    def _assign(self, tokens: list[str], merges: list[tuple[str, str]]) -> None:
        model = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
        self._engine = _engine(model)
        self._bytes = [b""] + [bytes(LETTERS[letter] for letter in token) for token in tokens[1:]]
        self._tokens, self._merges = tokens, merges

    @property
    def size(self) -> int:
        """The number of tokens V, EOS included."""
        return len(self._tokens)

    def train(self, texts: Iterable[str]) -> None:
        """Learns the vocabulary from `texts` and replaces the one there was: EOS, the 256 bytes, and merges of the most
        frequent neighbours within a word until there are `vocabulary_size` tokens, or no pair occurs `min_count` times
        (Sennrich et al. 2016, arXiv:1508.07909). Without texts there are no merges."""
        engine = _engine(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary_size,
            min_frequency=self.min_count,
            special_tokens=[END],
            initial_alphabet=sorted(LETTERS),
            show_progress=False,
        )
        engine.train_from_iterator((" " + well_formed(text) for text in texts), trainer)
        learned = json.loads(engine.to_str())["model"]
        tokens = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
        # Rebuilt, because the trained engine would read the name of EOS in a text as EOS.
        self._assign(tokens, [(left, right) for left, right in learned["merges"]])

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without EOS; [] for the empty text."""
        return self._engine.encode(" " + well_formed(text)).ids if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of any ids; EOS has no text, and the space before the first word is left out. Bytes that are
        no UTF-8, as after a prefix that ends inside a character, become U+FFFD. Raises IndexError for an id that is not
        below `size`."""
        return _text(b"".join([self._bytes[i] for i in ids]))

    def prefixes(self, ids: Sequence[int]) -> list[str]:
        """Returns the T + 1 strings decode(ids[:t]) for t = 0 ... T, the first empty, in one pass over the T ids.
        Raises IndexError for an id that is not below `size`."""
        return [_text(content) for content in accumulate((self._bytes[i] for i in ids), initial=b"")]

    def save(self, directory: Path) -> None:
        """Writes the vocabulary to bpe.json in `directory`, which is made where it is missing. An existing file is
        replaced."""
        directory.mkdir(parents=True, exist_ok=True)
        content = {"kind": "bpe", "tokens": self._tokens, "merges": self._merges}
        (directory / FILE).write_bytes((json.dumps(content, ensure_ascii=False, indent=0) + "\n").encode())

    def load(self, directory: Path) -> None:
        """Replaces the vocabulary by the one in bpe.json of `directory`. Raises UserError where the file cannot be
        read, is damaged, or is of another kind of tokenizer."""
        path = directory / FILE
        content = read_json(path)
        if content.get("kind") != "bpe":
            raise UserError(str(path), f"is no bpe vocabulary: its kind is {content.get('kind')!r}")
        try:
            tokens = content["tokens"]
            if tokens[0] != END or not set(LETTERS) <= set(tokens) or len(set(tokens)) < len(tokens):
                raise ValueError("its tokens are not EOS, every byte, and merges, each once")
            self._assign(tokens, [(left, right) for left, right in content["merges"]])
        except Exception as error:  # the library raises bare Exception for a merge of tokens it does not know
            raise UserError(str(path), f"is damaged: {error!r}", "use another checkpoint") from None


def _engine(model: models.BPE) -> Engine:
    engine = Engine(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return engine


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace").removeprefix(" ")
