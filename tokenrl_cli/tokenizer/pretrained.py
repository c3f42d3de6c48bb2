"""The tokenizer of a pretrained model: read by `transformers`, and restricted to the ids that a policy may generate.

A pretrained vocabulary has ids that no text has: padding, the begin of a sequence, masks, placeholders, further ends of
a sequence. `theirs` lists the ids that are left, and all other code counts 0 ... size - 1 in that list. A checkpoint
holds this table and the tokenizer's own files, so that the pretrained model is not needed again.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer as Engine

from tokenrl_cli import hub
from tokenrl_cli.config.extras import require_extra
from tokenrl_cli.config.ranges import Text
from tokenrl_cli.data.lines import well_formed
from tokenrl_cli.files import disk
from tokenrl_cli.files.records import LARGEST, read_json
from tokenrl_cli.interfaces import SettingError, UserError
from tokenrl_cli.tokenizer.bpe import LETTERS

TABLE, ENGINE, TARGETS = "pretrained.json", "tokenizer.json", "target.spm"
# how tokens begin that stand in no text; those of Whisper are times, such as <|0.00|>
PLACEHOLDER = re.compile(r"[\[<|]+(unused|extra_id_|reserved|\d+\.\d\d\|>)")
RARE = "\U00013000\ua66e\U00010380\u16a0\U0001d306"  # letters that hardly any vocabulary has
SPACE = "\u2581"  # in a token of a vocabulary of characters
UNKNOWN = "\N{DOUBLE QUESTION MARK}"
SLOT = "{source}"  # stands for the source in a template
MARK = "SOURCEqjxkzSOURCE"  # stands for it while a chat template is rendered
SOURCES = "source_tokenizer"  # the key of a tokenizer that encodes sources alone
ANOTHER = "use another checkpoint"

Table = dict[str, Any]  # what pretrained.json holds; see `_check`


class Pretrained:
    """The tokenizer of a pretrained model.

    As `tokenizer` its ids are those of texts that a policy may generate: the vocabulary without special tokens,
    placeholders and those that the checkpoint suppresses (`suppress_tokens`, which a text then loses when it is
    encoded), but with one end of sequence, the `eos_token`, or else the `sep_token`, and with the unknown token where
    there are texts that cannot be encoded. Text that looks like a special token is encoded as any other text.

    As `source_tokenizer` its ids are the whole vocabulary, and a source is encoded within `template`, a text with
    {source} in it; with `chat` that is the message of a user, after a message `system` if there is one, in the chat
    template of the tokenizer. All this is rendered as one text before it is encoded, and a limit shortens the source
    in it. Except for a chat, what the tokenizer puts around every text, such as [CLS] and [SEP], is put around it.

    Nothing is read before `train` or `load`, or the first text: until then `size` and `eos_id` are 0 and `theirs` is
    []. `here` is the path of the block in the config, "tokenizer" or "source_tokenizer". Raises SettingError where
    `template` does not hold {source} once, for `system` without `chat`, for any of the three where the tokenizer
    encodes targets, too, and without the packages of the extra.
    """

    def __init__(self, path: Text, template: Text | None, chat: bool, system: Text | None, here: str) -> None:
        require_extra("hf", "path", "transformers")
        self.path, self.template, self.chat, self.system, self.here = path, template, chat, system, here
        self.for_sources = here == SOURCES
        for name, value in (("template", template), ("chat", chat), ("system", system)):
            if value and not self.for_sources:
                problem = "is for sources, and this tokenizer encodes targets"
                raise SettingError(name, problem, f"tokenizer@{SOURCES}=pretrained, with {SOURCES}.{name}")
        if template is not None and template.count(SLOT) != 1:
            remedy = f'such as {{here}}.template="Summarise: {SLOT}"'
            raise SettingError("template", f"must hold {SLOT} once, where the source is to stand", remedy)
        if system is not None and not chat:
            raise SettingError("system", "is a message of a chat", "{here}.chat=true, or leave it out")
        self.theirs: list[int] = []
        self.size = self.eos_id = 0
        self.unknown_id: int | None = None
        self._engine: _Engine | None = None

    # ------------------------------------------------------------------------------------------------ reading, writing

    def train(self, texts: Iterable[str]) -> None:
        """Reads the tokenizer from `path`, which is downloaded where it is a name on the hub. `texts` are not read: the
        vocabulary is there already. Raises UserError where there is no tokenizer, where it would need code of its own,
        where it has no token for the end of a sequence, and where its chat template cannot be used."""
        try:
            place = hub.directory(self.path, "path")
            library = hub.tokenizer(place, "path")
            special, eos, unknown = _roles(library, self.path)
            unsaid = hub.suppressed(place, "path")
            template = self._rendered(library)
        except SettingError as error:
            raise error.placed(self.here, "tokenizer") from None
        files = _files_of(library)
        engine = _engine_of(files, library, special, unknown, self.path)
        around = engine.frame() if self.for_sources and not self.chat else [[], []]
        whole, ids = {*engine.vocabulary(), *around[0], *around[1]}, engine.marked("a".join(template))
        if strange := set(ids) - whole:
            problem = f"holds a special token (the id {min(strange)}) that is not in the vocabulary of {self.path}"
            raise SettingError("template", problem, "leave it out").placed(self.here, "tokenizer")
        unknown = unknown if unknown is not None and unknown in engine.ids(RARE) else None
        hidden = set() if self.for_sources else {*special, *unsaid} - {eos, unknown}
        table: Table = {"kind": "pretrained", "special": sorted(special), "eos": eos, "unknown": unknown}
        table |= {"template": template, "around": around, "theirs": sorted(whole - hidden)}
        self._assign(table, files, engine)

    def _rendered(self, library: Any) -> list[str]:
        """The text before a source and the text after it."""
        text = (self.template or SLOT).replace(SLOT, MARK)
        if self.chat:
            messages = [{"role": "system", "content": self.system}] if self.system else []
            messages.append({"role": "user", "content": text})
            remedy = f"{{here}}.chat=false, and {{here}}.template as a text with {SLOT}"
            try:
                text = library.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # whatever the template raises, or that there is none
                problem = f"the chat template of {self.path} cannot be used: {_cause(error)}"
                raise SettingError("chat", problem, remedy) from None
            if text.count(MARK) != 1:
                problem = f"the chat template of {self.path} does not hold the message once, as it is"
                raise SettingError("chat", problem, remedy)
        before, _, after = text.partition(MARK)
        return [before, after]

    def _assign(self, table: Table, files: dict[str, bytes], engine: _Engine) -> None:
        self._table, self._files, self._engine = table, files, engine
        self.theirs = table["theirs"]
        self.size = len(self.theirs)
        self._ours = {their: own for own, their in enumerate(self.theirs)}
        self._special = set(table["special"])
        self.eos_id = self._ours[table["eos"]]
        self.unknown_id = None if table["unknown"] is None else self._ours[table["unknown"]]
        self._silent = {self._ours[i] for i in self._special if i in self._ours} - {self.unknown_id}
        self._space = ""
        self._space = " " * self.decode(self.encode("a")).startswith(" ")  # the tokenizer has put it there
        self._template_specials = self._count_special(engine.marked("a".join(table["template"])))

    def save(self, directory: Path) -> None:
        """Writes the table of ids to pretrained.json in `directory`, which is made where it is missing, and the
        tokenizer's own files beside it. Existing files are replaced. Reads the tokenizer first, if nothing did
        before."""
        self._ready()
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (directory / name).write_bytes(content)
        (directory / TABLE).write_text(json.dumps(self._table) + "\n", "utf-8")

    def load(self, directory: Path) -> None:
        """Replaces the tokenizer by the one that `save` wrote to `directory`; `path` is not read. Raises UserError
        where a file is missing, too large, damaged, or of another kind of tokenizer."""
        place = directory / TABLE
        table = read_json(place, "saved tokenizer of a pretrained model", ANOTHER)
        if table.get("kind") != "pretrained":
            raise UserError(str(place), f"is no pretrained tokenizer: its kind is {table.get('kind')!r}", ANOTHER)
        _check(table, place)
        files = {each.name: disk.read(each, LARGEST) for each in sorted(directory.iterdir()) if each.name != TABLE}
        library = None
        if ENGINE not in files:
            try:
                library = hub.tokenizer(directory, "path")
            except SettingError as error:
                raise UserError(str(directory), error.problem, ANOTHER) from None
        engine = _engine_of(files, library, table["special"], table["unknown"], str(directory))
        left, right = table["around"]
        if strange := set(table["theirs"]) - {*engine.vocabulary(), *left, *right}:
            problem = f"holds the id {min(strange)}, which the tokenizer beside it does not have"
            raise UserError(str(place), problem, ANOTHER)
        self._assign(table, files, engine)

    def _ready(self) -> _Engine:
        if self._engine is None:
            self.train(())
        assert self._engine is not None
        return self._engine

    # ------------------------------------------------------------------------------------------------ text and ids

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text by itself, without a template and without special tokens: the name of one in the
        text is encoded as any other text. [] for the empty text; what the vocabulary does not have becomes
        `unknown_id`, or is left out where there is none. The first call reads the tokenizer, unless `train` or `load`
        did, and may raise UserError."""
        return self._plain(self._ready().ids(well_formed(text))) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of any ids below `size`: special tokens have none, and an unknown token is shown as U+2047.
        Bytes that are no UTF-8, as after a prefix that ends inside a character, become U+FFFD. Where the tokenizer puts
        a space before the first word, that is left out. Raises IndexError for an id that is not below `size`."""
        return self._ready().text(self._loud(ids)).removeprefix(self._space)

    def prefixes(self, ids: Sequence[int]) -> list[str]:
        """Returns the T + 1 strings decode(ids[:t]) for t = 0 ... T: in one pass over T ids where tokens are sequences
        of bytes, else each by itself. Raises IndexError for an id that is not below `size`."""
        texts = self._ready().prefixes(self._loud(ids))
        counts = accumulate((i not in self._silent for i in ids), initial=0)
        return [texts[count].removeprefix(self._space) for count in counts]

    def encode_source(self, text: str, limit: int) -> tuple[list[int], bool]:
        """Returns the ids of a source within all that stands around it, at most `limit` of them, and whether the source
        was shortened for that: only the source loses its end, not what stands around it. Raises UserError where what
        stands around it is longer than `limit` by itself. A tokenizer that encodes targets, too, puts nothing around
        it."""
        engine, text = self._ready(), well_formed(text)
        ids = self._within(text)
        if len(ids) <= limit:
            return ids, False
        if not self.for_sources:
            return ids[:limit], True
        ends = engine.ends(text)
        kept = len(ends)
        while (over := len(ids) - limit) > 0 and kept:
            kept = max(0, kept - over)
            ids = self._within(text[: ends[kept - 1]] if kept else "")
        if len(ids) > limit:
            where = f"dataset.max_source_length={limit}"
            problem = f"is less than the {len(ids)} tokens that stand around every source"
            raise UserError(where, problem, f"raise it, or shorten {SOURCES}.template")
        return ids, True

    def _within(self, text: str) -> list[int]:
        """The ids of a source within its template, and within what the tokenizer puts around every text."""
        engine, (before, after) = self._ready(), self._table["template"]
        if not self.for_sources:
            return self._plain(engine.source(text)) if text else []
        ids = engine.marked(before + text + after) if before or after else engine.source(text) if text else []
        if self._count_special(ids) != self._template_specials:  # the source looks like a special token
            ids = engine.around(before, text, after)
        left, right = self._table["around"]
        return [self._ours[i] for i in (*left, *ids, *right)]

    def _plain(self, theirs: list[int]) -> list[int]:
        found = (self._ours.get(i) for i in theirs)
        return [i for i in found if i is not None and i not in self._silent]

    def _loud(self, ids: Sequence[int]) -> list[int]:
        return [self.theirs[i] for i in ids if i not in self._silent]

    def _count_special(self, theirs: list[int]) -> int:
        return sum(i in self._special and i != self._table["unknown"] for i in theirs)


# --------------------------------------------------------------------------------------------------- two kinds of them


class _Engine(Protocol):
    """Text and ids of the whole pretrained vocabulary."""

    def vocabulary(self) -> Iterable[int]:
        """All ids."""

    def ids(self, text: str) -> list[int]:
        """The ids of a target, without special tokens, even where the text looks like one."""

    def source(self, text: str) -> list[int]:
        """The same for a source."""

    def marked(self, text: str) -> list[int]:
        """The ids of a source in which the names of special tokens stand for these."""

    def frame(self) -> list[list[int]]:
        """The ids that the tokenizer puts before every text, and those after it."""

    def around(self, before: str, text: str, after: str) -> list[int]:
        """The ids of `before + text + after`, in which special tokens are named outside `text` alone."""

    def ends(self, text: str) -> list[int]:
        """Lengths of prefixes of a text at which it may be cut, rising, about one for each token."""

    def text(self, ids: list[int]) -> str:
        """The text of ids without special ones, but with unknown ones."""

    def prefixes(self, ids: list[int]) -> list[str]:
        """text(ids[:t]) for t = 0 ... T."""


class _Fast:
    """On the `tokenizers` library, from the content of a tokenizer.json. There are two engines: one as it is, and one
    without special tokens, for a text may hold the name of one."""

    def __init__(self, content: dict[str, Any], special: Sequence[int], unknown: int | None) -> None:
        content = content | {"truncation": None, "padding": None}  # lengths are not the tokenizer's affair here
        self._whole = Engine.from_str(json.dumps(content))
        names = {i: self._whole.id_to_token(i) for i in special}
        self._names = _any_of(name for name in names.values() if name)
        self._bare = Engine.from_str(json.dumps(_without(content, names, unknown)))
        spelt, vocabulary = _spelling(content.get("decoder") or {}), self._bare.get_vocab(with_added_tokens=True)
        # None for word pieces alone, of which the text depends on what is before them
        self._bytes = None if spelt is None else {i: spelt(token) for token, i in vocabulary.items()}

    def vocabulary(self) -> Iterable[int]:
        return self._whole.get_vocab(with_added_tokens=True).values()

    def ids(self, text: str) -> list[int]:
        found: list[int] = self._bare.encode(text, add_special_tokens=False).ids
        return found

    def source(self, text: str) -> list[int]:
        return self.ids(text)

    def marked(self, text: str) -> list[int]:
        found: list[int] = self._whole.encode(text, add_special_tokens=False).ids
        return found

    def frame(self) -> list[list[int]]:
        return _around(self._whole.encode("a").ids, self.marked("a"))

    def around(self, before: str, text: str, after: str) -> list[int]:
        return _glued(self, self._names, before, text, after)

    def ends(self, text: str) -> list[int]:
        return sorted({end for _, end in self._bare.encode(text, add_special_tokens=False).offsets})

    def text(self, ids: list[int]) -> str:
        if self._bytes is not None:
            return b"".join([self._bytes[i] for i in ids]).decode("utf-8", "replace")
        found: str = self._bare.decode(ids, skip_special_tokens=False)
        return found

    def prefixes(self, ids: list[int]) -> list[str]:
        if self._bytes is not None:
            contents = accumulate((self._bytes[i] for i in ids), initial=b"")
            return [content.decode("utf-8", "replace") for content in contents]
        return [self.text(ids[:t]) for t in range(len(ids) + 1)]


def _spelling(decoder: dict[str, Any]) -> Callable[[str], bytes] | None:
    """The function from a token to its bytes, if the text of ids is that of their joined bytes, for the `decoder` of a
    tokenizer.json; a space before the first word is left in it. None for other decoders.

    The library itself shows a character before half a character as U+FFFD, too, where bytes are tokens of a vocabulary
    of characters.
    """

    def letters(token: str) -> bytes:
        return bytes(LETTERS[letter] for letter in token) if LETTERS.keys() >= set(token) else token.encode()

    def characters(token: str) -> bytes:
        return token.replace(SPACE, " ").encode()

    def either(token: str) -> bytes:
        return bytes.fromhex(token[3:5]) if re.fullmatch("<0x[0-9A-F]{2}>", token) else characters(token)

    steps = decoder.get("decoders") or [decoder]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return letters
    if kinds == ["Metaspace"] and steps[0].get("replacement") == SPACE:
        return characters
    spaces = steps[0].get("pattern") == {"String": SPACE} and steps[0].get("content") == " "
    if spaces and kinds[:3] == ["Replace", "ByteFallback", "Fuse"] and kinds[3:] in ([], ["Strip"]):
        return either
    return None


class _Slow:
    """On a tokenizer of `transformers` in Python, such as that of Marian, whose sources and targets are divided by
    models of their own (`two_sided`)."""

    def __init__(self, library: Any, special: Sequence[int], unknown: int | None, two_sided: bool) -> None:
        self._library, self._two_sided, self._unknown = library, two_sided, unknown
        self._special = set(special) - {unknown}
        self._names = _any_of(library.convert_ids_to_tokens(list(special)))

    def vocabulary(self) -> Iterable[int]:
        found: Iterable[int] = self._library.get_vocab().values()
        return found

    def ids(self, text: str) -> list[int]:
        side = {"text_target": text} if self._two_sided else {"text": text}
        found = self._library(**side, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [i for i in found if i not in self._special]

    def source(self, text: str) -> list[int]:
        found = self._library.encode(text, add_special_tokens=False, split_special_tokens=True)
        return [i for i in found if i not in self._special]

    def marked(self, text: str) -> list[int]:
        found: list[int] = self._library.encode(text, add_special_tokens=False)
        return found

    def frame(self) -> list[list[int]]:
        return _around(self._library.encode("a"), self.marked("a"))

    def around(self, before: str, text: str, after: str) -> list[int]:
        return _glued(self, self._names, before, text, after)

    def ends(self, text: str) -> list[int]:
        return list(range(1, len(text) + 1))

    def text(self, ids: list[int]) -> str:
        found: str = self._library.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        name = self._library.unk_token
        return found.replace(name, UNKNOWN) if name and self._unknown in ids else found

    def prefixes(self, ids: list[int]) -> list[str]:
        return [self.text(ids[:t]) for t in range(len(ids) + 1)]


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the names of special tokens, the longest that is there; nothing if there is none."""
    longest = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) or r"(?!)")


