from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders

from tokenrl_cli.interfaces import Tokenizer, UserError
from tokenrl_cli.tokenizer.bpe import Bpe

TEXTS = ["the cat sat on the mat", "the dog, the cat and the £ 20 - 25 café", "Grüße aus Köln ...", "das 中文"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Bpe:
    made = Bpe(300, 2)
    made.train(TEXTS)
    return made


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=20) | st.text(alphabet=" \t\n'’aßé\u0301_.£7中<end>", max_size=20))
def test_every_text_comes_back(tokenizer: Bpe, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_id not in ids


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 299), max_size=12))
def test_prefixes_of_any_ids_are_their_decodings_and_the_library_agrees(tokenizer: Bpe, ids: list[int]) -> None:
    prefixes = tokenizer.prefixes(ids)
    assert prefixes == [tokenizer.decode(ids[:t]) for t in range(len(ids) + 1)]
    pieces = [tokenizer._tokens[i] for i in ids if i != tokenizer.eos_id]
    assert prefixes[-1] == decoders.ByteLevel().decode(pieces).removeprefix(" ")


def test_a_prefix_that_ends_inside_a_character_ends_with_the_replacement_character(tokenizer: Bpe) -> None:
    ids = tokenizer.encode("x 😀")
    assert len(ids) >= 5
    assert tokenizer.decode(ids[:-1]) == "x \N{REPLACEMENT CHARACTER}"
    assert tokenizer.prefixes(ids)[0] == ""
    assert tokenizer.prefixes(ids)[-1] == "x 😀"


def test_frequent_words_are_one_token_at_the_start_too_and_nothing_is_unknown(tokenizer: Bpe) -> None:
    assert tokenizer.encode("the") == tokenizer.encode("on the")[-1:]
    assert tokenizer.unknown_id is None
    assert tokenizer.eos_id == 0
    assert tokenizer.size == 300
    assert tokenizer.decode([*tokenizer.encode("the cat"), 0]) == "the cat"


def test_the_name_of_the_end_in_a_text_is_text(tokenizer: Bpe) -> None:
    ids = tokenizer.encode("<end>")
    assert 0 not in ids
    assert tokenizer.decode(ids) == "<end>"


def test_before_training_it_knows_the_bytes() -> None:
    tokenizer = Bpe(300, 2)
    assert tokenizer.size == 257
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.decode(tokenizer.encode("é中")) == "é中"


def test_saving_and_loading_gives_the_same_ids_and_the_same_bytes(tmp_path: Path, tokenizer: Bpe) -> None:
    tokenizer.save(tmp_path / "a")
    other = Bpe(300, 2)
    other.load(tmp_path / "a")
    assert other.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])
    assert other.size == tokenizer.size
    other.save(tmp_path / "b")
    assert (tmp_path / "a" / "bpe.json").read_bytes() == (tmp_path / "b" / "bpe.json").read_bytes()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: None, "cannot read"),
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"bpe"', '"word"'), "no bpe vocabulary"),
        (lambda text: text.replace('"<end>",\n', ""), "damaged"),
        (lambda text: text.replace('"merges": [', '"merges": [["qqq", "q"],'), "damaged"),
        (lambda text: text.replace('"merges"', '"other"'), "damaged"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, tokenizer: Bpe, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    tokenizer.save(tmp_path)
    path = tmp_path / "bpe.json"
    text = damage(path.read_text("utf-8"))
    path.unlink()
    if text is not None:
        path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=said) as caught:
        Bpe(300, 2).load(tmp_path)
    assert caught.value.where == str(path)
