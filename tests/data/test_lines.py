"""All text is read by the same rules, whatever the encoding of the locale."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest

from tokenrl_cli.data.lines import json_object, one_line, read_lines, standard_input, well_formed
from tokenrl_cli.interfaces import UserError

KEPT = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h\ufeff \t"  # everything that only looks like an end, and the white space


def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[list[str] | str]:
    """The result of each way to read `content`: its lines, or the error message without the name of the file."""
    plain, packed, unnamed = (tmp_path / name for name in ("a.txt", "b.txt.gz", "c.txt"))
    plain.write_bytes(content)
    for path in (packed, unnamed):
        path.write_bytes(gzip.compress(content, mtime=0))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), "ascii"))
    found: list[list[str] | str] = []
    for reader in (read_lines(plain), read_lines(packed), read_lines(unnamed), standard_input()):
        try:
            found.append(list(reader))
        except UserError as error:
            found.append(error.problem)
    return found


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\n\nb", ["a", "", "b"]),
        (b"a\r\nb\n", ["a", "b"]),
        (b"a\r\r\nb\r", ["a\r", "b\r"]),
        (f"{KEPT}\n{KEPT}".encode(), [KEPT, KEPT]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfa", ["\ufeffa"]),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbf\n", [""]),
        ("é\n\U0001f468\u200d\U0001f469\n".encode(), ["é", "\U0001f468\u200d\U0001f469"]),
    ],
)
def test_every_way_to_read_gives_the_same_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, lines: list[str]
) -> None:
    assert ways(tmp_path, monkeypatch, content) == [lines] * 4


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"w\xe4r\n", "line 1 is not UTF-8: byte 0xe4"),
        ("é\n".encode() * 9000 + b"a\xc3", "line 9001 is not UTF-8: byte 0xc3"),
        (b"a\n\xed\xa0\x80\n", "line 2 is not UTF-8: byte 0xed"),  # half of a surrogate pair
        (b"a\n\xc0\xaf\n", "line 2 is not UTF-8: byte 0xc0"),  # a longer form than needed
        ("a\n".encode("utf-16"), "line 1 holds a NUL byte"),
        (b"a\n\0\0", "line 2 holds a NUL byte"),
    ],
)
def test_every_way_to_read_names_the_line_of_what_is_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str
) -> None:
    assert all(isinstance(each, str) and each.startswith(problem) for each in ways(tmp_path, monkeypatch, content))


def test_lines_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\n\xff\n")
    lines = read_lines(tmp_path / "a")
    assert next(lines) == "one"
    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        next(lines)


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=f"{path.name}: cannot be read: "):
            list(read_lines(path))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="standard input: is closed"):
        list(standard_input())


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt"])
def test_a_damaged_packed_file_is_named_however_it_is_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"a line\n" * 9000)[:-9])
    with pytest.raises(UserError, match=f"{name}: is no whole gzip file"):
        list(read_lines(tmp_path / name))


@pytest.mark.parametrize(
    "content",
    [
        b"a line\n",
        b"\x1f\x8b",
        gzip.compress(b"a\n" * 99, mtime=0)[:10] + b"\xff" * 20,
        gzip.compress(b"a\n", mtime=0) + b"b",  # the time of writing would stand in the name of the test
    ],
)
def test_what_is_called_packed_and_is_not_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.gz: is no whole gzip file"):
        list(read_lines(tmp_path / "a.gz"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1, 2]", "expected a JSON object, got [1, 2]"),
        ("null", "expected a JSON object, got nothing"),
        ('{"a": 1} x', "is not JSON: Extra data at column 10"),
        ('{"a": 1}{"a": 2}', "is not JSON: Extra data at column 9"),
        ('{"a": 1, "b": 2, "a": 3}', 'has the key "a" twice'),
        ('{"a": [{"b": 1, "b": 1}]}', 'has the key "b" twice'),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": [-Infinity]}', "holds -Infinity"),
        ('{"a": -1e999}', "holds -1e999, which is out of the range"),
        ('{"a": 1' + "0" * 10**5 + "}", "holds an integer of more than 4,300 digits"),
        ('{"a": ' + "[" * 10**5 + "]" * 10**5 + "}", "is nested more than 50 deep"),
        ('{"a":' * 10**5 + "1" + "}" * 10**5, "is nested more than 50 deep"),
        ("[" * 10**5, "is nested more than 50 deep"),
        ('{"a": ' + "[" * 50 + "]" * 50 + "}", "is nested more than 50 deep"),
        ('{"a": "\\uD83D"}', "holds half of a surrogate pair"),
        ('{"\\udead": 1}', "holds half of a surrogate pair"),
    ],
)
def test_a_line_of_json_that_is_no_object_or_would_lose_something_is_refused(line: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        json_object(line, "file, line 7")
    assert caught.value.where == "file, line 7"
    assert caught.value.problem.startswith(problem)


def test_a_line_of_json_keeps_what_it_holds() -> None:
    nested = '{"a": ' + "[" * 49 + '"]\\"' + "[{" * 99 + '"' + "]" * 49 + "}"  # brackets in a string are no nesting
    value = json_object(nested, "")["a"]
    for _ in range(49):
        (value,) = value
    assert value == ']"' + "[{" * 99
    value = json_object('{"a": "\\ud83d\\ude00\\u0000", "b": 1e-999, "": null}', "")
    assert value == {"a": "\U0001f600\0", "b": 0, "": None}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a b", "a b"),
        ("a\nb\r\nc\u2028d\x85e", "a b c d e"),
        ("\n", ""),
        ("a\ud800\n", "a\ufffd"),
        ("\ud83d\ude00\udc00", "\U0001f600\ufffd"),
    ],
)
def test_a_text_in_one_line_has_no_break_and_can_be_written(text: str, line: str) -> None:
    assert one_line(text) == line
    assert well_formed(line) == line
    line.encode()
