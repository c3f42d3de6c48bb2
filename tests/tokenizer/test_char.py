from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenrl_cli.interfaces import Tokenizer, UserError
from tokenrl_cli.tokenizer.char import Char


def trained(*texts: str, vocabulary_size: int = 1000, min_count: int = 1) -> Char:
    tokenizer = Char(vocabulary_size, min_count)
    tokenizer.train(texts)
    return tokenizer


@settings(derandomize=True, deadline=None)
@given(st.text(min_size=1, max_size=20))
def test_any_text_of_known_characters_comes_back(text: str) -> None:
    tokenizer = trained(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert tokenizer.prefixes(ids) == [text[:t] for t in range(len(text) + 1)]


def test_the_empty_text_has_no_ids() -> None:
    assert trained("a").encode("") == []
    assert trained("a").decode([]) == ""
    assert trained("a").prefixes([]) == [""]


def test_unknown_characters_and_the_end() -> None:
    tokenizer = trained("aab", vocabulary_size=3)
    assert tokenizer.encode("ab") == [2, 1]
    assert tokenizer.decode([2, 1, 0]) == "a⁇"
    assert tokenizer.size == 3


def test_saving_and_loading_gives_the_same_ids(tmp_path: Path) -> None:
    tokenizer = trained("é\n\t\"'⁇ü")
    tokenizer.save(tmp_path)
    other = Char(1000, 1)
    other.load(tmp_path)
    assert other.encode("ü\né") == tokenizer.encode("ü\né")
    assert isinstance(other, Tokenizer)


def test_the_file_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text('{"kind": "word", "tokens": []}')
    with pytest.raises(UserError, match="no char vocabulary"):
        Char(1000, 1).load(tmp_path)