def _glued(engine: _Engine, names: re.Pattern[str], before: str, text: str, after: str) -> list[int]:
    """The ids of three texts, of which the second is encoded with what is beside it up to the next special token."""
    begin = max((match.end() for match in names.finditer(before)), default=0)
    end = next((match.start() for match in names.finditer(after)), len(after))
    left, right = before[:begin], after[end:]
    inside = engine.source(before[begin:] + text + after[:end])
    return [*(engine.marked(left) if left else []), *inside, *(engine.marked(right) if right else [])]


def _around(whole: list[int], inside: list[int]) -> list[list[int]]:
    """What stands before `inside` in `whole`, and what stands after it."""
    starts = range(len(whole) - len(inside) + 1)
    first = next((i for i in starts if whole[i : i + len(inside)] == inside), 0)
    return [whole[:first], whole[first + len(inside) :]]


def _without(content: dict[str, Any], names: dict[int, str | None], unknown: int | None) -> dict[str, Any]:
    """The content of a tokenizer.json without some special tokens: in the vocabulary they have names that stand in no
    text, for a model of its kind could find the old names in a text; the unknown token is shown as UNKNOWN."""
    model = dict(content["model"])
    hidden = {name: f"\ufdd0{i}\ufdd1" for i, name in names.items() if name}
    if unknown is not None and (name := names.get(unknown)):
        hidden[name] = UNKNOWN if not _has(model["vocab"], UNKNOWN) else hidden[name]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {hidden.get(token, token): i for token, i in model["vocab"].items()}
    else:
        model["vocab"] = [[hidden.get(token, token), score] for token, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = hidden.get(model["unk_token"], model["unk_token"])
    if model.get("merges"):
        pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if hidden.keys().isdisjoint([*pair, "".join(pair)])]
    added = [token for token in content.get("added_tokens") or [] if token["id"] not in names]
    return content | {"model": model, "added_tokens": added, "post_processor": None}


