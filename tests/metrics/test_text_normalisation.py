"""What is done to texts before their errors are counted."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from tokenrl_cli.metrics.text_normalisation import TextNormalisation

APOSTROPHES = "'\u2019"
MARKS = TextNormalisation(False, "remove", "keep")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("Yes, it's; he said: no.", "Yes it's he said no"),
        ("it\u2019s", "it's"),
        ("'tis the dogs' 'own' rock'n'roll", "tis the dogs own rock'n'roll"),
        ("it'", "it"),
        ("a'-'b ''", "a b"),
        ("well-known, 5.3\u2014\u201cso\u201d \u00bfwho?", "well known 5 3 so who"),
        ("$5 + 1%", "$5 + 1"),  # symbols are no punctuation
        (" a\t b\n", "a b"),
        ("e\u0301's caf\ufffd", "e\u0301's caf\ufffd"),
        ("...", ""),
        ("", ""),
    ],
)
def test_punctuation_goes_and_apostrophes_inside_words_stay(text: str, changed: str) -> None:
    assert MARKS(text) == changed


def test_all_punctuation_of_unicode_goes_and_nothing_else() -> None:
    letters = [letter for letter in map(chr, range(sys.maxunicode + 1)) if not letter.isspace()]
    assert MARKS("a".join(letters)).replace(" ", "") == "a".join(
        "" if unicodedata.category(letter)[0] == "P" and letter not in APOSTROPHES else letter for letter in letters
    ).replace("\u2019", "'")


def test_case_and_nothing() -> None:
    assert TextNormalisation(True, "keep", "keep")("The CAT, \u00c9! \u039f\u03a3") == "the cat, \u00e9! \u03bf\u03c2"
    nothing = TextNormalisation(False, "keep", "keep")
    rows = [["A,  b\t"]]
    assert nothing.each(rows) is rows
    assert nothing("A,  b\t 21") == "A,  b\t 21"
    assert MARKS.each([["A,", ""], ["b"]]) == [["A", ""], ["b"]]


def test_the_signature_names_each_step() -> None:
    every = TextNormalisation(True, "remove", "words").signature
    assert every == "case:lower|punctuation:remove|numbers:words"
    assert TextNormalisation(False, "keep", "keep").signature == "case:keep|punctuation:keep|numbers:keep"


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("I have 21.", "I have twenty one."),
        ("0, 7; 12 1,000", "zero, seven; twelve one thousand"),
        ("1234567", "one million two hundred and thirty four thousand five hundred and sixty seven"),
        ("-5 $3", "-five $three"),
        ("5.3 1,5 1,00 3rd 007 x2 1_2 10:30", "5.3 1,5 1,00 3rd 007 x2 1_2 ten:thirty"),
        ("9" * 16, "9" * 16),
        ("9" * 5000, "9" * 5000),
        ("\u0663", "\u0663"),  # digits of other scripts are not read
    ],
)
def test_integers_become_words(text: str, changed: str) -> None:
    pytest.importorskip("num2words")
    assert TextNormalisation(False, "keep", "words")(text) == changed
    expected = MARKS(changed.lower())
    assert TextNormalisation(True, "remove", "words")(text) == expected
