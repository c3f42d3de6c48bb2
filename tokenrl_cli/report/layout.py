"""Text in lines of a terminal: how wide it is, what may break, columns that fit. Knows no terminal and no colours."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

NARROW, UNKNOWN, WIDE = 40, 80, 240  # columns laid out at least; where a terminal reports none; and at most
GAP = 2  # spaces between two columns
JOINERS = "\u200c\u200d"  # format characters that are part of words and of emoji
EMOJI = "\ufe0f"  # makes an emoji of the character before it, which is wide then
SMALLEST = 6  # cells that a column of text keeps, however narrow the screen is


def columns_of(reported: int) -> int:
    """The width to lay out for. A terminal that reports none, or next to none, shows longer lines all the same."""
    return UNKNOWN if reported < 1 else min(max(reported, NARROW), WIDE)


def cells(text: str) -> int:
    """Cells of a terminal that a text takes at most. Wide characters take two, those that combine none."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return int(character == EMOJI)
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def visible(text: str, kept: str = "") -> str:
    """The text with every character that moves a cursor, or turns the direction of writing, spelt out but for those of
    `kept`: a line break, say."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each in kept or not _moves(each) else _spelt(each) for each in text)


def _moves(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs") and character not in JOINERS


def _spelt(character: str) -> str:
    return repr(character)[1:-1] if not character.isprintable() else f"\\u{ord(character):04x}"


def clipped(text: str, width: int, ellipsis: str = "…") -> str:
    """At most `width` cells; what is left out is told by an ellipsis. A letter keeps the marks above and below it."""
    if cells(text) <= width:
        return text
    room, taken = width - cells(ellipsis), 0
    for end, character in enumerate(text):
        taken += _cells(character)
        if taken > room:
            return text[:end].rstrip() + ellipsis
    return text


def padded(text: str, width: int, right: bool = False) -> str:
    """Filled with spaces to `width` cells, before it where it stands to the right."""
    space = " " * max(0, width - cells(text))
    return space + text if right else text + space


def wrapped(text: str, width: int, hanging: int = 0) -> list[str]:
    """Lines broken at spaces alone: a word or a number longer than the line stays whole.

    `hanging` spaces stand before each line but the first. Leading spaces of the text stay.
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
    """A message in lines: wrapped to the width, unless it holds a command or a path of a run, which will be copied."""
    lines = visible(text, "\n").split("\n")
    if width is None or "tokenrl " in text or text.startswith("run: "):
        return lines
    return [part for line in lines for part in wrapped(line, width)]


def grid(items: Sequence[tuple[str, str, str]], width: int) -> list[str]:
    """(name, value, change) side by side in as many columns as fit, read from left to right."""
    for count in range(max(1, len(items)), 0, -1):
        rows = [items[start : start + count] for start in range(0, len(items), count)]
        widths = [[max(cells(row[i][part]) for row in rows if i < len(row)) for part in range(3)] for i in range(count)]
        total = sum(sum(each) + 1 + bool(each[2]) for each in widths) + (GAP + 1) * (count - 1)
        if total <= width or count == 1:
            return [(" " * (GAP + 1)).join(map(_item, row, widths)).rstrip() for row in rows]
    return []


def _item(item: tuple[str, str, str], widths: list[int]) -> str:
    name, value, change = (padded(item[part], widths[part], part > 0) for part in range(3))
    return f"{name} {value} {change}" if widths[2] else f"{name} {value}"


def table(rows: Sequence[Sequence[str]], width: int, texts: Sequence[int] = (), ellipsis: str = "…") -> list[str]:
    """Columns under a header, which is the first row. Numbers stand to the right and are never cut.

    The columns named in `texts` stand to the left and share what the others leave, each cut with an ellipsis. A header
    breaks at spaces alone. Where the columns do not fit, each row becomes a block of lines, one a column.
    """
    count = len(rows[0])
    longest = [max((cells(row[i]) for row in rows[1:]), default=0) for i in range(count)]
    words = [max(map(cells, rows[0][i].split()), default=0) for i in range(count)]
    widths = [max(longest[i], words[i]) for i in range(count)]
    room = width - GAP * (count - 1) - sum(widths[i] for i in range(count) if i not in texts)
    wanted = {i: widths[i] for i in texts}
    for i in texts:  # the words of its header fit in any case
        widths[i] = min(widths[i], max(SMALLEST, words[i]))
        room -= widths[i]
    for rank, i in enumerate(sorted(texts, key=lambda i: wanted[i])):  # short ones leave their share to the long
        more = max(0, min(wanted[i] - widths[i], room // (len(texts) - rank)))
        widths[i] += more
        room -= more
    if room < 0:
        return _blocks(rows, width, texts, ellipsis)
    for i in range(count):  # a header on one line where there is room
        if room and (more := cells(rows[0][i]) - widths[i]) > 0:
            widths[i] += min(more, room)
            room -= min(more, room)
    heads = [wrapped(rows[0][i], widths[i]) for i in range(count)]
    depth = max(map(len, heads))
    header = [[*[""] * (depth - len(head)), *head] for head in heads]
    lines = [[header[i][line] for i in range(count)] for line in range(depth)]
    lines += [
        [clipped(row[i], widths[i], ellipsis) if i in texts else row[i] for i in range(count)] for row in rows[1:]
    ]
    left = {0, *texts}
    return [
        (" " * GAP).join(padded(line[i], widths[i], i not in left) for i in range(count)).rstrip() for line in lines
    ]


def _blocks(rows: Sequence[Sequence[str]], width: int, texts: Sequence[int], ellipsis: str) -> list[str]:
    """Each row below its first cell: header and cell of every further column that holds something."""
    lines: list[str] = []
    for row in rows[1:]:
        lines.append(clipped(row[0], width, ellipsis) if 0 in texts else row[0])
        for i in range(1, len(row)):
            cell = row[i]
            if i in texts:
                cell = clipped(cell, max(SMALLEST, width - cells(rows[0][i]) - 3), ellipsis)
            if cell:
                lines += wrapped(f"  {rows[0][i]} {cell}", width, 4)
    return lines


def number(value: float | None) -> str:
    """Five characters or so: 0.412, 41.20, 412.0, 4,120; nan is nan, and what rounds to zero has no sign."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{value:.0f}"
    for places, below in ((3, 10.0), (2, 100.0), (1, 1000.0), (0, 1e6)):
        if abs(round(value, places)) < below:
            return f"{round(value, places) + 0.0:,.{places}f}"
    return f"{value:.2e}"


def signed(value: float | None, like: float | None = None) -> str:
    """With its sign, to the digits that `number` gives `like` (without it: the value itself); "-" without a value."""
    if value is None or not math.isfinite(value):
        return number(value)
    shown = number(value if like is None or not math.isfinite(like) else like)
    if "e" in shown:
        return f"{value:+.2e}"
    places = len(shown.partition(".")[2])
    return f"{round(value, places) + 0.0:+,.{places}f}"


def change(value: float, before: float | None) -> str:
    """(+1.30): what was added since, to the digits of the value; nothing where either is no number."""
    if before is None or not (math.isfinite(value) and math.isfinite(before)):
        return ""
    return f"({signed(value - before, value)})"