def _has(vocabulary: Any, token: str) -> bool:
    return token in vocabulary if isinstance(vocabulary, dict) else any(name == token for name, _ in vocabulary)


# ------------------------------------------------------------------------------------------------------------ reading


def _roles(library: Any, shown: str) -> tuple[list[int], int, int | None]:
    """The ids of all special tokens and placeholders, of the end of a sequence, and of the unknown token, if there is
    one. Raises SettingError where there is no end."""
    eos = library.eos_token_id if library.eos_token_id is not None else library.sep_token_id
    if eos is None:
        problem = f"the tokenizer of {shown} has neither an eos_token nor a sep_token, and a text has to end"
        raise SettingError("path", problem, "set one in transformers, and save it again: tokenizer.eos_token = ...")
    special = {*library.all_special_ids, eos}
    special |= {i for i, token in library.added_tokens_decoder.items() if token.special}
    special |= {i for token, i in library.get_vocab().items() if PLACEHOLDER.match(token)}
    unknown = library.unk_token_id
    return sorted(special), eos, None if unknown == eos else unknown


def _files_of(library: Any) -> dict[str, bytes]:
    """The files that transformers writes of a tokenizer, by name."""
    with tempfile.TemporaryDirectory() as folder:
        with hub.quiet():
            library.save_pretrained(folder)
        return {path.name: disk.read(path, LARGEST) for path in sorted(Path(folder).iterdir()) if path.is_file()}


