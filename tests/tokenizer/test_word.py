from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenrl_cli.interfaces import Tokenizer, UserError
from tokenrl_cli.tokenizer.word import PIECE, Word, _marked

ODD = st.text(alphabet=" \t\n\r\x1c\x85\xa0\u2003\u2028'’aßé\u0301_.£7中", max_size=20)

MARKS = "\u093f\u094d\u0903\u05b0\u064b\u0e31\u0301\ufe0f\u20e3\U000e0101\u200c\u200d"
MARKED = st.text(alphabet=MARKS + "कतבاะea'\u200e\u2764\U0001f469\U0001f3fd .\n")


def trained(*texts: str, vocabulary_size: int = 1000, min_count: int = 1) -> Word:
    tokenizer = Word(vocabulary_size, min_count)
    tokenizer.train(texts)
    return tokenizer


@pytest.mark.parametrize(
    "text",
    ["", " ", "  ", "£ 20 - 25", "isn 't", "it 's isn't", "Wait ... what...?!", "a  b", "a\tb\t", " a", "\n", "'Hi'"],
)
def test_decoding_gives_back_the_spacing(text: str) -> None:
    tokenizer = trained(text or "x")
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=20) | ODD | MARKED)
def test_any_text_without_unknown_words_comes_back_and_its_prefixes_are_prefixes_of_it(text: str) -> None:
    tokenizer = trained(text + " x")
    ids = tokenizer.encode(text)
    assert tokenizer.unknown_id not in ids
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == text
    prefixes = tokenizer.prefixes(ids)
    assert prefixes == [tokenizer.decode(ids[:t]) for t in range(len(ids) + 1)]
    assert all(text.startswith(prefix) for prefix in prefixes)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=12))
def test_prefixes_of_any_ids_are_their_decodings(ids: list[int]) -> None:
    tokenizer = trained("a b, c ... d 's e\t f  g h i j k l m n o p q")
    assert tokenizer.prefixes(ids) == [tokenizer.decode(ids[:t]) for t in range(len(ids) + 1)]


@pytest.mark.parametrize(
    "words",
    [
        ["किताब", " मेज़", " पर", " है"],  # vowel signs, a nukta
        ["क्षत्रिय"],  # conjuncts
        ["می\u200cخواهم", " عَرَبِيّ"],  # a non-joiner inside a word, short vowels
        ["שָׁלוֹם", ",", " ที่", " นี่"],
        ["e\u0301te\u0301", "'e\u0301", " it", "'s", " \u0301a"],  # decomposed; a mark at the start of a word
        ["\u2764\ufe0f", "\U0001f468\u200d", "\U0001f469", " 1\ufe0f\u20e3", "\n", "\u0301"],
        ["x", "'", "a\u0301b\u0301c"],  # three letters are no clitic, whatever stands on them
        ["a", ".\u0301", "b", " b\U000e0101"],  # a mark follows what it stands on
    ],
)
def test_marks_and_joiners_belong_to_the_word_or_mark_they_stand_on(words: list[str]) -> None:
    text = "".join(words)
    tokenizer = trained(text + " x")
    ids = tokenizer.encode(text)
    assert [tokenizer.prefixes([i])[1].strip(" ") for i in ids] == [word.strip(" ") for word in words]
    assert tokenizer.decode(ids) == text


def test_a_text_without_marks_has_the_pieces_that_it_has_beside_a_mark() -> None:
    text = "It 's isn't a l'été , the café's £20-25 ... 中文 \t 'Hi' x_y ''ab ’re"
    assert PIECE.findall(text) == _marked().findall(text)


def test_the_first_word_of_a_text_is_the_token_it_is_in_the_middle() -> None:
    tokenizer = trained("the cat and the dog")
    ids = tokenizer.encode("the cat and the dog")
    assert ids[0] == ids[3]
    assert tokenizer.size == 2 + 4


def test_a_mark_has_one_token_glued_and_one_apart() -> None:
    tokenizer = trained("yes. no .")
    ids = tokenizer.encode("yes. no .")
    assert len(ids) == 4
    assert ids[1] != ids[3]


def test_the_end_has_no_text_and_an_unknown_word_shows() -> None:
    tokenizer = trained("a b")
    assert tokenizer.eos_id == 0
    assert tokenizer.decode([*tokenizer.encode("a b"), tokenizer.eos_id]) == "a b"
    assert tokenizer.encode("a zebra") == [*tokenizer.encode("a"), tokenizer.unknown_id]
    assert tokenizer.decode(tokenizer.encode("a zebra b")) == "a ⁇ b"


def test_the_most_frequent_words_are_kept_and_ties_go_by_code_point() -> None:
    tokenizer = trained("c c c b b a a d", vocabulary_size=4)
    assert tokenizer.encode("c a b d") == [2, 3, 1, 1]
    assert trained("c c c b b a a d", min_count=2).encode("c a b d") == [2, 3, 4, 1]


def test_the_order_of_the_texts_does_not_matter() -> None:
    one, other = trained("a b", "b c", "é ü"), trained("é ü", "b c", "a b")
    assert one.encode("a b c é ü") == other.encode("a b c é ü")


def test_saving_and_loading_gives_the_same_ids_and_the_same_bytes(tmp_path: Path) -> None:
    text = 'Grüße, "Welt"!\t  x\u2028y \\ ⁇'
    tokenizer = trained(text)
    tokenizer.save(tmp_path / "a")
    other = Word(1000, 1)
    other.load(tmp_path / "a")
    assert other.encode(text) == tokenizer.encode(text)
    assert other.decode(other.encode(text)) == text
    other.save(tmp_path / "b")
    names = [path.name for path in (tmp_path / "a").iterdir()]
    assert names == ["vocabulary.json"]
    assert (tmp_path / "a" / names[0]).read_bytes() == (tmp_path / "b" / names[0]).read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        (b'{"kind": "word", "tok', "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[1]", "expected a JSON object"),
        (b'{"kind": "char", "tokens": ["a"]}', "no word vocabulary"),
        (b'{"kind": "word", "tokens": ["a", 3]}', "list of strings"),
        (b'{"kind": "word"}', "list of strings"),
        (b'{"kind": "word", "tokens": ["a", "a"]}', "twice"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "vocabulary.json").write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        Word(1000, 1).load(tmp_path)
    assert caught.value.where == str(tmp_path / "vocabulary.json")


def test_no_text_to_learn_from_is_refused() -> None:
    with pytest.raises(UserError, match="no text"):
        trained("", "")


def test_it_keeps_the_protocol() -> None:
    assert isinstance(Word(1000, 1), Tokenizer)
