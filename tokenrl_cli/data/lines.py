"""The one reader of text lines: of data sets, of files named on the command line, and of standard input.

Text is UTF-8, whatever the locale says, with or without a byte order mark at its start, plain or packed by gzip. LF and
CRLF end a line; a lone CR, U+2028, U+0085, a vertical tab or a form feed is part of it. Every other character is kept.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tokenrl_cli.interfaces import UserError

MAGIC = b"\x1f\x8b"  # how gzip data begins
DEEPEST = 50  # lists and records inside one another in a line of JSON


def read_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a UTF-8 file, without the LF or CRLF at their ends and without a byte order mark; the last
    line may lack its end. The file is opened when the first line is requested, and read as lines are requested.

    A file is unpacked if its name ends in .gz or its content begins like gzip data. Raises UserError when it comes to
    the mistake: with the number of the line for bytes that are not UTF-8 and for NUL bytes, without it for damaged gzip
    data and for a file that cannot be opened or read.
    """
    try:
        with path.open("rb") as file:
            yield from _lines(file, str(path), path.suffix == ".gz")
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}") from None


def holds_nul(path: Path) -> bool:
    """Returns whether a NUL byte, which no text has, is among the first 4,096 bytes of a file; False where it cannot be
    read."""
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(4096)
    except OSError:
        return False


def standard_input() -> Iterator[str]:
    """Yields the lines of standard input, UTF-8 whatever the locale says, without the LF or CRLF at their ends;
    unpacked if its content begins like gzip data. Raises UserError for bytes that are not UTF-8, NUL bytes and damaged
    gzip data, where it cannot be read, and where standard input is closed, all when lines are requested."""
    require_open()
    try:
        yield from _lines(sys.stdin.buffer, "standard input", False)  # type: ignore[arg-type]
    except OSError as error:
        raise UserError("standard input", f"cannot be read: {error.strerror or error}") from None


def require_open() -> None:
    """Raises UserError where the program was started without a standard input (sys.stdin is None)."""
    if sys.stdin is None:
        raise UserError("standard input", "is closed", "name a file with input=FILE, or pipe text into the command")


def _lines(file: io.BufferedReader, name: str, packed: bool) -> Iterator[str]:
    stream: BinaryIO = file
    if packed or file.peek(len(MAGIC))[: len(MAGIC)] == MAGIC:
        stream = io.BufferedReader(gzip.GzipFile(fileobj=file))
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
                if not line:  # a mark alone: the file is empty
                    return
            if b"\0" in line:
                remedy = "convert it to UTF-8; text in UTF-16 has such bytes"
                raise UserError(name, f"line {number} holds a NUL byte, which no text has", remedy)
            if line.endswith(b"\n"):
                line = line[: -2 if line.endswith(b"\r\n") else -1]
            yield line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"line {number} is not UTF-8: byte {error.object[error.start]:#04x}"
        raise UserError(name, found, "convert it to UTF-8, e.g. with iconv") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(name, f"is no whole gzip file: {error}", "fetch or pack it again") from None


def one_line(text: str) -> str:
    """Returns a text as one line: every line break that any reader might split at (all that str.splitlines knows)
    becomes a space, one at the end is dropped, and what UTF-8 cannot encode is replaced as by `well_formed`."""
    return well_formed(" ".join(text.splitlines()))


def well_formed(text: str) -> str:
    """Returns the text with everything that UTF-8 cannot encode replaced: a lone surrogate becomes U+FFFD, and two that
    are a pair become their character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# ------------------------------------------------------------------------------------------------- a line that is JSON


def json_object(line: str, where: str) -> dict[str, Any]:
    """Returns the JSON object of a line, as a dictionary. Raises UserError with this `where`, such as "FILE, line N",
    for anything else.

    It also refuses what Python's reader would silently accept and change: duplicate keys, NaN and Infinity, numbers out
    of range, lone surrogates; and nesting deeper than DEEPEST (50) and integers of more digits than Python reads.
    """
    remedy = "one JSON object a line"
    # Checked before json.loads, whose recursion a deeply nested line would exhaust.
    if (line.count("[") + line.count("{") > DEEPEST) and _depth(line) > DEEPEST:
        raise UserError(where, f"is nested more than {DEEPEST} deep", remedy)
    try:
        record = json.loads(line, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
        if "\\ud" in line.lower():  # an escape of half a surrogate pair, which only encoding finds
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(where, "holds half of a surrogate pair, which is no text") from None
    except json.JSONDecodeError as error:
        raise UserError(where, f"is not JSON: {error.msg} at column {error.colno}", remedy) from None
    except _Refused as error:
        raise UserError(where, str(error)) from None
    except ValueError:  # Python's own limit
        raise UserError(where, f"holds an integer of more than {sys.get_int_max_str_digits():,} digits") from None
    if not isinstance(record, dict):
        raise UserError(where, f"expected a JSON object, got {shown(record)}")
    return record


def shown(value: Any) -> str:
    """Returns a JSON value as text of at most 60 characters, for an error message; "nothing" for None. A string is in
    quotes, a longer text ends in "...". Raises TypeError for what json.dumps cannot write."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


class _Refused(Exception):
    """Something that Python's JSON reader accepts and `json_object` does not."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"has the key {shown(twice)} twice: one of the values would be lost")
    return record


def _no_number(text: str) -> NoReturn:
    raise _Refused(f"holds {text}, which is no number of JSON: write null for what is not known")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _Refused(f"holds {text[:60]}, which is out of the range of numbers")
    return number


def _depth(line: str) -> int:
    """Depth of nested brackets in a line of JSON, without those inside strings."""
    depth = deepest = 0
    inside = escaped = False
    for letter in line:
        if inside:
            inside, escaped = escaped or letter != '"', letter == "\\" and not escaped
        elif letter == '"':
            inside = True
        elif letter in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]}":
            depth -= 1
    return deepest