def _engine_of(
    files: dict[str, bytes], library: Any, special: Sequence[int], unknown: int | None, shown: str
) -> _Engine:
    """The engine for the files of a tokenizer; `library` is needed where tokenizer.json is not among them."""
    if ENGINE not in files:
        return _Slow(library, special, unknown, TARGETS in files)
    where = f"{shown}/{ENGINE}"
    try:
        return _Fast(json.loads(files[ENGINE]), special, unknown)
    except RecursionError:
        raise UserError(where, "is nested too deep", ANOTHER) from None
    except Exception as error:  # the library raises bare Exception
        raise UserError(where, f"is damaged: {_cause(error)}", ANOTHER) from None


def _check(table: Table, place: Path) -> None:
    """Raises UserError unless the table of a saved tokenizer is whole."""

    def numbers(value: Any) -> bool:
        return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)

    theirs, template, around = table.get("theirs"), table.get("template"), table.get("around")
    pair = isinstance(around, list) and len(around) == 2 and all(map(numbers, around))
    kinds = pair and numbers(theirs) and numbers(table.get("special"))
    texts = isinstance(template, list) and len(template) == 2 and all(isinstance(each, str) for each in template)
    ends = {table.get("eos"), table.get("unknown")} - {None}
    if not (kinds and texts and ends <= set(theirs or []) and table.get("eos") is not None):
        raise UserError(str(place), "is damaged: it is not the table that a run writes", ANOTHER)
    if len(set(table["theirs"])) < len(table["theirs"]):
        raise UserError(str(place), "is damaged: an id occurs twice", ANOTHER)


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
