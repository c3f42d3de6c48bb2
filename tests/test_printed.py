"""A command that is printed, typed again: the shell and Hydra give back what it was made of."""

from __future__ import annotations

import shlex

import pytest

from tokenrl_cli.arguments import parse
from tokenrl_cli.printed import command, quoted, unquoted, value

TEXTS = [
    "outputs/2026-11-29/10-54-27",
    "a b/run=1",
    "it's",
    'say "so"',
    "$HOME/`x`\\",
    "back\\slash",
    "\\'",
    "end\\",
    "\\\\'x",
    "'",
    "",
    "~/run",
    "a,b",
    "[x]",
    "12",
    "1e5",
    "0x1",
    "null",
    "True",
    "Läufe/日本",
    "what?!",
    "a:b",
    "-m",
    "*",
    "a\tb",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_path_survives_printing_and_typing(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    typed = parse(shlex.split(command("eval", ckpt=text))[1:])
    assert typed.command == "eval" and typed.value("ckpt") == text
    parsed = OverridesParser.create().parse_override(typed.rest[0]).value()
    assert parsed == text and isinstance(parsed, str)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_survives_quoting(text: str) -> None:
    assert unquoted(quoted(text)) == text == unquoted(value(text))


def test_what_needs_no_quotes_has_none() -> None:
    assert command("eval", ckpt="outputs/x-1.2/run_3") == "tokenrl eval ckpt=outputs/x-1.2/run_3"
    assert command("eval", ckpt="a b/run=1") == "tokenrl eval \"ckpt='a b/run=1'\""


def test_imports_and_further_words_are_carried() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    line = command("train", "algorithm.optimizer.lr=...", resume="run", imports=["rw.py", "a b"])
    typed = parse(shlex.split(line)[1:])
    parsed = OverridesParser.create().parse_overrides(list(typed.rest))
    assert [each.value() for each in parsed][:2] == ["run", ["rw.py", "a b"]]
    assert typed.rest[2] == "algorithm.optimizer.lr=..."
    assert "imports" not in command("train", resume="run", imports=[])
