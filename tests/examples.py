"""The example files that docs/ shows: modules, YAML and commands, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)  # of a page: kind and content
NAME = re.compile(r"# (my\w+(?:/\w+)*\.(?:py|yaml))\n")  # first line of a file that is shown


def shown() -> dict[str, str]:
    """Name -> text of every file of one's own that docs/ shows, "my_parts.py" or "myconf/model/bag.yaml"."""
    pages = [file.read_text("utf-8") for file in sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [text for page in pages for kind, text in BLOCK.findall(page) if kind in ("python", "yaml")]
    return {match[1]: text for text in blocks if (match := NAME.match(text))}


FILES = shown()
