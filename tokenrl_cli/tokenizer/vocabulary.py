"""The list of tokens behind `word` and `char`: counted, cut, saved as JSON, and joined back to text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenrl_cli.interfaces import UserError

EOS, UNKNOWN = 0, 1
RESERVED = 2
FILE = "vocabulary.json"


class Vocabulary:
    """A list of tokens, each the piece of text that it stands for, so that joined pieces are the text. EOS and the
    unknown token come first, and are all there is before `train` or `load`. `kind` names the tokenizer in the file,
    `unknown` is the text of an unknown token."""

    def __init__(self, kind: str, unknown: str, vocabulary_size: int, min_count: int) -> None:
        self.kind, self.vocabulary_size, self.min_count = kind, vocabulary_size, min_count
        self.reserved = ["", unknown]  # the texts of EOS and of an unknown token
        self._assign([])

    def _assign(self, tokens: list[str]) -> None:
        self.tokens = self.reserved + tokens
        self._ids = {token: i for i, token in enumerate(tokens, len(self.reserved))}

    def train(self, pieces: Iterable[list[str]]) -> None:
        """Counts the pieces of all texts and keeps the most frequent, at most `vocabulary_size` tokens with the two
        reserved ones, of those that occur `min_count` times or more; they replace the tokens there were. Ties go by
        code point, so the order of the texts changes nothing. Raises UserError where there is no piece."""
        counts: Counter[str] = Counter()
        for text in pieces:
            counts.update(text)
        if not counts:
            raise UserError("tokenizer", "there is no text to learn a vocabulary from", "look at the training split")
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [token for token, count in ranked if count >= self.min_count]
        self._assign(kept[: self.vocabulary_size - RESERVED])

    def encode(self, pieces: Iterable[str]) -> list[int]:
        """Returns the id of each of the `pieces` of a text (a string is read by character), UNKNOWN for one that is not
        in the vocabulary."""
        find = self._ids.get
        return [find(piece, UNKNOWN) for piece in pieces]

    def join(self, ids: Sequence[int]) -> str:
        """Returns the texts of any ids, joined; EOS has none, and an unknown token has the text `unknown`. Raises
        IndexError for an id above the last."""
        return "".join([self.tokens[i] for i in ids])

    def save(self, directory: Path) -> None:
        """Writes the vocabulary to vocabulary.json in `directory`, which is made where it is missing. An existing file
        is replaced."""
        directory.mkdir(parents=True, exist_ok=True)
        content = {"kind": self.kind, "tokens": self.tokens[RESERVED:]}
        text = json.dumps(content, ensure_ascii=False, indent=0) + "\n"
        (directory / FILE).write_bytes(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair: \\uD800

    def load(self, directory: Path) -> None:
        """Replaces the vocabulary by the one in vocabulary.json of `directory`. Raises UserError where the file cannot
        be read, is damaged, or is of another kind of tokenizer."""
        content = read_json(directory / FILE)
        tokens = content.get("tokens")
        if content.get("kind") != self.kind:
            raise UserError(str(directory / FILE), f"is no {self.kind} vocabulary: its kind is {content.get('kind')!r}")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise UserError(str(directory / FILE), "expected a list of strings under 'tokens'")
        if len(set(tokens)) < len(tokens):
            raise UserError(str(directory / FILE), "a token occurs twice")
        self._assign(tokens)


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object of a saved tokenizer. Raises UserError, which names the file, where it cannot be read or
    is no JSON object."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(str(path), f"cannot read the saved tokenizer: {reason}", "name a complete checkpoint") from None
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"the saved tokenizer is damaged: {error}", "use another checkpoint") from None
    if not isinstance(content, dict):
        raise UserError(str(path), "the saved tokenizer is damaged: expected a JSON object", "use another checkpoint")
    return content
