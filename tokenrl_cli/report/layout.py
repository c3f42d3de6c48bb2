"""Text laid out in lines and columns: its width in terminal cells, wrapping, truncation, tables and numbers.

Every function takes and returns plain strings; none writes to a terminal.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

NARROW, UNKNOWN, WIDE = 40, 80, 240  # narrowest width, the width if a terminal reports none, widest width; in cells
GAP = 2  # spaces between two columns of a table
JOINERS = "\u200c\u200d"  # zero-width characters that are part of words and of emoji
EMOJI = "\ufe0f"  # shows the character before it as an emoji, two cells wide
SMALLEST = 6  # cells that a column of text gets at least


def layout_width(reported: int) -> int:
    """Returns the width to lay lines out for, between NARROW (40) and WIDE (240), given the width that a terminal
    reports; UNKNOWN (80) if it reports 0. A narrower terminal wraps the lines itself."""
    return UNKNOWN if reported < 1 else min(max(reported, NARROW), WIDE)


def cells(text: str) -> int:
    """Returns the number of terminal cells that a text takes: two for a wide character, none for a combining or
    invisible one. For some emoji it is more than a terminal uses."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    """The number of terminal cells of a character."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return int(character == EMOJI)
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def escaped(text: str, allowed: str = "") -> str:
    """Returns the text with control characters (those that move the cursor or reverse the direction of writing)
    replaced by escapes such as \\x1b, except the characters in `allowed`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each in allowed or not _is_control(each) else _escape(each) for each in text)


def _is_control(character: str) -> bool:
    """Whether a character moves the cursor or reverses the direction of writing: controls, formats, line separators and
    surrogates."""
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs") and character not in JOINERS


def _escape(character: str) -> str:
    """A character as an escape: \\x1b, \\u202e."""
    return repr(character)[1:-1] if not character.isprintable() else f"\\u{ord(character):04x}"


def truncated(text: str, width: int, ellipsis: str = "…") -> str:
    """Returns the text if it fits into `width` terminal cells; else as much of its beginning as fits together with
    `ellipsis`, without white space at its end, then `ellipsis`. `width` must be at least the width of `ellipsis`. A
    letter keeps its combining marks."""
    if cells(text) <= width:
        return text
    room, taken = width - cells(ellipsis), 0
    for end, character in enumerate(text):
        taken += _cells(character)
        if taken > room:
            return text[:end].rstrip() + ellipsis
    return text


def padded(text: str, width: int, right: bool = False) -> str:
    """Returns the text filled with spaces to `width` cells: after it, or with `right` before it. A longer text stays as
    it is."""
    space = " " * max(0, width - cells(text))
    return space + text if right else text + space


def wrapped(text: str, width: int, hanging: int = 0) -> list[str]:
    """Returns the text in lines of at most `width` cells, broken only at white space: a longer word stays whole. An
    empty text is one empty line.

    Each line but the first is indented by `hanging` spaces. Leading spaces of the text are kept; any other white space
    between two words becomes one space.
    """
    lines: list[str] = []
    indent = len(text) - len(text.lstrip(" "))
    line = " " * indent
    filled = False
    for word in text.split():
        if filled and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line, filled = " " * hanging, False
        line += f" {word}" if filled else word
        filled = True
    return [*lines, line]


def message(text: str, width: int | None) -> list[str]:
    """Returns a message as lines, control characters escaped. They are wrapped to `width` if it is given and the
    message holds neither a command nor the path of a run: those are copied from the screen and must stay in one
    piece."""
    lines = escaped(text, "\n").split("\n")
    if width is None or "tokenrl " in text or text.startswith("run: "):
        return lines
    return [part for line in lines for part in wrapped(line, width)]


def grid(items: Sequence[tuple[str, str, str]], width: int) -> list[str]:
    """Returns the lines that show items (name, value, change) side by side, in as many columns as fit into `width`
    cells; one column, however wide, if no more fit. There must be at least one item."""
    for count in range(max(1, len(items)), 0, -1):  # the largest number of columns that fits
        rows = [items[start : start + count] for start in range(0, len(items), count)]
        widths = [[max(cells(row[i][part]) for row in rows if i < len(row)) for part in range(3)] for i in range(count)]
        total = sum(sum(each) + 1 + bool(each[2]) for each in widths) + (GAP + 1) * (count - 1)
        if total <= width or count == 1:
            return [(" " * (GAP + 1)).join(map(_item, row, widths)).rstrip() for row in rows]
    return []


def _item(item: tuple[str, str, str], widths: list[int]) -> str:
    """An item of `grid` whose parts are padded to the widths of its column."""
    name, value, change = (padded(item[part], widths[part], part > 0) for part in range(3))
    return f"{name} {value} {change}" if widths[2] else f"{name} {value}"


def table(rows: Sequence[Sequence[str]], width: int, texts: Sequence[int] = (), ellipsis: str = "…") -> list[str]:
    """Returns the lines of a table, at most `width` cells wide. The first of `rows` is the header, and all have as many
    cells.

    Columns with an index in `texts` hold text: they are left-aligned, share the width that the others leave, and are
    cut with an ellipsis. The first column is left-aligned as well, every other one right-aligned and never cut. Words
    of a header are wrapped onto several lines. If the columns do not fit, each row becomes a block of lines, one per
    column, in which a long word may be wider than `width`.
    """
    count = len(rows[0])
    longest = [max((cells(row[i]) for row in rows[1:]), default=0) for i in range(count)]
    words = [max(map(cells, rows[0][i].split()), default=0) for i in range(count)]
    widths = [max(longest[i], words[i]) for i in range(count)]
    room = width - GAP * (count - 1) - sum(widths[i] for i in range(count) if i not in texts)
    wanted = {i: widths[i] for i in texts}
    for i in texts:  # first the least each needs: the longest word of its header, or SMALLEST
        widths[i] = min(widths[i], max(SMALLEST, words[i]))
        room -= widths[i]
    # then equal shares of the rest, the shortest column first: what it does not need goes to the longer ones
    for rank, i in enumerate(sorted(texts, key=lambda i: wanted[i])):
        more = max(0, min(wanted[i] - widths[i], room // (len(texts) - rank)))
        widths[i] += more
        room -= more
    if room < 0:
        return _blocks(rows, width, texts, ellipsis)
    for i in range(count):  # room that is left widens columns whose header would need several lines
        if room and (more := cells(rows[0][i]) - widths[i]) > 0:
            widths[i] += min(more, room)
            room -= min(more, room)
    heads = [wrapped(rows[0][i], widths[i]) for i in range(count)]
    depth = max(map(len, heads))
    header = [[*[""] * (depth - len(head)), *head] for head in heads]
    lines = [[header[i][line] for i in range(count)] for line in range(depth)]
    lines += [
        [truncated(row[i], widths[i], ellipsis) if i in texts else row[i] for i in range(count)] for row in rows[1:]
    ]
    left = {0, *texts}
    return [
        (" " * GAP).join(padded(line[i], widths[i], i not in left) for i in range(count)).rstrip() for line in lines
    ]


def _blocks(rows: Sequence[Sequence[str]], width: int, texts: Sequence[int], ellipsis: str) -> list[str]:
    """The rows of a table as blocks of lines: the first cell, then "HEADER CELL" for each further cell that is not
    empty."""
    lines: list[str] = []
    for row in rows[1:]:
        lines.append(truncated(row[0], width, ellipsis) if 0 in texts else row[0])
        for i in range(1, len(row)):
            cell = row[i]
            if i in texts:
                cell = truncated(cell, max(SMALLEST, width - cells(rows[0][i]) - 3), ellipsis)
            if cell:
                lines += wrapped(f"  {rows[0][i]} {cell}", width, 4)
    return lines


def number(value: float | None) -> str:
    """Returns a number as text with three decimals below 10 (0.412), two below 100, one below 1,000, none below a
    million (412,000), and from there as 1.23e+07; also nan, inf, and "-" for None. What rounds to zero has no minus
    sign."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{value:.0f}"
    for places, below in ((3, 10.0), (2, 100.0), (1, 1000.0), (0, 1e6)):
        if abs(round(value, places)) < below:
            return f"{round(value, places) + 0.0:,.{places}f}"
    return f"{value:.2e}"


def signed(value: float | None, like: float | None = None) -> str:
    """Returns a number with its sign, with as many decimals as `number` gives `like`, or the value itself if `like` is
    None or not finite; "-" for None, and no plus sign for NaN and infinity."""
    if value is None or not math.isfinite(value):
        return number(value)
    model = number(value if like is None or not math.isfinite(like) else like)
    if "e" in model:
        return f"{value:+.2e}"
    places = len(model.partition(".")[2])
    return f"{round(value, places) + 0.0:+,.{places}f}"


def change(value: float, before: float | None) -> str:
    """Returns the change from `before` to `value` in parentheses, such as "(+1.30)", with as many decimals as `number`
    gives `value`; "" if `before` is None, or either is not finite."""
    if before is None or not (math.isfinite(value) and math.isfinite(before)):
        return ""
    return f"({signed(value - before, value)})"
