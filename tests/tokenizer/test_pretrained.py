"""Tokenizers of pretrained models, on tiny ones of each kind that are trained here."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from tests.running import QUICK, TINY, tokenrl, weights
from tokenrl_cli.data.encoding import ragged_sources
from tokenrl_cli.interfaces import DecodesPrefixes, EncodesSources, SettingError, Tokenizer, TranslatesIds, UserError
from tokenrl_cli.tokenizer.pretrained import Pretrained

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Hello, world! do not fear; it's 5.3 degrees.", "naïve café"]
TEXTS += ["Der schnelle Fuchs springt über den faulen Hund."]
SPECIALS = {
    "bytes": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "pieces": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"],
    "unigram": ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"],
    "fallback": ["<unk>", "<s>", "</s>"],
    "marian": ["</s>", "<unk>", "<pad>"],
}
KINDS = list(SPECIALS)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(folder: Path) -> None:
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = SPECIALS["bytes"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    engine.train_from_iterator(TEXTS * 3, trainer)
    names = {"eos_token": special[2], "pad_token": special[2], "bos_token": special[0], "unk_token": special[0]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=engine, additional_special_tokens=special[1:2], **names)
    tokenizer.add_tokens(["<think>"])
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)


def word_pieces(folder: Path) -> None:
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Engine(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=130, special_tokens=SPECIALS["pieces"], show_progress=False)
    engine.train_from_iterator(TEXTS * 3, trainer)
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    engine.enable_truncation(8)  # as sentence encoders have it
    engine.enable_padding(length=8)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=engine, mask_token="[MASK]", **names).save_pretrained(folder)


def unigram(folder: Path) -> None:
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Engine(models.Unigram())
    engine.normalizer = normalizers.NFKC()
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.decoder = decoders.Metaspace()
    special = SPECIALS["unigram"]
    trainer = trainers.UnigramTrainer(vocab_size=110, special_tokens=special, unk_token="<unk>", show_progress=False)
    engine.train_from_iterator(TEXTS * 3, trainer)
    engine.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=engine, additional_special_tokens=special[3:], **names)
    tokenizer.save_pretrained(folder)


def byte_fallback(folder: Path) -> None:
    """As Llama's: characters, and bytes for those that the vocabulary does not have. "<s>" is a merge, too."""
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    merges = [("l", "l"), ("▁", "t"), ("h", "e"), ("▁t", "he"), ("<", "s"), ("<s", ">")]
    tokens = [*SPECIALS["fallback"], *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [*"▁abcdefghijklmnopqrstuvwxyzH,.!<>/", *map("".join, merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    engine = Engine(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    engine.decoder = decoders.Sequence(steps)
    engine.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=engine, **names).save_pretrained(folder)


def marian(folder: Path) -> None:
    import sentencepiece

    folder.mkdir()
    pieces: dict[str, None] = {}
    for name, texts in (("source", TEXTS[:3]), ("target", TEXTS[2:])):
        place = folder / name
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 3), model_prefix=str(place), vocab_size=60, hard_vocab_limit=False,
            minloglevel=5, bos_id=-1, eos_id=-1, unk_id=0,
        )  # fmt: skip
        place.with_suffix(".vocab").unlink()
        place.with_suffix(".model").rename(folder / f"{name}.spm")
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        pieces |= dict.fromkeys(model.id_to_piece(i) for i in range(1, len(model)))
    vocabulary = ["</s>", "<unk>", *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    settings = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The directory of one tokenizer of each kind, with a config.json as that of a model has."""
    root = tmp_path_factory.mktemp("pretrained")
    found = {}
    for kind, make in zip(KINDS, (byte_level, word_pieces, unigram, byte_fallback, marian), strict=True):
        make(root / kind)
        (root / kind / "config.json").write_text('{"model_type": "gpt2"}')
        found[kind] = root / kind
    return found


def read(
    place: Path, role: str = "tokenizer", template: str | None = None, chat: bool = False, system: str | None = None
) -> Pretrained:
    tokenizer = Pretrained(str(place), template, chat, system, role)
    tokenizer.train(())
    return tokenizer


@pytest.fixture(scope="module")
def every(places: dict[str, Path]) -> dict[str, Pretrained]:
    return {kind: read(place) for kind, place in places.items()}


def library(place: Path) -> Any:
    """The tokenizer as transformers reads it, without the fixed length that the one of word pieces has."""
    from transformers import AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Marian's recommends a package
        tokenizer = AutoTokenizer.from_pretrained(place)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


# ----------------------------------------------------------------------------------------------------------- the ids


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_generated_has_no_id(every: dict[str, Pretrained], places: dict[str, Path], kind: str) -> None:
    tokenizer, original = every[kind], library(places[kind])
    assert isinstance(tokenizer, Tokenizer)
    assert isinstance(tokenizer, TranslatesIds)
    assert isinstance(tokenizer, EncodesSources)
    assert isinstance(tokenizer, DecodesPrefixes)
    ends = {"bytes": "<|im_end|>", "pieces": "[SEP]", "unigram": "</s>", "marian": "</s>"}
    ends["fallback"] = "</s>"
    unknown = {"bytes": None, "fallback": None, "pieces": "[UNK]", "unigram": "<unk>", "marian": "<unk>"}[kind]
    token = {own: original.convert_ids_to_tokens(their) for own, their in enumerate(tokenizer.theirs)}
    assert token[tokenizer.eos_id] == ends[kind]
    assert (None if tokenizer.unknown_id is None else token[tokenizer.unknown_id]) == unknown
    assert set(token.values()) & set(SPECIALS[kind]) == {ends[kind], unknown} - {None}
    assert set(token.values()) | set(SPECIALS[kind]) == set(original.get_vocab())
    assert len(set(tokenizer.theirs)) == tokenizer.size


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_library(every: dict[str, Pretrained], places: dict[str, Path], kind: str) -> None:
    tokenizer, original = every[kind], library(places[kind])
    for text in [*TEXTS, " two  spaces ", "a", "\U00013000?"]:
        side = "text_target" if kind == "marian" else "text"
        wanted = original(**{side: text}, add_special_tokens=False)["input_ids"]
        assert [tokenizer.theirs[i] for i in tokenizer.encode(text)] == wanted
        if kind != "marian":
            assert tokenizer.encode_source(text, 99) == (tokenizer.encode(text), False)
    assert tokenizer.encode("") == []
    assert tokenizer.encode_source("", 9) == ([], False)
    assert ragged_sources(tokenizer, [""], 9).flat.tolist() == [tokenizer.eos_id]


def test_marian_divides_sources_and_targets_by_models_of_their_own(
    every: dict[str, Pretrained], places: dict[str, Path]
) -> None:
    text, original = TEXTS[0], library(places["marian"])
    tokenizer = every["marian"]
    ids, _ = tokenizer.encode_source(text, 99)
    assert [tokenizer.theirs[i] for i in ids] == original(text, add_special_tokens=False)["input_ids"]
    assert ids != tokenizer.encode(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["tokenizer", "source_tokenizer"])
def test_text_that_looks_like_a_special_token_is_text(places: dict[str, Path], kind: str, role: str) -> None:
    tokenizer, original = read(places[kind], role), library(places[kind])
    for name in SPECIALS[kind]:
        for text in (name, f"a{name}b", f"a {name} b"):
            around = tokenizer.encode_source("", 99)[0]
            for ids, extra in ((tokenizer.encode(text), []), (tokenizer.encode_source(text, 99)[0], around)):
                found = sorted(original.convert_ids_to_tokens(tokenizer.theirs[i]) for i in ids)
                expected = sorted(original.convert_ids_to_tokens(tokenizer.theirs[i]) for i in extra)
                assert [each for each in found if each in SPECIALS[kind] and "unk" not in each.lower()] == expected
            assert kind != "bytes" or tokenizer.decode(tokenizer.encode(text)) == text


def test_a_token_that_was_added_as_text_can_be_generated(every: dict[str, Pretrained]) -> None:
    tokenizer = every["bytes"]
    ids = tokenizer.encode("<think>")
    assert len(ids) == 1
    assert tokenizer.decode(ids) == "<think>"


@pytest.mark.parametrize("name", ["[unused7]", "<unused7>", "<|reserved_special_token_7|>", "<extra_id_7>"])
def test_a_placeholder_cannot_be_generated(places: dict[str, Path], tmp_path: Path, name: str) -> None:
    shutil.copytree(places["pieces"], tmp_path / "it")
    file = tmp_path / "it" / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    size = len(content["model"]["vocab"])
    content["model"]["vocab"] |= {name: size, "unused": size + 1}
    file.write_text(json.dumps(content), "utf-8")
    assert size not in read(tmp_path / "it").theirs
    assert size + 1 in read(tmp_path / "it").theirs


# ---------------------------------------------------------------------------------------------------------- the text


def test_text_comes_back_where_the_tokenizer_keeps_it(every: dict[str, Pretrained]) -> None:
    back = {kind: [each.decode(each.encode(text)) for text in TEXTS] for kind, each in every.items()}
    assert back["bytes"] == TEXTS
    assert back["unigram"] == TEXTS
    assert back["fallback"] == TEXTS
    assert back["marian"][2:] == TEXTS[2:]
    assert back["pieces"][1] == "hello, world! do not fear ; it ' s 5. 3 degrees."


def test_an_unknown_token_is_shown(every: dict[str, Pretrained]) -> None:
    for kind in ("pieces", "unigram", "marian"):
        tokenizer = every[kind]
        ids = tokenizer.encode("er \U00013000")
        assert tokenizer.unknown_id in ids
        assert tokenizer.decode(ids).replace(" ", "") == "er⁇"


@settings(max_examples=60)
@given(data=st.data())
def test_prefixes_are_the_texts_of_the_prefixes(every: dict[str, Pretrained], data: st.DataObject) -> None:
    tokenizer = every[data.draw(st.sampled_from(KINDS))]
    ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1), max_size=12))
    texts = tokenizer.prefixes(ids)
    assert texts == [tokenizer.decode(ids[:t]) for t in range(len(ids) + 1)]
    assert texts[0] == ""
    assert all("\ufdd0" not in text for text in texts)


@settings(max_examples=60)
@given(st.text(max_size=20))
def test_bytes_keep_every_text(every: dict[str, Pretrained], text: str) -> None:
    tokenizer = every["bytes"]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    for other in every.values():
        assert all(0 <= i < other.size and i != other.eos_id for i in other.encode(text))


def test_a_prefix_that_ends_inside_a_character_has_a_replacement_character(every: dict[str, Pretrained]) -> None:
    tokenizer = every["bytes"]
    for each in (tokenizer, every["fallback"]):
        assert each.prefixes(each.encode("é\U00013000"))[-4:] == [*["é\ufffd"] * 3, "é\U00013000"]
    assert tokenizer.decode([*tokenizer.encode("fox"), tokenizer.eos_id]) == "fox"
    assert tokenizer.decode(tokenizer.encode("a\ud800")) == "a\ufffd"


def test_text_is_the_librarys_where_no_token_is_special(every: dict[str, Pretrained], places: dict[str, Path]) -> None:
    for kind, tokenizer in every.items():
        original = library(places[kind])
        for text in TEXTS[2:]:
            ids = tokenizer.encode(text)
            if tokenizer.unknown_id not in ids:
                theirs = [tokenizer.theirs[i] for i in ids]
                assert tokenizer.decode(ids) == original.decode(theirs, clean_up_tokenization_spaces=False)


def test_a_space_that_the_tokenizer_puts_before_a_text_is_left_out(places: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(places["bytes"], tmp_path / "it")
    file = tmp_path / "it" / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    content["pre_tokenizer"]["add_prefix_space"] = True
    file.write_text(json.dumps(content), "utf-8")
    tokenizer = read(tmp_path / "it")
    ids = tokenizer.encode("fox dog")
    assert tokenizer.decode(ids) == "fox dog"
    assert tokenizer.prefixes(ids)[0] == ""


# --------------------------------------------------------------------------------------------------------- templates


def shown(tokenizer: Pretrained, place: Path, text: str, limit: int = 999) -> str:
    ids, _ = tokenizer.encode_source(text, limit)
    assert len(ids) <= limit
    whole: str = library(place).decode([tokenizer.theirs[i] for i in ids])
    return whole


def test_a_chat_template_gives_the_ids_that_the_library_gives(places: dict[str, Path]) -> None:
    place = places["bytes"]
    tokenizer = read(place, "source_tokenizer", "Say {source} again", True, "Be kind.")
    assert tokenizer.size == len(library(place))
    for text in TEXTS:
        messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"Say {text} again"}]
        wanted = library(place).apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        ids, cut = tokenizer.encode_source(text, 999)
        assert [tokenizer.theirs[i] for i in ids] == list(wanted)
        assert not cut


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_cannot_close_its_template(places: dict[str, Path], kind: str) -> None:
    end = {"bytes": "<|im_end|>", "pieces": "[SEP]"}.get(kind, "</s>")
    original = library(places[kind])
    tokenizer = read(places[kind], "source_tokenizer", f"the fox {{source}} {end} dog")
    for source in ("the dog", f"the {end} dog", end):
        ids, _ = tokenizer.encode_source(source, 999)
        theirs = [tokenizer.theirs[i] for i in ids]
        closes = original.convert_tokens_to_ids(end)
        assert theirs.count(closes) == 1 + tokenizer.encode_source("", 99)[0][-1:].count(tokenizer.theirs.index(closes))
    if kind == "bytes":
        assert shown(tokenizer, places[kind], f"a {end} b") == f"the fox a {end} b {end} dog"


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_shortens_the_source_and_never_the_template(places: dict[str, Path], kind: str) -> None:
    tokenizer = read(places[kind], "source_tokenizer", "the dog {source} a dog")
    whole, cut = tokenizer.encode_source(TEXTS[0], 999)
    assert not cut
    empty, _ = tokenizer.encode_source("", 999)
    for limit in range(len(empty), len(whole)):
        ids, cut = tokenizer.encode_source(TEXTS[0], limit)
        assert cut
        assert len(empty) <= len(ids) <= limit
        assert tokenizer.decode(ids).startswith("the dog")
        assert tokenizer.decode(ids).endswith("a dog")
        assert kind == "marian" or len(ids) >= limit - 3
    with pytest.raises(UserError, match=rf"^dataset.max_source_length=2: is less than the {len(empty)} tokens"):
        tokenizer.encode_source(TEXTS[0], 2)


def test_sources_over_the_limit_are_counted(places: dict[str, Path]) -> None:
    tokenizer = read(places["bytes"], "source_tokenizer", "fox {source} dog")
    size = len(tokenizer.encode_source("", 99)[0])
    ragged = ragged_sources(tokenizer, ["", TEXTS[0]], size + 1)
    assert ragged.overlong.tolist() == [False, True]
    assert ragged.lengths.max() <= size + 1
    plain = read(places["bytes"])
    assert plain.encode_source(TEXTS[0], 3) == (plain.encode(TEXTS[0])[:3], True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_tokenizer_puts_around_a_text_is_around_a_source(places: dict[str, Path], kind: str) -> None:
    original = library(places[kind])
    tokenizer = read(places[kind], "source_tokenizer")
    templated = read(places[kind], "source_tokenizer", "the dog {source} a dog")
    for text in ["", *TEXTS]:
        ids, _ = tokenizer.encode_source(text, 99)
        assert [tokenizer.theirs[i] for i in ids] == original(text)["input_ids"]
        ids, _ = templated.encode_source(text, 99)
        assert [templated.theirs[i] for i in ids] == original(f"the dog {text} a dog")["input_ids"]
    for limit in (6, 7):
        ids, cut = tokenizer.encode_source(TEXTS[0], limit)
        assert cut
        if kind not in ("bytes", "fallback"):  # these put nothing after a text
            assert tokenizer.theirs[ids[-1]] == original("a")["input_ids"][-1]


# ----------------------------------------------------------------------------------------------------- saved, loaded


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["tokenizer", "source_tokenizer"])
def test_a_saved_tokenizer_needs_nothing_else(places: dict[str, Path], tmp_path: Path, kind: str, role: str) -> None:
    template = "fox {source} dog" if role == "source_tokenizer" else None
    tokenizer = read(places[kind], role, template)
    tokenizer.save(tmp_path / "first")
    other = Pretrained(str(tmp_path / "gone"), template, False, None, role)
    other.load(tmp_path / "first")
    assert (other.theirs, other.eos_id, other.unknown_id) == (tokenizer.theirs, tokenizer.eos_id, tokenizer.unknown_id)
    for text in [*TEXTS, *SPECIALS[kind]]:
        assert other.encode(text) == tokenizer.encode(text)
        assert other.encode_source(text, 20) == tokenizer.encode_source(text, 20)
        assert other.prefixes(other.encode(text)) == tokenizer.prefixes(tokenizer.encode(text))
    other.save(tmp_path / "second")
    content = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")]
    assert content[0] == content[1]
    written = [text for name, text in content[0].items() if not name.endswith(".spm")]
    assert str(places[kind]).encode() not in b"".join(written)
    for text in TEXTS:  # a model exported with these files has the same tokenizer
        assert library(tmp_path / "second")(text)["input_ids"] == library(places[kind])(text)["input_ids"]


def damaged(folder: Path, **changes: Any) -> None:
    file = folder / "pretrained.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "bpe"}, r"pretrained\.json: is no pretrained tokenizer: its kind is 'bpe'"),
        ({"theirs": [0, 0, 2]}, r"pretrained\.json: is damaged: an id occurs twice"),
        ({"theirs": ["a"]}, r"pretrained\.json: is damaged"),
        ({"theirs": [2, 10**6]}, r"pretrained\.json: holds the id 1000000, which the tokenizer beside it does not"),
        ({"theirs": [5]}, r"pretrained\.json: is damaged"),
        ({"eos": None}, r"pretrained\.json: is damaged"),
        ({"template": "x"}, r"pretrained\.json: is damaged"),
        ({"special": None}, r"pretrained\.json: is damaged"),
    ],
)
def test_a_damaged_table_is_refused(
    every: dict[str, Pretrained], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    every["bytes"].save(tmp_path)
    damaged(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        Pretrained("gone", None, False, None, "tokenizer").load(tmp_path)


def test_damaged_files_are_refused(every: dict[str, Pretrained], tmp_path: Path) -> None:
    other = Pretrained("gone", None, False, None, "tokenizer")
    with pytest.raises(UserError, match=r"pretrained\.json: is missing"):
        other.load(tmp_path)
    for kind, name in (("bytes", "tokenizer.json"), ("marian", "vocab.json")):
        folder = tmp_path / kind
        every[kind].save(folder)
        (folder / name).write_text("{")
        with pytest.raises(UserError, match=r"is damaged|cannot be read"):
            other.load(folder)
    file = tmp_path / "bytes" / "tokenizer.json"
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="is a link to"):
        other.load(tmp_path / "bytes")


def test_a_file_of_any_size_is_refused_unread(
    every: dict[str, Pretrained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every["bytes"].save(tmp_path)
    monkeypatch.setattr("tokenrl_cli.tokenizer.pretrained.LARGEST", 1000)
    with pytest.raises(UserError, match="is larger than"):
        Pretrained("gone", None, False, None, "tokenizer").load(tmp_path)


# --------------------------------------------------------------------------------------------------------- bad input


def refused(place: Path, message: str, **more: Any) -> None:
    with pytest.raises(UserError, match=message):
        read(place, **more)


def test_a_directory_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    refused(tmp_path, r"^tokenizer\.path: .* has no tokenizer: there is no tokenizer\.json")
    refused(tmp_path / "gone", r"^tokenizer\.path: there is no directory")


def test_code_of_a_tokenizer_is_refused_and_never_run(places: dict[str, Path], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = tmp_path / "it"
    shutil.copytree(places["marian"], folder)
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    refused(folder, r"^tokenizer\.path: .* needs code of its own \(trust_remote_code\), which is never run")
    assert not mark.exists()


def test_a_damaged_tokenizer_is_named(places: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(places["bytes"], tmp_path / "it")
    (tmp_path / "it" / "tokenizer.json").write_text("{")
    refused(tmp_path / "it", r"^tokenizer\.path: the tokenizer of .* cannot be read")


def test_a_text_has_to_end(places: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(places["unigram"], tmp_path / "it")
    file = tmp_path / "it" / "tokenizer_config.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if "eos" not in key}))
    refused(tmp_path / "it", r"^tokenizer\.path: .* has neither an eos_token nor a sep_token")


def test_a_wrong_template_is_refused(places: dict[str, Path]) -> None:
    def made(template: str | None, chat: bool, system: str | None, here: str) -> None:
        Pretrained(str(places["bytes"]), template, chat, system, here)

    with pytest.raises(SettingError, match=r"^template: must hold \{source\} once"):
        made("Summarise", False, None, "source_tokenizer")
    with pytest.raises(SettingError, match=r"^system: is a message of a chat"):
        made(None, False, "Be kind.", "source_tokenizer")
    for settings_ in (("{source}", False, None), (None, True, None)):
        with pytest.raises(SettingError, match=r"is for sources, and this tokenizer encodes targets"):
            made(*settings_, "tokenizer")
    message = r"^source_tokenizer\.chat: the chat template of .* cannot be used"
    refused(places["pieces"], message, role="source_tokenizer", chat=True)


def test_a_chat_template_that_changes_messages_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(places["bytes"], tmp_path / "it")
    (tmp_path / "it" / "chat_template.jinja").write_text("{{ messages[0]['content'] | upper }}")
    refused(tmp_path / "it", "does not hold the message once", role="source_tokenizer", chat=True)


# ----------------------------------------------------------------------------------------------------------- a run


def test_a_run_goes_on_without_the_pretrained_model(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints hold the tokenizers: of the targets, which are lower-cased, and of the sources, in a template."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(places["pieces"], tmp_path / "model")
    pairs = [{"src": "Hello, world! " * (i % 5), "refs": [f"The fox {i % 7}", "lazy dog"]} for i in range(20)]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = [each.replace("token_accuracy", "bleu") for each in [*TINY, *QUICK] if not each.startswith("dataset")]
    words += [f"data_root={tmp_path}", "dataset=jsonl", "dataset.path=${data_root}", "dataset.max_source_length=12"]
    words += ["tokenizer=pretrained", "tokenizer.path=model", "tokenizer@source_tokenizer=pretrained"]
    words += ["source_tokenizer.path=model", "source_tokenizer.template='the {source} dog'"]
    assert tokenrl("train", *words, "out=whole") == 0
    assert tokenrl("train", *words, "trainer.steps=1", "out=parts") == 0
    shutil.rmtree("model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert tokenrl("train", "resume=../parts", "trainer.steps=2", f"data_root={tmp_path}") == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    for command in ("eval", "generate"):
        assert tokenrl(command, "ckpt=../whole", "split=val", f"data_root={tmp_path}") == 0
    results = json.loads((tmp_path / "whole" / "results.json").read_text("utf-8"))
    (found,) = [each for each in results["findings"] if each["rule"] == "lossy_tokenizer" and "val:" in each["text"]]
    assert "val: 20 of 26 references (76.9 %) come back from the tokenizer as they are" in found["text"]
    assert any("longer than dataset.max_source_length=12" in each["text"] for each in results["findings"])
